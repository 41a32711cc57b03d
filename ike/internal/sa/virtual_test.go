package sa

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// hostile has the gateway answer IKE_AUTH with what change makes of its
// payloads: sealed and authentic, as an attacker would who is the peer.
func (w *world) hostile(change func(ps []wire.Payload) []wire.Payload) {
	done := false
	w.drop = func(f flight) bool {
		m, err := wire.Parse(f.packet.Data)
		if done || err != nil || f.from != w.gateway || m.Exchange != wire.IKEAuth {
			return false
		}
		done = true
		sa := w.gateway.sa
		ps, err := sa.rec.Suite.Open(f.packet.Data, m, &sa.rec.Keys.Er, &sa.rec.Keys.Ar)
		if err != nil {
			w.t.Fatal(err)
		}
		f.packet.Data = sa.seal(wire.IKEAuth, wire.FlagResponse, m.MessageID, change(ps)...)
		w.wire = append(w.wire, f)
		return true
	}
}

// answer replaces what the gateway gives: addresses, and the client's side of
// the tunnel.
func answer(addrs []netip.Addr, tsi []wire.Selector) func([]wire.Payload) []wire.Payload {
	return func(ps []wire.Payload) (out []wire.Payload) {
		for _, p := range ps {
			switch p.Type() {
			case wire.TypeCP:
			case wire.TypeTSi:
				out = append(out, &wire.TS{T: wire.TypeTSi, Selectors: tsi})
			default:
				out = append(out, p)
			}
		}
		if addrs != nil {
			out = append(out, configReply(new(wire.CP), Admitted{Addrs: addrs}))
		}
		return out
	}
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

var (
	all4 = whole(netip.IPv4Unspecified())
	all6 = whole(netip.IPv6Unspecified())
)

// TestVirtualAddresses: an initiator takes the addresses that it asked for, one
// a family, that a host may have and nobody else has, and its side of the tunnel
// is those and no more. Of anything else it takes no Child SA, and says so to
// the peer.
func TestVirtualAddresses(t *testing.T) {
	any4, any6, both := addrs("0.0.0.0"), addrs("::"), addrs("0.0.0.0", "::")
	tcp := single(netip.MustParseAddr("10.99.0.2"))
	tcp.Protocol, tcp.StartPort, tcp.EndPort = 6, 80, 80
	for _, c := range []struct {
		name    string
		asked   []netip.Addr
		local   []wire.Selector // configured
		given   []netip.Addr
		tsi     []wire.Selector
		want    string // our side of the tunnel
		vips    []netip.Addr
		refused string // what the refusal says
	}{
		{name: "one", asked: any4, given: addrs("10.99.0.2"), tsi: []wire.Selector{prefix("10.99.0.2/32")}, want: "10.99.0.2-10.99.0.2", vips: addrs("10.99.0.2")},
		{name: "with a tunnel for everybody", asked: any4, given: addrs("10.99.0.2"), tsi: []wire.Selector{all4}, want: "10.99.0.2-10.99.0.2", vips: addrs("10.99.0.2")},
		{name: "another than asked for", asked: addrs("10.99.0.7"), given: addrs("10.99.0.2"), tsi: []wire.Selector{all4}, want: "10.99.0.2-10.99.0.2", vips: addrs("10.99.0.2")},
		{name: "for one port", asked: any4, given: addrs("10.99.0.2"), tsi: []wire.Selector{tcp}, want: "10.99.0.2-10.99.0.2", vips: addrs("10.99.0.2")},
		{name: "both families", asked: both, given: addrs("10.99.0.2", "2001:db8:99::2"), tsi: []wire.Selector{all4, all6},
			want: "10.99.0.2-10.99.0.2,2001:db8:99::2-2001:db8:99::2", vips: addrs("10.99.0.2", "2001:db8:99::2")},
		{name: "one family of two", asked: both, given: addrs("10.99.0.2"), tsi: []wire.Selector{all4, all6}, want: "10.99.0.2-10.99.0.2", vips: addrs("10.99.0.2")},
		{name: "the other of two", asked: both, given: addrs("2001:db8:99::2"), tsi: []wire.Selector{all4, all6}, want: "2001:db8:99::2-2001:db8:99::2", vips: addrs("2001:db8:99::2")},
		{name: "in a network of ours", asked: any4, local: []wire.Selector{prefix("10.99.0.0/16")}, given: addrs("10.99.0.2"),
			tsi: []wire.Selector{prefix("10.99.0.0/16")}, want: "10.99.0.0-10.99.255.255", vips: addrs("10.99.0.2")},
		{name: "not asked for, site to site", local: []wire.Selector{prefix("10.20.0.0/16")}, given: addrs("10.20.0.1"),
			tsi: []wire.Selector{prefix("10.20.0.0/16")}, want: "10.20.0.0-10.20.255.255"},
		{name: "not asked for, and unfit", local: []wire.Selector{prefix("10.20.0.0/16")}, given: addrs("127.0.0.1"),
			tsi: []wire.Selector{prefix("10.20.0.0/16")}, want: "10.20.0.0-10.20.255.255"},
		{name: "not asked for, host to host", given: addrs("10.99.0.2"), tsi: []wire.Selector{single(clientAddr.Addr())}, want: "10.7.0.2-10.7.0.2"},

		{name: "none", asked: any4, tsi: []wire.Selector{all4}, refused: "no virtual address"},
		{name: "outside of a network of ours", asked: any4, local: []wire.Selector{prefix("10.20.0.0/16")}, given: addrs("10.99.0.2"),
			tsi: []wire.Selector{prefix("10.20.0.0/16")}, refused: "do not hold"},
		{name: "not in the selectors", asked: any4, given: addrs("10.99.0.2"), tsi: []wire.Selector{prefix("10.99.0.3/32")}, refused: "do not hold"},
		{name: "one of two not in the selectors", asked: both, given: addrs("10.99.0.2", "2001:db8:99::2"), tsi: []wire.Selector{all4}, refused: "do not hold"},
		{name: "two of a family", asked: any4, given: addrs("10.99.0.2", "10.99.0.3"), tsi: []wire.Selector{all4}, refused: "a second one"},
		{name: "IPv6 for IPv4", asked: any4, given: addrs("2001:db8:99::2"), tsi: []wire.Selector{all4}, refused: "not asked for"},
		{name: "IPv4 for IPv6", asked: any6, given: addrs("10.99.0.2"), tsi: []wire.Selector{all6}, refused: "not asked for"},
		{name: "IPv6, too", asked: any4, given: addrs("10.99.0.2", "2001:db8:99::2"), tsi: []wire.Selector{all4}, refused: "not asked for"},
		{name: "unspecified", asked: any4, given: addrs("0.0.0.0"), tsi: []wire.Selector{all4}, refused: "which is none"},
		{name: "unspecified IPv6", asked: any6, given: addrs("::"), tsi: []wire.Selector{all6}, refused: "which is none"},
		{name: "no host's", asked: any4, given: addrs("0.1.2.3"), tsi: []wire.Selector{all4}, refused: "no host's"},
		{name: "loopback", asked: any4, given: addrs("127.0.0.53"), tsi: []wire.Selector{all4}, refused: "loopback"},
		{name: "loopback IPv6", asked: any6, given: addrs("::1"), tsi: []wire.Selector{all6}, refused: "loopback"},
		{name: "multicast", asked: any4, given: addrs("224.0.0.5"), tsi: []wire.Selector{all4}, refused: "multicast"},
		{name: "multicast IPv6", asked: any6, given: addrs("ff02::1"), tsi: []wire.Selector{all6}, refused: "multicast"},
		{name: "broadcast", asked: any4, given: addrs("255.255.255.255"), tsi: []wire.Selector{all4}, refused: "broadcast"},
		{name: "link-local", asked: any4, given: addrs("169.254.169.254"), tsi: []wire.Selector{all4}, refused: "link-local"},
		{name: "link-local IPv6", asked: any6, given: addrs("fe80::1"), tsi: []wire.Selector{all6}, refused: "link-local"},
		{name: "mapped", asked: any6, given: addrs("::ffff:10.99.0.2"), tsi: []wire.Selector{all6}, refused: "in the form of IPv6"},
		{name: "our own outer address", asked: any4, given: addrs("10.7.0.2"), tsi: []wire.Selector{all4}, refused: "this host's already"},
		{name: "another that we listen at", asked: any4, given: addrs("10.7.9.9"), tsi: []wire.Selector{all4}, refused: "this host's already"},
		{name: "the peer's own outer address", asked: any4, given: addrs("198.51.100.1"), tsi: []wire.Selector{all4}, refused: "its own"},
		{name: "another peer's", asked: any4, given: addrs("198.51.100.77"), tsi: []wire.Selector{all4}, refused: "a configured peer"},
		{name: "everything, not asked for", given: addrs("10.99.0.2"), tsi: []wire.Selector{all4}, refused: "go beyond ours"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.client.conn.VIPs, w.client.conn.Child.Local = c.asked, c.local
			other := *w.client.conn
			other.Name, other.Pins = "other", addrs("198.51.100.77")
			w.client.env.Policy = policy.NewSet([]*policy.Connection{w.client.conn, &other}, []policy.Secret{{Remote: pattern("vpn.example.org"), PSK: []byte(testPSK)}})
			w.client.env.Listen = addrs("10.7.9.9", "10.7.0.2")
			w.gateway.conn.Pools = nil
			w.gateway.conn.Child.Remote = []wire.Selector{all4, all6}
			w.gateway.lease = nil // what it would give, were it not hostile
			switch {
			case c.local != nil:
				w.gateway.lease = []netip.Addr{c.local[0].Start}
			case c.asked != nil && c.asked[0].Is6():
				w.gateway.lease = addrs("2001:db8:99::2")
			default:
				w.gateway.lease = addrs("10.99.0.2")
			}
			w.hostile(answer(c.given, c.tsi))
			w.initiate()
			w.run(time.Second)
			if c.refused != "" {
				wantRefused(t, w, c.refused)
				return
			}
			if w.client.sa == nil || len(w.client.in) != 1 || len(w.client.out) != 1 {
				t.Fatalf("no tunnel: %+v", w.client.events)
			}
			for _, child := range w.client.in {
				if got := ranges(child.Local); got != c.want || !slices.Equal(child.VirtualIPs, c.vips) {
					t.Errorf("our side is %s with %v, want %s with %v", got, child.VirtualIPs, c.want, c.vips)
				}
				if c.name == "for one port" && child.Local[0] != tcp {
					t.Errorf("our side is %+v", child.Local[0])
				}
			}
		})
	}
}

// wantRefused: the event says why, the peer has been told, and nothing is left
// or was ever installed.
func wantRefused(t *testing.T, w *world, why string) {
	t.Helper()
	said := slices.IndexFunc(w.client.events, func(e Event) bool { return e.Err != nil && strings.Contains(e.Err.Error(), why) })
	if said < 0 {
		t.Errorf("nothing says %q: %+v", why, w.client.events)
	}
	if slices.Contains(w.client.steps, "InstallInbound") || slices.Contains(w.client.steps, "Track") {
		t.Errorf("steps %v", w.client.steps)
	}
	if e := w.gateway.last(); e.Kind != Closed || e.Reason != DeletedByPeer {
		t.Errorf("the peer's last event is %v: %v", e.Kind, e.Reason)
	}
	if err := errors.Join(w.client.empty(), w.gateway.empty()); err != nil {
		t.Error(err)
	}
}
