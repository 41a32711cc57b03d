package tun

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/ike/esp"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
	"github.com/ikepulse/ikepulse/test/lab"
)

// twoSides is a client with virtual addresses and a gateway with a network and
// a pool, each on an interface of its own, and the tunnel between them.
func twoSides(t *testing.T) (client, gateway *side, toGateway, toClient *sa.ChildSA) {
	t.Helper()
	l := newLab(t)
	client = newSide(t, namespace(t, l, "client"))
	gateway = newSide(t, namespace(t, l, "gateway"), "10.99.0.0/16", "2001:db8:99::/64")
	client.far, gateway.far = gateway, client
	for _, a := range []string{"10.0.0.1/32", "2001:db8::1/128"} {
		if err := gateway.ns.Address("lo", netip.MustParsePrefix(a)); err != nil {
			t.Fatal(err)
		}
	}
	toGateway, toClient = children(t, 1, subnets("10.99.0.7/32", "2001:db8:99::7/128"), subnets("10.0.0.0/8", "2001:db8::/64"))
	toGateway.VirtualIPs = []netip.Addr{netip.MustParseAddr("10.99.0.7"), netip.MustParseAddr("2001:db8:99::7")}
	return client, gateway, toGateway, toClient
}

// TestTraffic: sockets that know nothing of tunnels talk through one, in both
// families, with the right source addresses on both sides.
func TestTraffic(t *testing.T) {
	client, gateway, toGateway, toClient := twoSides(t)
	client.install(toGateway)
	gateway.install(toClient)
	client.clock.Store(111)
	gateway.clock.Store(222)
	for _, c := range []struct{ anyone, server, virtual string }{
		{"0.0.0.0:0", "10.0.0.1:7777", "10.99.0.7"},
		{"[::]:0", "[2001:db8::1]:7777", "2001:db8:99::7"},
	} {
		virtual := netip.MustParseAddr(c.virtual)
		asks, serves := listen(t, client.ns, c.anyone, 0), listen(t, gateway.ns, c.server, 0)
		send(t, asks, c.server, "ping")
		from := receive(t, serves, "ping")
		if from.Addr() != virtual {
			t.Errorf("the client came as %v, want %v", from, virtual)
		}
		send(t, serves, from.String(), "pong")
		receive(t, asks, "pong")

		// The gateway itself calls, and the kernel chooses where from.
		calls, waits := listen(t, gateway.ns, c.anyone, 0), listen(t, client.ns, netip.AddrPortFrom(virtual, 8888).String(), 0)
		send(t, calls, netip.AddrPortFrom(virtual, 8888).String(), "hello")
		if from := receive(t, waits, "hello"); from.Addr() != netip.MustParseAddrPort(c.server).Addr() {
			t.Errorf("the gateway came as %v", from)
		}
	}
	client.wait("traffic", func(c Counters) bool { return c.Out == 2 && c.In == 4 })
	gateway.wait("traffic", func(c Counters) bool { return c.In == 2 && c.Out == 4 })
	if c := client.plane.Counters(); c.OutBytes != (20+8+4)+(40+8+4) {
		t.Errorf("counted %+v", c)
	}
	client.do(func() {
		if sent := client.plane.Shard(0).LastSent(toGateway.InSPI); sent != 111 {
			t.Errorf("last sent %d, want 111", sent)
		}
		if client.stamps[toGateway.InSPI] != 111 || client.plane.Shard(0).LastSent(99) != 0 {
			t.Errorf("stamps %v", client.stamps)
		}
	})
	gateway.do(func() {
		if len(gateway.stamps) != 1 || gateway.stamps[toClient.InSPI] != 222 {
			t.Errorf("stamps %v, want one of %x", gateway.stamps, toClient.InSPI)
		}
	})

	client.remove(toGateway)
	gateway.remove(toClient)
	if got := client.addresses(); len(got) != 0 {
		t.Errorf("the client still has %v", got)
	}
	if got := routes(t, client.ns); len(got) != 0 {
		t.Errorf("the client still has routes %v", got)
	}
	before := gateway.plane.Counters().NoTunnel
	send(t, listen(t, gateway.ns, "0.0.0.0:0", 0), "10.99.0.7:1", "nobody there")
	gateway.wait("a packet without tunnel", func(c Counters) bool { return c.NoTunnel == before+1 })
}

// ip4 is a UDP packet; its UDP header is empty.
func ip4(src, dst string) []byte {
	b := make([]byte, 40)
	b[0], b[8], b[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], netip.MustParseAddr(src).AsSlice())
	copy(b[16:], netip.MustParseAddr(dst).AsSlice())
	return b
}

// TestReceive: each packet is counted for what it is, the device gets only
// what the tunnel was agreed for, and only what is authentic stamps.
func TestReceive(t *testing.T) {
	_, gateway, toGateway, toClient := twoSides(t)
	gateway.install(toClient)
	all := subnets("0.0.0.0/0")
	out := esp.NewOutbound(toGateway.OutSPI, toGateway.Suite, toGateway.OutEncr, toGateway.OutInteg, all, all, 1)
	seal := func(src, dst string) []byte {
		b, err := out.Seal(nil, ip4(src, dst))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := seal("10.99.0.7", "10.0.0.1")
	forged := seal("10.99.0.7", "10.0.0.1")
	forged[len(forged)-1] ^= 1
	stranger := slices.Clone(good)
	stranger[3] ^= 1
	var want Counters
	for i, c := range []struct {
		name      string
		packet    []byte
		authentic bool
		count     *uint64
	}{
		{"good", good, true, &want.In},
		{"replayed", good, false, &want.Replay},
		{"forged", forged, false, &want.ICV},
		{"another client's address", seal("10.99.0.8", "10.0.0.1"), true, &want.Selector},
		{"not our network", seal("10.99.0.7", "192.0.2.1"), true, &want.Selector},
		{"unknown SPI", stranger, false, &want.UnknownSPI},
		{"too short", good[:3], false, &want.UnknownSPI},
		{"an SPI alone", good[:4], false, &want.Malformed},
		{"good again", seal("10.99.0.7", "10.0.0.1"), true, &want.In},
	} {
		*c.count++
		want.InBytes = 40 * want.In
		gateway.do(func() {
			clear(gateway.stamps)
			got := gateway.plane.Shard(0).Receive(int64(i+1), wire.Packet{Data: c.packet})
			stamp, stamped := gateway.stamps[toClient.InSPI]
			if got != c.authentic || stamped != c.authentic || stamped && stamp != int64(i+1) {
				t.Errorf("%s: authentic %v, stamps %v", c.name, got, gateway.stamps)
			}
		})
		got := gateway.plane.Counters()
		got.NoTunnel = 0 // what the kernel says in answer
		if got != want {
			t.Fatalf("%s: counted %+v, want %+v", c.name, got, want)
		}
	}
}

// TestTransmitGoesOn: a packet finds the shard whose tunnel was agreed for its
// protocol, though the newest tunnel for the addresses is another shard's; and
// one that nobody takes comes to an end.
func TestTransmitGoesOn(t *testing.T) {
	l := newLab(t)
	s := newSide(t, namespace(t, l, "gateway"))
	s.far = newSide(t, namespace(t, l, "client"))
	local, remote := subnets("10.0.0.0/8"), subnets("10.99.0.7/32")
	any, _ := children(t, 1, local, remote)
	tcp, _ := children(t, 2, local, subnets("10.99.0.7/32"))
	tcp.Remote[0].Protocol = 6
	icmp, _ := children(t, 3, local, subnets("10.99.0.7/32"))
	icmp.Remote[0].Protocol = 1
	installAt(t, s, 1, any)
	installAt(t, s, 0, tcp)
	installAt(t, s, 2, icmp)
	inner := ip4("10.0.0.1", "10.99.0.7")
	s.plane.forward(inner, nil, s.deliver)
	s.wait("the packet", func(c Counters) bool { return c.Out == 1 })
	s.do(func() {
		if !slices.Equal(s.calls, []int{2, 0, 1}) {
			t.Errorf("went to shards %v", s.calls)
		}
		s.calls = nil
	})
	s.do(func() { // the others are not for UDP
		h := s.plane.Shard(1)
		if err := h.RemoveOutbound(any.InSPI, any.OutSPI); err != nil {
			t.Error(err)
		}
	})
	s.plane.forward(inner, nil, s.deliver)
	s.wait("the end of the other", func(c Counters) bool { return c.NoTunnel == 1 })
	s.do(func() {
		if !slices.Equal(s.calls, []int{2, 0}) {
			t.Errorf("went to shards %v", s.calls)
		}
	})
}

func installAt(t *testing.T, s *side, shard int, c *sa.ChildSA) {
	t.Helper()
	s.do(func() {
		h := s.plane.Shard(shard)
		if err := h.InstallInbound(c); err != nil {
			t.Error(err)
		}
		if err := h.InstallOutbound(c); err != nil {
			t.Error(err)
		}
	})
}

// TestRekey: the newer of two tunnels for the same addresses carries the
// packets, and taking the older away takes nothing from it.
func TestRekey(t *testing.T) {
	client, gateway, toGateway, toClient := twoSides(t)
	newToGateway, newToClient := children(t, 2, toGateway.Local, toGateway.Remote)
	newToGateway.VirtualIPs = toGateway.VirtualIPs
	client.install(toGateway)
	gateway.install(toClient)
	asks, serves := listen(t, client.ns, "0.0.0.0:0", 0), listen(t, gateway.ns, "10.0.0.1:7777", 0)
	ping := func(clientUses, gatewayUses *sa.ChildSA) {
		t.Helper()
		client.do(func() { clear(client.stamps) })
		gateway.do(func() { clear(gateway.stamps) })
		send(t, asks, "10.0.0.1:7777", "ping")
		send(t, serves, receive(t, serves, "ping").String(), "pong")
		receive(t, asks, "pong")
		gateway.do(func() {
			if len(gateway.stamps) != 1 || gateway.stamps[clientUses.OutSPI] == 0 {
				t.Errorf("the client used %x, want %x", gateway.stamps, clientUses.OutSPI)
			}
		})
		client.do(func() {
			if len(client.stamps) != 1 || client.stamps[gatewayUses.OutSPI] == 0 {
				t.Errorf("the gateway used %x, want %x", client.stamps, gatewayUses.OutSPI)
			}
		})
	}
	client.clock.Store(1)
	gateway.clock.Store(1)
	ping(toGateway, toClient)
	client.install(newToGateway)
	gateway.mustDo(func(h *Shard) error { return h.InstallInbound(newToClient) })
	ping(newToGateway, toClient)
	gateway.mustDo(func(h *Shard) error { return h.InstallOutbound(newToClient) })
	ping(newToGateway, newToClient)
	client.remove(toGateway)
	gateway.remove(toClient)
	ping(newToGateway, newToClient)
	client.remove(newToGateway)
	if got := client.addresses(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestMoveOutbound(t *testing.T) {
	_, gateway, _, toClient := twoSides(t)
	gateway.install(toClient)
	to := sa.Path{Local: toClient.Path.Local, Remote: netip.MustParseAddrPort("203.0.113.9:61201")}
	gateway.mustDo(func(h *Shard) error { return h.MoveOutbound(toClient.InSPI, toClient.OutSPI, to) })
	var seen wire.Packet
	gateway.do(func() {
		gateway.plane.send = func(p wire.Packet) error { seen = p; return nil }
		gateway.plane.Shard(0).Transmit(1, ip4("10.0.0.1", "10.99.0.7"))
	})
	if seen.Local != to.Local || seen.Remote != to.Remote || !seen.NATT {
		t.Errorf("sent %v to %v, want %v", seen.Local, seen.Remote, to)
	}
}

// TestOrder: what is not there cannot be moved or removed, nor be there twice.
func TestOrder(t *testing.T) {
	_, gateway, _, toClient := twoSides(t)
	in, out := toClient.InSPI, toClient.OutSPI
	steps := []struct {
		name string
		ok   bool
		do   func(*Shard) error
	}{
		{"outbound before inbound", false, func(h *Shard) error { return h.InstallOutbound(toClient) }},
		{"remove inbound", false, func(h *Shard) error { return h.RemoveInbound(in, out) }},
		{"inbound", true, func(h *Shard) error { return h.InstallInbound(toClient) }},
		{"inbound twice", false, func(h *Shard) error { return h.InstallInbound(toClient) }},
		{"move what does not send", false, func(h *Shard) error { return h.MoveOutbound(in, out, sa.Path{}) }},
		{"remove what does not send", false, func(h *Shard) error { return h.RemoveOutbound(in, out) }},
		{"outbound", true, func(h *Shard) error { return h.InstallOutbound(toClient) }},
		{"outbound twice", false, func(h *Shard) error { return h.InstallOutbound(toClient) }},
		{"remove another's", false, func(h *Shard) error { return h.RemoveOutbound(in, out+1) }},
		{"remove another's", false, func(h *Shard) error { return h.RemoveInbound(in, out+1) }},
		{"remove inbound with outbound", true, func(h *Shard) error { return h.RemoveInbound(in, out) }},
		{"again", true, func(h *Shard) error { return h.InstallInbound(toClient) }},
		{"again", true, func(h *Shard) error { return h.InstallOutbound(toClient) }},
	}
	for _, s := range steps {
		gateway.do(func() {
			if err := s.do(gateway.plane.Shard(0)); (err == nil) != s.ok {
				t.Errorf("%s: %v", s.name, err)
			}
		})
	}
}

// TestServeEnds: with ctx, without an error, also while the interface is gone.
// When that is made anew, packets go on.
func TestServeEnds(t *testing.T) {
	l := newLab(t)
	ns := namespace(t, l, "gateway")
	var d *Device
	within(t, ns, func() (err error) {
		d, err = Open(Config{Name: "ikepulse-test", Table: testTable, Mark: testMark, Routes: []Route{{To: netip.MustParsePrefix("10.99.0.0/24")}}})
		return err
	})
	p := New(d, nil, nil)
	deliver := func(int, []byte) {}
	for range 2 {
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := p.Serve(ctx, deliver); err != nil {
			t.Errorf("after ctx: %v", err)
		}
		stop()
	}
	remove := func() error {
		link, err := netlink.LinkByName("ikepulse-test")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	result := make(chan error, 1)
	go func() { result <- p.Serve(ctx, deliver) }() // stops with ctx
	within(t, ns, remove)
	if what, err := missingIn(ns, d); err != nil || what != "interface ikepulse-test" {
		t.Errorf("missing %q, %v", what, err)
	}
	within(t, ns, d.Restore)
	if what, err := missingIn(ns, d); err != nil || what != "" {
		t.Errorf("missing %q, %v", what, err)
	}
	c := listen(t, ns, "0.0.0.0:0", 0)
	for deadline := time.Now().Add(limit); p.Counters().NoTunnel == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		send(t, c, "10.99.0.7:7", "is anybody there")
	}
	if p.Counters().NoTunnel == 0 {
		t.Error("no packet comes by the interface that was made anew")
	}
	within(t, ns, remove)
	stop()
	select {
	case err := <-result:
		if err != nil {
			t.Errorf("after ctx: %v", err)
		}
	case <-time.After(limit):
		t.Fatal("Serve goes on after ctx")
	}
	if err := d.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func missingIn(ns *lab.Namespace, d *Device) (what string, err error) {
	err = ns.Do(func() error {
		what, err = d.Missing()
		return err
	})
	return what, err
}
