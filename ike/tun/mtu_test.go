package tun

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/esp"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
	"github.com/ikepulse/ikepulse/test/lab"
)

// mtus are the MTUs of our table's routes; 0: the interface's.
func mtus(t *testing.T, ns *lab.Namespace) map[string]int {
	t.Helper()
	out := map[string]int{}
	within(t, ns, func() error {
		for _, family := range families {
			list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: testTable}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range list {
				out[r.Dst.String()] = r.MTU
			}
		}
		return nil
	})
	return out
}

func TestRouteMTU(t *testing.T) {
	s := newSide(t, namespace(t, newLab(t), "gateway"))
	local := subnets("10.0.0.0/8", "2001:db8::/64")
	remote := subnets("10.20.0.0/16", "2001:db8:20::/64")
	auto, _ := children(t, 1, local, remote)
	small, _ := children(t, 2, local, remote)
	small.MTU = 1180
	check := func(when string, v4, v6 int) {
		t.Helper()
		if got := mtus(t, s.ns); got["10.20.0.0/16"] != v4 || got["2001:db8:20::/64"] != v6 {
			t.Errorf("%s: %v, want %d and %d", when, got, v4, v6)
		}
	}
	s.install(auto)
	check("auto", 0, 0)
	s.install(small)
	check("a smaller one for the same networks", 1180, minIPv6MTU)
	s.remove(auto)
	check("the smaller one alone", 1180, minIPv6MTU)
	s.remove(small)
	if got := mtus(t, s.ns); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// TestTooLarge: the kernel refuses what is larger than the tunnel's MTU and is
// not to be fragmented, and fragments the rest before it is sealed.
func TestTooLarge(t *testing.T) {
	client, gateway, toGateway, toClient := twoSides(t)
	toGateway.MTU = 1180
	client.install(toGateway)
	gateway.install(toClient)
	for _, c := range []struct {
		name, anyone, server string
		level, option, do    int
		mtu, overhead        int
	}{
		{"IPv4", "0.0.0.0:0", "10.0.0.1:7777", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, 1180, 28},
		{"IPv6", "[::]:0", "[2001:db8::1]:7777", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, 1280, 48},
	} {
		t.Run(c.name, func(t *testing.T) {
			asks, serves := listen(t, client.ns, c.anyone, 0), listen(t, gateway.ns, c.server, 0)
			fits, large := string(make([]byte, c.mtu-c.overhead)), string(make([]byte, c.mtu-c.overhead+1))
			before := client.plane.Counters().Out
			send(t, asks, c.server, large)
			receive(t, serves, large)
			if n := client.plane.Counters().Out - before; n != 2 {
				t.Errorf("went in %d packets, want 2 fragments", n)
			}
			setOption(t, asks, c.level, c.option, c.do)
			send(t, asks, c.server, fits)
			receive(t, serves, fits)
			_, err := asks.WriteToUDPAddrPort([]byte(large), netip.MustParseAddrPort(c.server))
			if !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("%d bytes: %v, want %v", c.mtu+1, err, unix.EMSGSIZE)
			}
		})
	}
}

func setOption(t *testing.T, c *net.UDPConn, level, option, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
}

// TestForwardedTooLarge: a host behind us is told of the tunnel's MTU, though
// the interface has a larger one.
func TestForwardedTooLarge(t *testing.T) {
	l := newLab(t)
	s, host := newSide(t, namespace(t, l, "gateway")), namespace(t, l, "host")
	s.far = newSide(t, namespace(t, l, "far"))
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	if err := lab.Connect(lab.End{Namespace: s.ns, Name: "g1", Addresses: []netip.Prefix{p("10.0.0.1/24"), p("2001:db8::1/64")}},
		lab.End{Namespace: host, Name: "h0", Addresses: []netip.Prefix{p("10.0.0.2/24"), p("2001:db8::2/64")}}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		s.ns.Sysctl("net/ipv4/ip_forward", "1"), s.ns.Sysctl("net/ipv6/conf/all/forwarding", "1"),
		host.Route(p("10.20.0.0/16"), a("10.0.0.1")), host.Route(p("2001:db8:20::/64"), a("2001:db8::1")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	awaitOwn(t, s.ns, "2001:db8::1")
	awaitOwn(t, host, "2001:db8::2")
	c, _ := children(t, 1, subnets("10.0.0.0/8", "2001:db8::/64"), subnets("10.20.0.0/16", "2001:db8:20::/64"))
	c.MTU = 1300
	s.install(c)
	for _, c := range []struct {
		local, to         string
		level, option, do int
		overhead          int
	}{
		{"10.0.0.2:0", "10.20.0.1:7", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, 28},
		{"[2001:db8::2]:0", "[2001:db8:20::1]:7", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, 48},
	} {
		socket := listen(t, host, c.local, 0)
		setOption(t, socket, c.level, c.option, c.do)
		send := func(size int) error {
			_, err := socket.WriteToUDPAddrPort(make([]byte, size-c.overhead), netip.MustParseAddrPort(c.to))
			return err
		}
		var err error
		for deadline := time.Now().Add(limit); err == nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			err = send(1301)
		}
		if !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("to %s: %v, want %v", c.to, err, unix.EMSGSIZE)
		}
		if err := send(1300); err != nil {
			t.Errorf("what fits, to %s: %v", c.to, err)
		}
	}
}

// TestClampedBothWays: the MSS of a SYN is lowered on the way out and on the
// way in, and what one tunnel's MTU makes of a packet is not another's.
func TestClampedBothWays(t *testing.T) {
	_, gateway, toGateway, toClient := twoSides(t)
	toClient.MTU = 1180
	gateway.install(toClient)
	mssOf := func(b []byte) uint16 {
		o, ok := findMSS(b)
		if !ok {
			t.Fatalf("no SYN: %x", b)
		}
		return binary.BigEndian.Uint16(b[o.value:])
	}
	var sealed []byte
	gateway.do(func() {
		gateway.plane.send = func(p wire.Packet) error { sealed = slices.Clone(p.Data); return nil }
	})
	syn := tcp4(nil, segment(flagSYN, linuxOptions, nil))
	copy(syn[12:], netip.MustParseAddr("10.0.0.1").AsSlice())
	copy(syn[16:], netip.MustParseAddr("10.99.0.7").AsSlice())
	gateway.do(func() { gateway.plane.Shard(0).Transmit(1, syn) })
	all := subnets("0.0.0.0/0")
	opened, _, err := esp.NewInbound(toGateway.InSPI, toGateway.Suite, toGateway.InEncr, toGateway.InInteg, all, all, window).Open(nil, sealed, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := mssOf(opened); got != 1140 {
		t.Errorf("out: MSS %d", got)
	}
	if got := mssOf(syn); got != 1460 {
		t.Errorf("the packet itself now has %d", got)
	}

	// On the way in: what the device gets is still in the shard's buffer.
	syn = tcp4(nil, segment(flagSYN, linuxOptions, nil))
	out := esp.NewOutbound(toGateway.OutSPI, toGateway.Suite, toGateway.OutEncr, toGateway.OutInteg, all, all, 1)
	if sealed, err = out.Seal(nil, syn); err != nil {
		t.Fatal(err)
	}
	gateway.do(func() {
		h := gateway.plane.Shard(0)
		if !h.Receive(1, wire.Packet{Data: sealed}) {
			t.Error("not authentic")
		}
		opened = slices.Clone(h.buffer)
	})
	if got := mssOf(opened); got != 1140 {
		t.Errorf("in: MSS %d", got)
	}
}
