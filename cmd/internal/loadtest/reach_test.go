package loadtest

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
