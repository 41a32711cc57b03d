package barrier

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is what a host has that bears on a plan.
type Host struct {
	Attached []Attached // in order
	NextHops []NextHop  // in order
}

// Attached is a network that an interface is on.
type Attached struct {
	Network   netip.Prefix
	Interface string
	Address   netip.Addr // ours there
	Permanent bool       // a person has given us the address, and no network
}

// NextHop is the router of some route.
type NextHop struct {
	Addr   netip.Addr
	Pushed bool // by the network: DHCP, router advertisements
}

// Look finds out what the host has, in the network namespace of the handle. What
// is on the interface named without is left out, and so are the routers behind
// it and the routes of the table.
func Look(h *netlink.Handle, without string, table int) (Host, error) {
	var host Host
	links, err := Dump(h.LinkList)
	if err != nil {
		return host, fmt.Errorf("links: %w", err)
	}
	names, ours := map[int]string{}, 0
	for _, l := range links {
		a := l.Attrs()
		if a.Name == without {
			ours = a.Index
		}
		if a.Flags&net.FlagLoopback == 0 && a.Name != without {
			names[a.Index] = a.Name
		}
	}
	addresses, err := Dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return host, fmt.Errorf("addresses: %w", err)
	}
	for _, a := range addresses {
		if name := names[a.LinkIndex]; name != "" {
			host.attach(a, name)
		}
	}
	if err := host.routers(h, table, ours); err != nil {
		return host, fmt.Errorf("routes: %w", err)
	}
	host.order()
	return host, nil
}

// attach takes the network of an address, which of a point-to-point link is its
// other end.
func (h *Host) attach(a netlink.Addr, name string) {
	network := a.IPNet
	if a.Peer != nil {
		network = a.Peer
	}
	to, ok := netip.AddrFromSlice(network.IP)
	ours, alsoOK := netip.AddrFromSlice(a.IP)
	bits, _ := network.Mask.Size()
	if !ok || !alsoOK {
		return
	}
	to, ours = to.Unmap(), ours.Unmap()
	p := netip.PrefixFrom(to, bits).Masked()
	if p.IsSingleIP() && to == ours {
		return
	}
	h.Attached = append(h.Attached, Attached{Network: p, Interface: name, Address: ours, Permanent: a.Flags&unix.IFA_F_PERMANENT != 0})
}

// routers takes the next hops of all tables but one, and by all links but one.
func (h *Host) routers(handle *netlink.Handle, table, link int) error {
	seen := map[NextHop]bool{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		err := handle.RouteListFilteredIter(family, &netlink.Route{}, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
			if r.Table == table {
				return true
			}
			pushed := r.Protocol == unix.RTPROT_DHCP || r.Protocol == unix.RTPROT_RA || r.Protocol == unix.RTPROT_KERNEL
			for _, hop := range append(r.MultiPath, &netlink.NexthopInfo{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via}) {
				if a, ok := routerOf(hop); ok && hop.LinkIndex != link {
					seen[NextHop{a, pushed}] = true
				}
			}
			return true
		})
		if err != nil && family == unix.AF_INET {
			return err // a kernel without IPv6 has no such routes
		}
	}
	for n := range seen {
		// What a person has written holds, though a network says the same.
		if !n.Pushed || !seen[NextHop{n.Addr, false}] {
			h.NextHops = append(h.NextHops, n)
		}
	}
	return nil
}

// routerOf is the address of a next hop, which need not be of the route's family.
func routerOf(hop *netlink.NexthopInfo) (netip.Addr, bool) {
	ip := hop.Gw
	if via, ok := hop.Via.(*netlink.Via); ok {
		ip = via.Addr
	}
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}

func (h *Host) order() {
	slices.SortFunc(h.Attached, func(a, b Attached) int {
		return cmp.Or(a.Network.Addr().Compare(b.Network.Addr()), cmp.Compare(a.Network.Bits(), b.Network.Bits()),
			cmp.Compare(a.Interface, b.Interface), a.Address.Compare(b.Address))
	})
	slices.SortFunc(h.NextHops, func(a, b NextHop) int { return a.Addr.Compare(b.Addr) })
}
