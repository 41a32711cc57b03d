package shard

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/directory"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// TestHandshakeOnTheNATTPort: a client may begin on port 4500, behind the
// non-ESP marker. RFC 7296 §2.23. All of it happens there, and ESP; nothing goes
// to or from port 500.
func TestHandshakeOnTheNATTPort(t *testing.T) {
	two := home("anna@example.org")
	two[0].Proposals = ikeProposals("aes256gcm16-prfsha256-ecp256-x25519")
	for _, c := range []struct {
		name            string
		natted          bool
		conns           []*policy.Connection
		cookies         bool
		force, claims   bool // encapsulation, by the gateway and by the client
		client, gateway []string
	}{
		{name: "behind a NAT", natted: true, client: []string{"nat detected"}, gateway: []string{"nat detected"}},
		{name: "without one"},
		{name: "without one, but with encapsulation", force: true, client: []string{"nat detected"}},
		{name: "a client that claims one", claims: true, gateway: []string{"nat detected"}},
		{name: "with a cookie", natted: true, cookies: true, client: []string{"nat detected"}, gateway: []string{"nat detected"}},
		{name: "with another group", natted: true, conns: two, client: []string{"nat detected"}, gateway: []string{"nat detected"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				at := netip.MustParseAddrPort(clientAddr + ":4500")
				if c.natted {
					w.behindNAT(clientAddr, natAddr, 7000)
					at = netip.MustParseAddrPort(natAddr + ":11500")
				}
				w.tap = func(p wire.Packet) {
					if p.Local.Port() != 4500 || p.Remote.Port() == 500 || !p.NATT {
						t.Errorf("%v sends to %v, behind the marker: %v", p.Local, p.Remote, p.NATT)
					}
				}
				gateway := w.site(gatewayAddr, 4, roadwarriors(), func(conf *Config) { conf.ForceEncap = c.force })
				if c.cookies {
					gateway.group.gate.press(w.now())
				}
				conns := c.conns
				if conns == nil {
					conns = home("anna@example.org")
				}
				client := w.site(clientAddr, 2, conns, func(conf *Config) { conf.IKEPort, conf.ForceEncap = 4500, c.claims })
				client.initiate()
				client.wantEvents(slices.Concat([]string{"connecting"}, c.client, []string{"established", "child up"})...)
				gateway.wantEvents(slices.Concat(c.gateway, []string{"established", "child up"})...)
				if got := gateway.held().tracked[gateway.inSPI()]; got != (track{netip.MustParseAddrPort(gatewayAddr + ":4500"), at, c.natted || c.claims}) {
					t.Errorf("the gateway tracks %+v, want %v", got, at)
				}
				if got := gateway.counter(cCookies); (got == 1) != c.cookies {
					t.Errorf("%d cookies", got)
				}
				client.transmit(client.inSPI(), "there")
				gateway.transmit(gateway.inSPI(), "and back")
				if _, err := gateway.group.Probe(context.Background(), "anna@example.org"); err != nil {
					t.Error(err)
				}
				w.after(time.Second)
				if e := gateway.lastEvent(); e.Kind != sa.ProbeAnswered || len(gateway.held().inner) != 1 || len(client.held().inner) != 1 {
					t.Errorf("last %v; carried %q and %q", e.Kind, gateway.held().inner, client.held().inner)
				}
				if n, err := client.group.Terminate(context.Background(), "home"); n != 1 || err != nil {
					t.Errorf("terminated %d, %v", n, err)
				}
				w.after(time.Second)
				client.wantOrderly()
				gateway.wantOrderly()
			})
		})
	}
}

// full is a connection of a client that wants everything through the tunnel, of
// both families.
func full(who string) []*policy.Connection {
	conns := home(who)
	conns[0].VIPs = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	conns[0].Child.Remote = []wire.Selector{prefix("0.0.0.0/0"), prefix("::/0")}
	return conns
}

// child is the Child SA of the only tunnel.
func (s *site) child() *sa.ChildSA {
	spi := s.inSPI()
	p := s.planes[s.espShard(spi)]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.in[spi]
}

// TestOneFamilyOfTwo: who asks for an address of each family, as most clients do,
// has a tunnel with the family that the pools have.
func TestOneFamilyOfTwo(t *testing.T) {
	for _, c := range []struct{ pool, local, want string }{
		{"10.99.0.0/16", "10.0.0.0/8", "[10.99.0.1]"},
		{"2001:db8:99::/64", "2001:db8::/32", "[2001:db8:99::1]"},
	} {
		inBubble(t, func(w *world) {
			w.behindNAT(clientAddr, natAddr, 7000)
			conns := roadwarriors()
			conns[0].Child.Local = []wire.Selector{prefix(c.local)}
			gateway := w.site(gatewayAddr, 2, conns, func(conf *Config) {
				conf.Pools = []directory.Pool{{Name: "office", Prefixes: []netip.Prefix{netip.MustParsePrefix(c.pool)}}}
			})
			client := w.site(clientAddr, 2, full("anna@example.org"))
			client.initiate()
			theirs, ours := gateway.child(), client.child()
			if got := fmt.Sprint(ours.VirtualIPs); got != c.want {
				t.Errorf("%s: has %s, want %s", c.pool, got, c.want)
			}
			if r := theirs.Remote; len(r) != 1 || fmt.Sprintf("[%v]", r[0].Start) != c.want || r[0].End != r[0].Start {
				t.Errorf("%s: a tunnel for %v", c.pool, r)
			}
			client.transmit(client.inSPI(), "there")
			w.after(time.Second)
			if len(gateway.held().inner) != 1 {
				t.Errorf("%s: carried %q", c.pool, gateway.held().inner)
			}
		})
	}
}
