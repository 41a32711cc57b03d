package shard

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// TestStrangersWithOnePrivateAddress: a Windows client without a certificate says
// that it is the address that it has behind its NAT. So do others, behind other
// NATs and behind the same carrier's: whoever they are, they are not one. Each has
// an address of its own, and none ends another's tunnel, whether it says that its
// contact is the first or not.
func TestStrangersWithOnePrivateAddress(t *testing.T) {
	for _, initial := range []bool{false, true} {
		t.Run(map[bool]string{false: "without INITIAL_CONTACT", true: "with INITIAL_CONTACT"}[initial], func(t *testing.T) {
			inBubble(t, func(w *world) {
				gateway := w.site(gatewayAddr, 4, strangers())
				tel := gateway.telephone()
				all := []*caller{
					tel.windows("192.168.1.5", "203.0.113.1", 1024),
					tel.windows("192.168.1.5", "203.0.113.2", 1024),
					tel.windows("192.168.1.5", "203.0.113.3", 62000),
					tel.windows("192.168.1.5", "203.0.113.99", 1024),
					tel.windows("192.168.1.5", "203.0.113.99", 2048),
				}
				for _, c := range all {
					if initial {
						c.extra = []wire.Payload{&wire.Notify{Kind: wire.InitialContact}}
					}
					c.call()
				}
				tel.wantApart(all)
				w.after(time.Minute)
				tel.wantApart(all)

				// One of those who share an address comes again from where he was.
				if !initial {
					return
				}
				again := all[3]
				had := again.given()
				again.call()
				if got := again.given(); !slices.Equal(got, had) {
					t.Errorf("%v comes again and has %v, had %v", again.at, got, had)
				}
				tel.wantApart(all)
			})
		})
	}
}

// wantApart wants a tunnel for each caller, where he is, with an address that he
// alone was given.
func (tel *telephone) wantApart(all []*caller) {
	tel.t.Helper()
	var want, got []string
	seen := map[netip.Addr]bool{}
	for _, c := range all {
		if c.refused() != 0 || len(c.given()) != 1 || seen[c.given()[0]] {
			tel.t.Errorf("%v:%d is answered %v, given %v", c.at, c.ports[1], c.refused(), c.given())
			continue
		}
		seen[c.given()[0]] = true
		want = append(want, fmt.Sprintf("%v:%d [%v/32]", c.at, c.ports[1], c.given()[0]))
	}
	for _, p := range tel.gateway.peers() {
		if p.State == "established" && p.Child != nil {
			got = append(got, fmt.Sprintf("%v %v", p.Remote, p.Child.RemoteTS))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		tel.t.Errorf("tunnels\n%q, want\n%q", got, want)
	}
}
