package tun

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/barrier"
)

// free tells that nobody has the addresses, which a peer gave us: neither this
// host, on whatever interface, nor the network at the end of one, whose
// broadcast address it would be, nor the next hop on the way to the peer, which
// would be cut off by it. Those that our tunnels have may be had by another one:
// backup gateways may give the same, and the selectors tell them apart.
func (n *network) free(addresses []netip.Addr, peer netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addresses {
		if n.addresses[a] > 0 {
			continue
		}
		if err := n.freeOne(a, peer); err != nil {
			return fmt.Errorf("virtual address %v: %w", a, err)
		}
	}
	return nil
}

func (n *network) freeOne(a, peer netip.Addr) error {
	family := unix.AF_INET6
	if a.Is4() {
		family = unix.AF_INET
	}
	own, err := n.addressesOn(nil, family)
	if err != nil {
		return fmt.Errorf("our addresses: %w", err)
	}
	for _, o := range own {
		ip, _ := netip.AddrFromSlice(o.IP)
		ones, _ := o.Mask.Size()
		on := netip.PrefixFrom(ip.Unmap(), ones)
		switch {
		case on.Addr() == a:
			return errors.New("this host has it already")
		case a.Is4() && ones < 31 && (a == on.Masked().Addr() || a == barrier.LastOf(on.Masked())):
			return fmt.Errorf("it is no host's in %v, which is attached here", on.Masked())
		}
	}
	// A peer without a route is none that a next hop leads to.
	ways, _ := n.handle.RouteGetWithOptions(peer.AsSlice(), &netlink.RouteGetOptions{Mark: n.mark})
	for _, w := range ways {
		if hop, ok := netip.AddrFromSlice(w.Gw); ok && hop.Unmap() == a {
			return errors.New("it is the next hop to the peer")
		}
	}
	return nil
}
