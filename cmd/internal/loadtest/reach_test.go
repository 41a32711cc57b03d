package loadtest

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

func TestBeyond(t *testing.T) {
	net24 := &net.IPNet{IP: net.IPv4(198, 51, 100, 0), Mask: net.CIDRMask(24, 32)}
	all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	hop := net.IPv4(10, 7, 0, 1)
	for name, c := range map[string]struct {
		route netlink.Route
		want  string
	}{
		"local":             {netlink.Route{Type: unix.RTN_LOCAL, Dst: net24}, ""},
		"on a link":         {netlink.Route{Type: unix.RTN_UNICAST, Dst: net24}, ""},
		"routed":            {netlink.Route{Type: unix.RTN_UNICAST, Dst: net24, Gw: hop}, "the gateway 10.7.0.1"},
		"by default":        {netlink.Route{Type: unix.RTN_UNICAST, Dst: all, Gw: hop}, "the gateway 10.7.0.1"},
		"a line to anybody": {netlink.Route{Type: unix.RTN_UNICAST, Dst: all}, "a default route"},
		"the same, unsaid":  {netlink.Route{Type: unix.RTN_UNICAST}, "a default route"},
		"IPv4 by IPv6": {netlink.Route{Type: unix.RTN_UNICAST, Dst: net24,
			Via: &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP("2001:db8::1")}}, "the gateway 2001:db8::1"},
		"one of two hops": {netlink.Route{Type: unix.RTN_UNICAST, Dst: net24,
			MultiPath: []*netlink.NexthopInfo{{LinkIndex: 2}, {LinkIndex: 3, Gw: hop}}}, "the gateway 10.7.0.1"},
		"two links": {netlink.Route{Type: unix.RTN_UNICAST, Dst: net24,
			MultiPath: []*netlink.NexthopInfo{{LinkIndex: 2}, {LinkIndex: 3}}}, ""},
		"broadcast": {netlink.Route{Type: unix.RTN_BROADCAST, Dst: net24}, "a route for more than one host"},
	} {
		if got := beyond(c.route); got != c.want {
			t.Errorf("%s: beyond by %q, want %q", name, got, c.want)
		}
	}
}

// TestReachOf: the way of packets counts that come from the peers' addresses,
// and each of these must be the host's own.
func TestReachOf(t *testing.T) {
	require.Have(t, "root", "netns")
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	host, err := l.Namespace("host")
	if err != nil {
		t.Fatal(err)
	}
	address, prefix := netip.MustParseAddr, netip.MustParsePrefix
	other := netlink.NewRule()
	other.Table, other.Src = 100, &net.IPNet{IP: net.IPv4(10, 8, 0, 0).To4(), Mask: net.CIDRMask(16, 32)}
	err = errors.Join(host.Address("lo", prefix("198.51.100.2/32")), host.Own(prefix("10.8.0.0/16")), host.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
		link := &net.IPNet{IP: net.IPv4(198, 51, 100, 0).To4(), Mask: net.CIDRMask(24, 32)}
		return errors.Join(netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: link, Scope: netlink.SCOPE_LINK, Src: net.IPv4(198, 51, 100, 2)}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Scope: netlink.SCOPE_LINK, Table: other.Table}), netlink.RuleAdd(other))
	}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to   string
		from netip.Addr
		want Reach
	}{
		{"198.51.100.1", netip.Addr{}, Reach{address("198.51.100.2"), ""}},
		{"198.51.100.1", address("10.8.0.1"), Reach{netip.Addr{}, "a default route"}},
		{"198.51.100.2", netip.Addr{}, Reach{address("198.51.100.2"), ""}},
	} {
		var got Reach
		if err := host.Do(func() (err error) { got, err = ReachOf(address(c.to), c.from); return err }); err != nil || got != c.want {
			t.Errorf("to %s from %v: %+v, %v; want %+v", c.to, c.from, got, err, c.want)
		}
	}
	if err := host.Do(func() error { _, err := ReachOf(address("203.0.113.1"), netip.Addr{}); return err }); err == nil {
		t.Error("a way without a route")
	}
	own, foreign := address("10.8.0.1"), address("198.51.100.7")
	for _, c := range []struct {
		addresses []netip.Addr
		want      netip.Addr
	}{{[]netip.Addr{own, address("198.51.100.2")}, netip.Addr{}}, {[]netip.Addr{own, foreign}, foreign}, {[]netip.Addr{address("203.0.113.1")}, address("203.0.113.1")}} {
		var got netip.Addr
		if err := host.Do(func() (err error) { got, err = Foreign(c.addresses); return err }); err != nil || got != c.want {
			t.Errorf("%v: %v is foreign, %v; want %v", c.addresses, got, err, c.want)
		}
	}
}
