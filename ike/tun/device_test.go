package tun

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/test/lab"
)

// rules are those of the namespace that lead to our table.
func rules(t *testing.T, ns *lab.Namespace) (out []string) {
	t.Helper()
	within(t, ns, func() error {
		for _, family := range families {
			list, err := netlink.RuleList(family)
			if err != nil {
				return err
			}
			for _, r := range list {
				if r.Table == testTable {
					out = append(out, fmt.Sprintf("%d: not %v mark %#x", r.Priority, r.Invert, r.Mark))
				}
			}
		}
		return nil
	})
	return out
}

func interfaces(t *testing.T, ns *lab.Namespace) (out []string) {
	t.Helper()
	within(t, ns, func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Attrs().Name != "lo" {
				out = append(out, l.Attrs().Name)
			}
		}
		return err
	})
	return out
}

func openIn(ns *lab.Namespace, c Config) (d *Device, err error) {
	err = ns.Do(func() error {
		d, err = Open(c)
		return err
	})
	return d, err
}

func TestDevice(t *testing.T) {
	ns := namespace(t, newLab(t), "gateway")
	d, err := openIn(ns, Config{Table: testTable, Mark: testMark,
		Routes: []Route{{To: netip.MustParsePrefix("10.99.0.1/16")}, {To: netip.MustParsePrefix("2001:db8:99::/64")}}})
	if err != nil {
		t.Fatal(err)
	}
	if d.Name() != "ikepulse0" {
		t.Errorf("the interface is called %s", d.Name())
	}
	within(t, ns, func() error {
		link, err := netlink.LinkByName(d.Name())
		if err != nil {
			return err
		}
		if a := link.Attrs(); a.MTU != 1400 || a.Flags&net.FlagUp == 0 {
			t.Errorf("MTU %d, flags %v", a.MTU, a.Flags)
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if len(addrs) != 0 {
			t.Errorf("it has made up %v", addrs)
		}
		return err
	})
	want := fmt.Sprintf("%d: not true mark %#x", priority, testMark)
	if got := rules(t, ns); !slices.Equal(got, []string{want, want}) {
		t.Errorf("rules %q, want %q for each family", got, want)
	}
	if got := routes(t, ns); !slices.Equal(got, []string{"10.99.0.0/16", "2001:db8:99::/64"}) {
		t.Errorf("routes %q", got)
	}
	if _, err := openIn(ns, Config{Name: d.Name(), Table: testTable + 1, Mark: testMark}); err == nil {
		t.Error("the interface could be taken a second time")
	}
	if _, err := openIn(ns, Config{Table: testTable, Mark: testMark}); err == nil {
		t.Error("the table could be taken a second time")
	}
	if err := d.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	nothingLeft(t, ns)
	for _, c := range []Config{{Mark: testMark}, {Table: testTable}, {Table: unix.RT_TABLE_MAIN, Mark: 1}} {
		if d, err := openIn(ns, c); err == nil {
			t.Errorf("%+v was taken", c)
			_ = d.Close()
		}
	}
}

// TestForeignInterface: a persistent interface of that name, though nobody has
// it open, is somebody's and stays.
func TestForeignInterface(t *testing.T) {
	ns := namespace(t, newLab(t), "gateway")
	within(t, ns, func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "vpn0"}, Mode: netlink.TUNTAP_MODE_TUN,
			Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE})
	})
	if d, err := openIn(ns, Config{Name: "vpn0", Table: testTable, Mark: testMark}); err == nil {
		t.Error("somebody's interface was taken")
		_ = d.Close()
	}
	if got := interfaces(t, ns); !slices.Equal(got, []string{"vpn0"}) {
		t.Errorf("interfaces %q", got)
	}
}

func nothingLeft(t *testing.T, ns *lab.Namespace) {
	t.Helper()
	if r, e, i := rules(t, ns), routes(t, ns), interfaces(t, ns); len(r)+len(e)+len(i) != 0 {
		t.Errorf("left: rules %q, routes %q, interfaces %q", r, e, i)
	}
}

// TestCloseWithTunnels: also what tunnels have brought goes, be they there.
func TestCloseWithTunnels(t *testing.T) {
	ns := namespace(t, newLab(t), "branch")
	d, err := openIn(ns, Config{Table: testTable, Mark: testMark})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := children(t, 1, subnets("10.20.0.0/16", "2001:db8:20::/48"), subnets("10.0.0.0/8", "2001:db8::/32"))
	h := New(d, nil, nil).Shard(0)
	if err := h.InstallInbound(c); err != nil {
		t.Fatal(err)
	}
	if err := h.InstallOutbound(c); err != nil {
		t.Fatal(err)
	}
	want := []string{"10.0.0.0/8", "2001:db8::/32"}
	if got := routes(t, ns); !slices.Equal(got, want) {
		t.Errorf("routes %q, want %q", got, want)
	}
	if err := d.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	nothingLeft(t, ns)
}

// TestLeftovers: what a killed process has left is cleared away; what is
// somebody else's is refused.
func TestLeftovers(t *testing.T) {
	ns := namespace(t, newLab(t), "gateway")
	throw := netip.MustParsePrefix("10.20.0.0/16")
	leave := func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		n := network{handle: h, table: testTable, mark: testMark + 1}
		n.plan.Store(new(barrier.Plan))
		if err := n.fixRules(); err != nil {
			return err
		}
		return h.RouteAdd(n.route(entry{throw, unix.RTN_THROW}, with{}))
	}
	within(t, ns, leave)
	within(t, ns, func() error { return Forget(testTable) })
	if err := Forget(unix.RT_TABLE_MAIN); err == nil {
		t.Error("a table of the host's was taken for ours")
	}
	nothingLeft(t, ns)
	within(t, ns, leave)
	d, err := openIn(ns, Config{Table: testTable, Mark: testMark})
	if err != nil {
		t.Fatal(err)
	}
	if got := routes(t, ns); len(got) != 0 {
		t.Errorf("routes %q", got)
	}
	want := fmt.Sprintf("%d: not true mark %#x", priority, testMark)
	if got := rules(t, ns); !slices.Equal(got, []string{want, want}) {
		t.Errorf("rules %q", got)
	}
	if err := d.Close(); err != nil {
		t.Errorf("close: %v", err)
	}

	within(t, ns, func() error { return foreign(netlink.RouteAdd, "10.5.0.0/16") })
	if d, err := openIn(ns, Config{Table: testTable, Mark: testMark}); err == nil {
		t.Error("a table that somebody uses was taken")
		_ = d.Close()
	}
	if got := routes(t, ns); !slices.Equal(got, []string{"10.5.0.0/16"}) {
		t.Errorf("somebody's routes are now %q", got)
	}
	if got := interfaces(t, ns); len(got) != 0 {
		t.Errorf("left interfaces %q", got)
	}
}

// foreign does something with a route of somebody else's in our table.
func foreign(do func(*netlink.Route) error, to string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return do(&netlink.Route{Dst: ipNet(netip.MustParsePrefix(to)), Table: testTable,
		LinkIndex: lo.Attrs().Index, Scope: unix.RT_SCOPE_LINK})
}

// TestOurPacketsStayOutside: with a tunnel to everywhere, what bears the mark
// goes to the network, and what does not into the tunnel.
func TestOurPacketsStayOutside(t *testing.T) {
	l := newLab(t)
	s := newSide(t, namespace(t, l, "client"))
	far := namespace(t, l, "far")
	p := netip.MustParsePrefix
	if err := lab.Connect(lab.End{Namespace: s.ns, Name: "c0", Addresses: []netip.Prefix{p("10.7.0.2/24")}},
		lab.End{Namespace: far, Name: "f0", Addresses: []netip.Prefix{p("10.7.0.1/24"), p("198.51.100.1/24")}}); err != nil {
		t.Fatal(err)
	}
	if err := s.ns.Route(p("0.0.0.0/0"), netip.MustParseAddr("10.7.0.1")); err != nil {
		t.Fatal(err)
	}
	c, _ := children(t, 1, subnets("10.99.0.7/32"), subnets("0.0.0.0/0"))
	c.VirtualIPs = []netip.Addr{netip.MustParseAddr("10.99.0.7")}
	s.far = s // nobody listens there
	s.install(c)
	gateway := listen(t, far, "198.51.100.1:4500", 0)
	ours := listen(t, s.ns, "10.7.0.2:4500", testMark)
	others := listen(t, s.ns, "0.0.0.0:0", 0)
	for range 3 {
		send(t, others, "198.51.100.1:4500", "secret")
		send(t, ours, "198.51.100.1:4500", "ESP")
		receive(t, gateway, "ESP")
	}
	s.wait("what is not ours", func(c Counters) bool { return c.Out == 3 })
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// planOf is the plan for a host on no network.
func planOf(tunnels ...barrier.Tunnel) *barrier.Plan {
	c := barrier.Config{Tunnels: tunnels}
	return c.Plan(barrier.Host{})
}

// TestOwnNetworkStaysOutside: a branch whose network is part of the wider one
// behind the tunnel still reaches its own hosts.
func TestOwnNetworkStaysOutside(t *testing.T) {
	l := newLab(t)
	s := newSideBy(t, namespace(t, l, "branch"), planOf(barrier.Tunnel{Local: prefixes("10.20.0.0/16"), Remote: prefixes("10.0.0.0/8")}))
	host := namespace(t, l, "host")
	p := netip.MustParsePrefix
	if err := lab.Connect(lab.End{Namespace: s.ns, Name: "b0", Addresses: []netip.Prefix{p("10.20.0.1/24")}},
		lab.End{Namespace: host, Name: "h0", Addresses: []netip.Prefix{p("10.20.0.2/24")}}); err != nil {
		t.Fatal(err)
	}
	c, _ := children(t, 1, subnets("10.20.0.0/16"), subnets("10.0.0.0/8"))
	s.far = s
	s.install(c)
	near, beyond := listen(t, host, "10.20.0.2:7", 0), listen(t, s.ns, "0.0.0.0:0", 0)
	send(t, beyond, "10.20.0.2:7", "neighbour")
	receive(t, near, "neighbour")
	send(t, beyond, "10.30.0.1:7", "headquarters")
	s.wait("a packet to the other side", func(c Counters) bool { return c.Out == 1 })
}

// TestFailureChangesNothing: an install that fails half-way leaves neither
// routes nor addresses, and succeeds once the obstacle is gone.
func TestFailureChangesNothing(t *testing.T) {
	s := newSide(t, namespace(t, newLab(t), "client"))
	c, _ := children(t, 1, subnets("10.99.0.7/32", "10.99.1.7/32"), subnets("10.1.0.0/16", "10.2.0.0/16"))
	c.VirtualIPs = []netip.Addr{netip.MustParseAddr("10.99.0.7"), netip.MustParseAddr("10.99.1.7")}
	taken := netip.MustParsePrefix("10.99.1.7/32")
	attempt := func(f func(*Shard, *sa.ChildSA) error) (err error) {
		s.do(func() { err = f(s.plane.Shard(0), c) })
		return err
	}

	if err := s.ns.Address(s.device.Name(), taken); err != nil {
		t.Fatal(err)
	}
	if err := attempt((*Shard).InstallInbound); err == nil {
		t.Error("an address that is there already was added")
	}
	if got := s.addresses(); !slices.Equal(got, []string{"10.99.1.7/32"}) {
		t.Errorf("addresses %q", got)
	}
	within(t, s.ns, func() error { return netlink.AddrDel(s.device.net.link, address(taken.Addr())) })
	if err := attempt((*Shard).InstallInbound); err != nil {
		t.Errorf("inbound: %v", err)
	}

	within(t, s.ns, func() error { return foreign(netlink.RouteAdd, "10.2.0.0/16") })
	if err := attempt((*Shard).InstallOutbound); err == nil {
		t.Error("a route that is there already was added")
	}
	if got := routes(t, s.ns); !slices.Equal(got, []string{"10.2.0.0/16"}) {
		t.Errorf("routes %q", got)
	}
	s.do(func() {
		if len(s.plane.table.byPrefix) != 0 {
			t.Error("packets would go to a tunnel that is not installed")
		}
	})
	within(t, s.ns, func() error { return foreign(netlink.RouteDel, "10.2.0.0/16") })
	if err := attempt((*Shard).InstallOutbound); err != nil {
		t.Errorf("outbound: %v", err)
	}
	if got := routes(t, s.ns); !slices.Equal(got, []string{"10.1.0.0/16 src 10.99.0.7", "10.2.0.0/16 src 10.99.0.7"}) {
		t.Errorf("routes %q", got)
	}
}

// TestSharedRoutes: tunnels of several shards to one network need its route
// until the last of them is gone.
func TestSharedRoutes(t *testing.T) {
	s := newSide(t, namespace(t, newLab(t), "gateway"), "10.99.0.0/16")
	a, _ := children(t, 1, subnets("10.0.0.0/8"), subnets("10.20.0.0/16", "10.99.0.7/32"))
	b, _ := children(t, 2, subnets("10.0.0.0/8"), subnets("10.20.0.0/16"))
	installAt(t, s, 0, a)
	installAt(t, s, 1, b)
	want := []string{"10.20.0.0/16", "10.99.0.0/16"}
	if got := routes(t, s.ns); !slices.Equal(got, want) {
		t.Errorf("routes %q, want %q", got, want)
	}
	s.remove(a)
	if got := routes(t, s.ns); !slices.Equal(got, want) {
		t.Errorf("routes %q, want %q", got, want)
	}
	s.do(func() {
		if err := s.plane.Shard(1).RemoveInbound(b.InSPI, b.OutSPI); err != nil {
			t.Error(err)
		}
	})
	if got := routes(t, s.ns); !slices.Equal(got, want[1:]) {
		t.Errorf("routes %q, want %q", got, want[1:])
	}
	if n := len(s.device.net.routes); n != 0 {
		t.Errorf("%d routes are still counted", n)
	}
}
