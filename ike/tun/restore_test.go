package tun

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/barrier"
)

// TestRestoreWithoutInterface: what ends packets is put back, though somebody
// else has taken the interface's name, so that it cannot be made anew.
func TestRestoreWithoutInterface(t *testing.T) {
	ns := namespace(t, newLab(t), "laptop")
	d, err := openIn(ns, Config{Table: testTable, Mark: testMark, Plan: planOf(barrier.Tunnel{Remote: prefixes("10.20.0.0/16", "2001:db8::/32")})})
	if err != nil {
		t.Fatal(err)
	}
	ended := routes(t, ns)
	if len(ended) != 2 {
		t.Fatalf("routes %q", ended)
	}
	led := rules(t, ns)
	foreign := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: d.Name()}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE}
	within(t, ns, func() error {
		ours, err := netlink.LinkByName(d.Name())
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkDel(ours), netlink.LinkAdd(foreign)); err != nil {
			return err
		}
		for _, family := range families {
			list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: testTable}, netlink.RT_FILTER_TABLE)
			for _, r := range list {
				err = errors.Join(err, netlink.RouteDel(&r))
			}
			gone := netlink.NewRule()
			gone.Family, gone.Priority, gone.Table = family, priority, testTable
			if err := errors.Join(err, netlink.RuleDel(gone)); err != nil {
				return err
			}
		}
		return nil
	})
	if left := append(routes(t, ns), rules(t, ns)...); len(left) != 0 {
		t.Fatalf("left: %q", left)
	}
	within(t, ns, func() error {
		if err := d.Restore(); !errors.Is(err, unix.EBUSY) {
			t.Errorf("restored beside somebody's interface: %v", err)
		}
		return nil
	})
	if got := routes(t, ns); !slices.Equal(got, ended) {
		t.Errorf("routes %q, want %q", got, ended)
	}
	if got := rules(t, ns); !slices.Equal(got, led) {
		t.Errorf("rules %q, want %q", got, led)
	}
	within(t, ns, func() error { return netlink.LinkDel(foreign) })
	within(t, ns, d.Restore)
	if what, err := missingIn(ns, d); what != "" || err != nil {
		t.Errorf("missing %q, %v", what, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, ns)
}

// TestRestoreSource: the address that this host sends from into a tunnel may be gone
// when the route is to be put back, which the kernel refuses then. It comes back
// with another, or with none, since others send by it, too.
func TestRestoreSource(t *testing.T) {
	s := newSide(t, namespace(t, newLab(t), "gateway"), "10.99.0.0/24")
	s.far = s
	var lo netlink.Link
	change := func(do func(netlink.Link, *netlink.Addr) error, a string) {
		t.Helper()
		within(t, s.ns, func() error { return do(lo, address(netip.MustParseAddr(a))) })
	}
	within(t, s.ns, func() (err error) {
		lo, err = netlink.LinkByName("lo")
		return errors.Join(err, netlink.LinkSetUp(lo))
	})
	change(netlink.AddrAdd, "10.30.0.1")
	for n, to := range []string{"10.20.0.0/16", "10.21.0.0/16", "10.22.0.0/16", "10.99.0.7/32"} {
		c, _ := children(t, uint32(n+1), subnets("10.30.0.0/16"), subnets(to))
		s.install(c)
	}
	for _, host := range []struct{ has, goes, src string }{{"10.30.0.2", "10.30.0.1", " src 10.30.0.2"}, {"10.40.0.1", "10.30.0.2", ""}} {
		change(netlink.AddrAdd, host.has)
		change(netlink.AddrDel, host.goes)
		within(t, s.ns, func() error { return netlink.LinkSetDown(s.device.net.link) })
		if left := routes(t, s.ns); len(left) != 0 {
			t.Fatalf("the kernel leaves %q", left)
		}
		within(t, s.ns, s.device.Restore)
		want := []string{"10.20.0.0/16" + host.src, "10.21.0.0/16" + host.src, "10.22.0.0/16" + host.src, "10.99.0.0/24" + host.src}
		if got := routes(t, s.ns); !slices.Equal(got, want) {
			t.Errorf("without %s: routes %q, want %q", host.goes, got, want)
		}
	}
}
