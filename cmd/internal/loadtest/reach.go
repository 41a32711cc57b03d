package loadtest

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Reach is how the kernel would send to a gateway.
type Reach struct {
	Source netip.Addr // where packets come from unless somebody says otherwise
	// Beyond says by what the packets leave this host and its links, "" if
	// the gateway is local or on a link.
	Beyond string
}

// ReachOf asks the kernel for its way to a gateway, for packets that come from
// an address, or from any if from is invalid.
func ReachOf(gateway, from netip.Addr) (Reach, error) {
	entry, err := route(gateway, from, true)
	if err != nil {
		return Reach{}, err
	}
	r, err := route(gateway, from, false)
	if err != nil {
		return Reach{}, err
	}
	source, _ := netip.AddrFromSlice(r.Src)
	return Reach{Source: source.Unmap(), Beyond: beyond(entry)}, nil
}

// route is the answer of the kernel: the entry of its table, or what comes of it.
func route(to, from netip.Addr, entry bool) (netlink.Route, error) {
	o := &netlink.RouteGetOptions{FIBMatch: entry}
	if from.IsValid() {
		o.SrcAddr = from.AsSlice()
	}
	routes, err := netlink.RouteGetWithOptions(to.AsSlice(), o)
	if err == nil && len(routes) != 1 {
		err = fmt.Errorf("the kernel has %d routes", len(routes))
	}
	if err != nil {
		return netlink.Route{}, fmt.Errorf("there is no route to %v: %w", to, err)
	}
	return routes[0], nil
}

// beyond says by what an entry of the routing table leads to more than the
// hosts of a link, "" if it does not. A default route leads to anybody, even if
// no gateway stands in it.
func beyond(r netlink.Route) string {
	if r.Type == unix.RTN_LOCAL {
		return ""
	}
	for _, h := range append([]*netlink.NexthopInfo{{Gw: r.Gw, Via: r.Via}}, r.MultiPath...) {
		if via := router(h); via != "" {
			return "the gateway " + via
		}
	}
	if r.Type != unix.RTN_UNICAST {
		return "a route for more than one host"
	}
	if r.Dst != nil {
		if ones, _ := r.Dst.Mask.Size(); ones > 0 {
			return ""
		}
	}
	return "a default route"
}

// router is whom a next hop names, "" if it is only a link.
func router(h *netlink.NexthopInfo) string {
	if via, ok := h.Via.(*netlink.Via); ok {
		return via.Addr.String()
	}
	if len(h.Gw) > 0 {
		return h.Gw.String()
	}
	return ""
}

// Foreign is the first of some addresses that is not this host's own, and
// invalid if all are.
func Foreign(addresses []netip.Addr) (netip.Addr, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return netip.Addr{}, err
	}
	defer h.Close()
	for _, a := range addresses {
		routes, err := h.RouteGet(a.AsSlice())
		if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_LOCAL {
			return a, nil // that there is no route at all is an error, too
		}
	}
	return netip.Addr{}, nil
}
