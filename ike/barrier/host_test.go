package barrier

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// TestNextHopsByTunnels: a router that is reached by a tunnel, as one of BGP
// over it is, is no next hop on the way to the gateways; kept out of the tunnel
// it could not be reached any more.
func TestNextHopsByTunnels(t *testing.T) {
	require.Have(t, "root", "netns")
	l := lab.New()
	defer l.Close()
	ns, err := l.Namespace("gateway")
	if err != nil {
		t.Fatal(err)
	}
	var host Host
	err = ns.Do(func() error {
		index := map[string]int{}
		for _, name := range []string{"ikepulse", "other"} {
			link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TUN}
			if err := netlink.LinkAdd(link); err != nil {
				return err
			}
			if err := netlink.LinkSetUp(link); err != nil {
				return err
			}
			index[name] = link.Attrs().Index
		}
		hop := func(by, router string) *netlink.NexthopInfo {
			return &netlink.NexthopInfo{LinkIndex: index[by], Gw: net.ParseIP(router), Flags: int(netlink.FLAG_ONLINK)}
		}
		for _, r := range []netlink.Route{
			{Dst: ipNet("10.50.0.0/16"), LinkIndex: index["ikepulse"], Gw: net.ParseIP("10.99.0.7"), Flags: int(netlink.FLAG_ONLINK)},
			{Dst: ipNet("10.51.0.0/16"), MultiPath: []*netlink.NexthopInfo{hop("ikepulse", "10.99.0.8"), hop("other", "192.0.2.1")}},
			{Dst: ipNet("10.52.0.0/16"), LinkIndex: index["ikepulse"], Flags: int(netlink.FLAG_ONLINK),
				Via: &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP("2001:db8::8")}},
		} {
			if err := netlink.RouteAdd(&r); err != nil {
				return err
			}
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		host, err = Look(h, "ikepulse", 4500)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []NextHop{{Addr: netip.MustParseAddr("192.0.2.1")}}; !slices.Equal(host.NextHops, want) {
		t.Errorf("next hops %v, want %v", host.NextHops, want)
	}
}
