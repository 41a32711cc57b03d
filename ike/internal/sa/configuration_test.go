package sa

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// unspaced reads hex digits with spaces between them.
func unspaced(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// config is a configuration payload of these bytes, behind its header.
func config(t *testing.T, body string) *wire.CP {
	t.Helper()
	b := unspaced(t, body)
	n := len(b) + 4 // of the generic payload header
	ps, err := wire.ParsePayloads(wire.TypeCP, append([]byte{0, 0, byte(n >> 8), byte(n)}, b...))
	if err != nil {
		t.Fatal(err)
	}
	return ps[0].(*wire.CP)
}

// asking has the client send this configuration payload in its IKE_AUTH, and
// returns where the gateway's will stand as bytes; "" if it gives none.
func (w *world) asking(cp *wire.CP) *string {
	var reply string
	done := false
	w.drop = func(f flight) bool {
		m, err := wire.Parse(f.packet.Data)
		if err != nil || m.Exchange != wire.IKEAuth {
			return false
		}
		client := w.client.sa
		if f.from == w.gateway {
			ps, err := client.rec.Suite.Open(f.packet.Data, m, &client.rec.Keys.Er, &client.rec.Keys.Ar)
			if err != nil {
				w.t.Fatal(err)
			}
			if p, ok := wire.Find[*wire.CP](ps); ok {
				b, _ := wire.AppendPayloads(nil, []wire.Payload{p})
				reply = hex.EncodeToString(b[4:])
			}
			return false
		}
		if done {
			return false
		}
		done = true
		ps, err := client.rec.Suite.Open(f.packet.Data, m, &client.rec.Keys.Ei, &client.rec.Keys.Ai)
		if err != nil {
			w.t.Fatal(err)
		}
		at := slices.IndexFunc(ps, func(p wire.Payload) bool { return p.Type() == wire.TypeCP })
		ps[at] = cp
		f.packet.Data = client.seal(wire.IKEAuth, 0, m.MessageID, ps...)
		w.wire = append(w.wire, f)
		return true
	}
	return &reply
}

// What Apple's and Windows' clients ask for, in their order: each attribute
// empty, or with a value of zeros.
const (
	appleAsks = `01000000 00010000 00060000 00030000 00020000
		00080000 000c0000 000a0000 00190000`
	appleZeros = `01000000 00010004 00000000 00060004 00000000 00030004 00000000 00020004 00000000
		00080011 0000000000000000000000000000000000 000c0010 00000000000000000000000000000000
		000a0010 00000000000000000000000000000000 00190000`
	windowsAsks = `01000000 00010000 00030000 00040000 5ba00000
		00080000 000a0000 5ba10000`
	windowsZeros = `01000000 00010004 00000000 00030004 00000000 00040004 00000000 5ba00004 00000000
		00080010 00000000000000000000000000000000 000a0010 00000000000000000000000000000000
		5ba10010 00000000000000000000000000000000`
)

// What the gateway gives.
const (
	given4  = "0001 0004 0a630002 "
	given6  = "0008 0011 20010db8009900000000000000000002 80 "
	server4 = "0003 0004 0a000035 "
	server6 = "000a 0010 20010db8000000000000000000000053 "
	corp    = "0019 0010 636f72702e6578616d706c652e6f7267 " // corp.example.org
	lab     = "0019 0003 6c6162 "                           // lab
)

// Domains, by the family of their servers.
var (
	corp4 = policy.Domain{Name: "corp.example.org"}
	corp6 = policy.Domain{Name: "corp.example.org", IPv6: true}
	lab4  = policy.Domain{Name: "lab"}
	lab6  = policy.Domain{Name: "lab", IPv6: true}
)

// TestConfigurationRequests: real clients ask for all sorts of things. Each gets
// an address of every family that there is, and of the rest what it asked for
// and can have, in every byte; and a tunnel for the addresses and no more.
func TestConfigurationRequests(t *testing.T) {
	v4, v6, both := "10.99.0.2", "2001:db8:99::2", "10.99.0.2 2001:db8:99::2"
	for _, c := range []struct {
		name, asks string
		wants      string // of the pools
		leased     string
		domains    []policy.Domain
		reply      string
	}{
		{"strongSwan", "01000000 00010000 00030000", "0.0.0.0", v4, nil, given4 + server4},
		{"strongSwan that sets no DNS", "01000000 00010000", "0.0.0.0", v4, nil, given4},
		{"strongSwan, both families", "01000000 00010000 00080000 00030000 000a0000", "0.0.0.0 ::", both, nil, given4 + given6 + server4 + server6},
		{"DNS of the other family", "01000000 00010000 000a0000", "0.0.0.0", v4, nil, given4 + server6},
		{"Apple", appleAsks, "0.0.0.0 ::", both, nil, given4 + given6 + server4 + server6},
		{"Apple, with zeros", appleZeros, "0.0.0.0 ::", both, nil, given4 + given6 + server4 + server6},
		{"Apple, domains", appleAsks, "0.0.0.0 ::", both, []policy.Domain{corp4, lab4, lab6},
			given4 + given6 + server4 + server6 + corp + lab},
		{"Apple, IPv4 alone", appleAsks, "0.0.0.0 ::", v4, []policy.Domain{corp4}, given4 + server4 + server6 + corp},
		{"Windows", windowsAsks, "0.0.0.0 ::", both, []policy.Domain{lab4}, given4 + given6 + server4 + server6},
		{"Windows, with zeros", windowsZeros, "0.0.0.0 ::", both, nil, given4 + given6 + server4 + server6},
		{"Windows, IPv4 alone", windowsAsks, "0.0.0.0 ::", v4, nil, given4 + server4 + server6},
		{"Windows, IPv6 alone", windowsAsks, "0.0.0.0 ::", v6, nil, given6 + server4 + server6},

		{"domains without DNS", "01000000 00010000 00190000", "0.0.0.0", v4, []policy.Domain{corp4}, given4},
		{"domains of other servers", "01000000 00010000 00030000 00190000", "0.0.0.0", v4, []policy.Domain{corp6}, given4 + server4},
		{"a domain of the client's", "01000000 00010000 00030000 00190003 612e62", "0.0.0.0", v4, []policy.Domain{lab4}, given4 + server4 + lab},
		{"domains ten times", "01000000 00010000 00030000" + strings.Repeat("00190000", 10), "0.0.0.0", v4, []policy.Domain{lab4}, given4 + server4 + lab},

		{"an address by name", "01000000 00010004 0a630007 00030004 08080808", "10.99.0.7", v4, nil, given4 + server4},
		{"IPv6 by name", "01000000 00080011 20010db8009900000000000000000007 40", "2001:db8:99::7", v6, nil, given6},
		{"IPv6 without the prefix length", "01000000 00080010 20010db8009900000000000000000007", "2001:db8:99::7", v6, nil, given6},
		{"IPv4 of three bytes", "01000000 00010003 0a6300", "0.0.0.0", v4, nil, given4},
		{"IPv4 of five bytes", "01000000 00010005 0a63000700", "0.0.0.0", v4, nil, given4},
		{"IPv6 of four bytes", "01000000 00080004 0a630007", "::", v6, nil, given6},
		{"IPv6 of 18 bytes", "01000000 00080012 20010db8009900000000000000000007 4000", "::", v6, nil, given6},
		{"DNS of a byte", "01000000 00010000 00030001 00", "0.0.0.0", v4, nil, given4 + server4},
		{"IPv4 in the form of IPv6", "01000000 00080011 00000000000000000000ffff0a630007 80", "::ffff:10.99.0.7", v6, nil, given6},
		{"the reserved bit", "01ffffff 80010000 80030000", "0.0.0.0", v4, nil, given4 + server4},
		{"an address ten times", "01000000" + strings.Repeat("00010000", 10), "0.0.0.0", v4, nil, given4},
		{"ten addresses", "01000000 00010004 0a630007" + strings.Repeat("00010004 0a630008", 9), "10.99.0.7", v4, nil, given4},
		{"64 attributes", "01000000 00010000" + strings.Repeat("00030000", 62) + "00190000", "0.0.0.0", v4, []policy.Domain{lab4}, given4 + server4 + lab},
		{"64 that nobody knows", "01000000 00010000" + strings.Repeat("7fff0002 abcd", 63), "0.0.0.0", v4, nil, given4},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.client.conn.VIPs = addrs("0.0.0.0", "::")
			w.client.conn.Child.Remote = []wire.Selector{all4, all6}
			w.gateway.lease, w.gateway.dns, w.gateway.domains = addrs(strings.Fields(c.leased)...), addrs("10.0.0.53", "2001:db8::53"), c.domains
			reply := w.asking(config(t, c.asks))
			w.establish()
			if got := fmt.Sprint(w.gateway.wanted); got != "["+c.wants+"]" {
				t.Errorf("the pools are asked for %s, want %s", got, c.wants)
			}
			if want := hex.EncodeToString(unspaced(t, "02000000"+c.reply)); *reply != want {
				t.Errorf("gives %s\nwant  %s", *reply, want)
			}
			for _, child := range w.gateway.in {
				var want []string
				for _, a := range w.gateway.lease {
					want = append(want, fmt.Sprintf("%v-%v", a, a))
				}
				if got := ranges(child.Remote); got != strings.Join(want, ",") || ranges(child.Local) != "10.0.0.0-10.255.255.255" {
					t.Errorf("a tunnel for %s to %s", got, ranges(child.Local))
				}
			}
		})
	}
}

// TestNoConfiguration: what is no request for an address gets none, and where
// the peer must have one, no tunnel.
func TestNoConfiguration(t *testing.T) {
	for _, c := range []struct {
		name, cp string
		pools    bool
		refused  wire.NotifyType
	}{
		{"DNS alone", "01000000 00030000", true, wire.FailedCPRequired},
		{"DNS alone, without pools", "01000000 00030000", false, 0},
		{"nothing", "01000000", true, wire.FailedCPRequired},
		{"a reply", "02000000 00010004 0a630007", true, wire.FailedCPRequired},
		{"a reply, without pools", "02000000 00010004 0a630007", false, 0},
		{"an order", "03000000 00010004 0a630007", false, 0},
		{"an unknown kind", "c8000000 00010000", true, wire.FailedCPRequired},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			if !c.pools {
				w.gateway.conn.Pools = nil
				w.gateway.conn.Child.Remote = []wire.Selector{prefix("10.99.0.0/16")}
			}
			reply := w.asking(config(t, c.cp))
			w.initiate()
			w.run(time.Second)
			at := slices.IndexFunc(w.gateway.events, func(e Event) bool { return e.Kind == Established })
			if at < 0 || w.gateway.events[at].Notify != c.refused {
				t.Fatalf("want %v: %+v", c.refused, w.gateway.events)
			}
			if *reply != "" || w.gateway.wanted != nil {
				t.Errorf("gives %s, having asked for %v", *reply, w.gateway.wanted)
			}
		})
	}
}
