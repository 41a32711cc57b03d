package tun

import (
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"weak"

	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/esp"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// laptop has a tunnel for everything, is on a network of its own, and has
// another tunnel, to 10.20.0.0/16, which is not up.
func laptop() *barrier.Plan {
	c := barrier.Config{
		Tunnels: []barrier.Tunnel{{Name: "all", Remote: prefixes("0.0.0.0/0")}, {Name: "site", Remote: prefixes("10.20.0.0/16")}},
		Peers:   []netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("203.0.113.9")},
		Bypass:  prefixes("172.16.0.0/12"),
	}
	return c.Plan(barrier.Host{
		Attached: []barrier.Attached{{Network: netip.MustParsePrefix("10.7.0.0/24"), Interface: "c0", Address: netip.MustParseAddr("10.7.0.2")}},
		NextHops: []barrier.NextHop{{Addr: netip.MustParseAddr("192.0.2.254")}, {Addr: netip.MustParseAddr("192.0.2.253"), Pushed: true}},
	})
}

// TestSources: the other end of a tunnel speaks for whom the tunnel is, and not
// for our neighbours, our routers, other peers, or the networks of other tunnels.
func TestSources(t *testing.T) {
	s := newSideBy(t, namespace(t, newLab(t), "laptop"), laptop())
	c, there := children(t, 1, subnets("10.99.0.7/32"), subnets("0.0.0.0/0"))
	c.VirtualIPs = []netip.Addr{netip.MustParseAddr("10.99.0.7")}
	s.install(c)
	everything := subnets("0.0.0.0/0")
	out := esp.NewOutbound(there.OutSPI, there.Suite, there.OutEncr, there.OutInteg, everything, everything, 1)
	comes := func(from string) bool {
		b, err := out.Seal(nil, ip4(from, "10.99.0.7"))
		if err != nil {
			t.Fatal(err)
		}
		before := s.plane.Counters()
		s.do(func() {
			if !s.plane.Shard(0).Receive(1, wire.Packet{Data: b}) {
				t.Errorf("from %s: not authentic", from)
			}
		})
		now := s.plane.Counters()
		if now.In+now.Selector != before.In+before.Selector+1 {
			t.Errorf("from %s: counted %+v", from, now)
		}
		return now.In > before.In
	}
	for range 2 { // what is remembered changes nothing
		for from, want := range map[string]bool{
			"8.8.8.8": true, "10.0.0.1": true, "10.7.1.1": true, "10.21.0.1": true,
			"10.7.0.1": false, "10.7.0.99": false, // a neighbour
			"192.0.2.254": false, "192.0.2.253": false, // next hops
			"203.0.113.9": false,                                       // another gateway
			"172.16.0.1":  false,                                       // bypass
			"10.20.0.1":   false,                                       // of the other tunnel
			"224.0.0.5":   false,                                       // of the link
			"239.1.2.3":   false, "127.0.0.1": false, "0.0.0.0": false, // nobody
			"10.99.0.7":    false, // ourselves
			"198.51.100.2": true,  // the gateway itself, of what it cannot pass on
		} {
			if got := comes(from); got != want {
				t.Errorf("from %s: %v", from, got)
			}
		}
	}
	// Nor by the address that the gateway had.
	moved := c.Path
	moved.Remote = netip.MustParseAddrPort("203.0.113.9:4500")
	comes("198.51.100.2")
	s.do(func() {
		if err := s.plane.Shard(0).MoveOutbound(c.InSPI, c.OutSPI, moved); err != nil {
			t.Error(err)
		}
	})
	if comes("198.51.100.2") || !comes("203.0.113.9") {
		t.Error("the gateway's other address is not followed")
	}
	// What is remembered holds by the plan that it was found by, and does not keep
	// that: one for many networks is large, and each silent tunnel may have another.
	old := weak.Make(s.device.net.plan.Load())
	if err := s.device.Follow(planOf(barrier.Tunnel{Remote: prefixes("0.0.0.0/0")}, barrier.Tunnel{Remote: prefixes("8.0.0.0/8")})); err != nil {
		t.Fatal(err)
	}
	if runtime.GC(); old.Value() != nil {
		t.Error("the plan before is still there")
	}
	if comes("8.8.8.8") || !comes("10.7.0.1") {
		t.Error("another plan is not followed")
	}
}

// TestSourceOfTheOther: of two tunnels for the same networks, whose gateways
// have given different addresses, the newer one carries what this host sends, by
// its address; when it ends, the other does, by its own.
func TestSourceOfTheOther(t *testing.T) {
	s := newSide(t, namespace(t, newLab(t), "laptop"))
	s.far = s
	var sent []netip.Addr
	s.plane.send = func(p wire.Packet) error { sent = append(sent, p.Remote.Addr()); return nil }
	tunnel := func(n uint32, vip, gateway string) *sa.ChildSA {
		c, _ := children(t, n, subnets(vip+"/32"), subnets("10.0.0.0/8"))
		c.VirtualIPs = []netip.Addr{netip.MustParseAddr(vip)}
		c.Path.Remote = netip.AddrPortFrom(netip.MustParseAddr(gateway), 4500)
		return c
	}
	first, second := tunnel(1, "10.99.0.7", "198.51.100.1"), tunnel(2, "10.98.0.7", "203.0.113.1")
	says := func(when, by string, from ...string) {
		t.Helper()
		if got := routes(t, s.ns); !slices.Equal(got, from) {
			t.Errorf("%s: routes %q, want %q", when, got, from)
		}
		before := s.plane.Counters()
		send(t, listen(t, s.ns, "0.0.0.0:0", 0), "10.1.1.1:7", "hello")
		s.wait(when+" a packet", func(c Counters) bool { return c.Out+c.NoTunnel > before.Out+before.NoTunnel })
		s.do(func() {
			if len(sent) != 1 || sent[0].String() != by {
				t.Errorf("%s: sent to %v, want %s", when, sent, by)
			}
			sent = nil
		})
	}
	s.install(first)
	says("with one", "198.51.100.1", "10.0.0.0/8 src 10.99.0.7")
	s.install(second)
	says("with both", "203.0.113.1", "10.0.0.0/8 src 10.98.0.7")
	s.remove(second)
	says("without the newer", "198.51.100.1", "10.0.0.0/8 src 10.99.0.7")
	s.install(second)
	s.remove(first)
	says("without the older", "203.0.113.1", "10.0.0.0/8 src 10.98.0.7")
	s.remove(second)
	if left := routes(t, s.ns); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// TestMissingNetwork: what a tunnel that is not up is for goes by no wider one
// that is, though somebody has taken away the route that ends it.
func TestMissingNetwork(t *testing.T) {
	s := newSideBy(t, namespace(t, newLab(t), "laptop"), laptop())
	wide, _ := children(t, 1, subnets("10.99.0.7/32"), subnets("0.0.0.0/0"))
	narrow, _ := children(t, 2, subnets("10.99.0.7/32"), subnets("10.20.0.0/16"))
	s.far = s
	s.install(wide)
	goes := func(to string) bool {
		before := s.plane.Counters()
		s.plane.forward(ip4("10.99.0.7", to), nil, s.deliver)
		s.wait("a packet", func(c Counters) bool { return c.Out+c.NoTunnel > before.Out+before.NoTunnel })
		return s.plane.Counters().Out > before.Out
	}
	for to, want := range map[string]bool{"10.21.0.1": true, "8.8.8.8": true, "10.20.0.1": false, "10.7.0.1": false, "203.0.113.9": false} {
		if got := goes(to); got != want {
			t.Errorf("to %s: %v", to, got)
		}
	}
	s.install(narrow)
	if !goes("10.20.0.1") {
		t.Error("it does not go by its own tunnel")
	}
}
