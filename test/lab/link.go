package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End is one end of a link.
type End struct {
	Namespace *Namespace
	Name      string
	MAC       net.HardwareAddr // nil: the kernel chooses
	Addresses []netip.Prefix
	MTU       int // 0: 1500
	// Receiver attaches a bare XDP_PASS program here, for as long as the lab is
	// open. Without one a native program at the other end cannot transmit: veth
	// counts the frame as sent, and leaves it in a ring that nobody is told to
	// empty. Receive offload (GRO), which sets up the same ring, does not help:
	// on 6.18, 0 of 3 frames arrived with it, 3 of 3 with the program.
	Receiver bool
}

// Connect lays a veth link between two namespaces and brings both ends up.
// The link never shows in the caller's namespace. Offloads stay as the kernel
// sets them: a sender's UDP checksums are partial, as on a real host.
func Connect(a, b End) error {
	peer, err := b.Namespace.open()
	if err != nil {
		return err
	}
	defer unix.Close(peer)
	link := netlink.NewVeth(netlink.LinkAttrs{Name: a.Name, HardwareAddr: a.MAC})
	link.PeerName, link.PeerHardwareAddr, link.PeerNamespace = b.Name, b.MAC, netlink.NsFd(peer)
	err = a.Namespace.Do(func() error { return netlink.LinkAdd(link) })
	if err != nil {
		return fmt.Errorf("link %s-%s: %w", a.Name, b.Name, err)
	}
	// Both ends are quiet before either comes up: otherwise one end's first
	// frames depend on the order.
	for _, step := range []func(End, netlink.Link) error{hush, configure} {
		for _, end := range []End{a, b} {
			err := end.Namespace.Do(func() error { return withLink(end, step) })
			if err != nil {
				return fmt.Errorf("link %s in namespace %s: %w", end.Name, end.Namespace.name, err)
			}
		}
	}
	return nil
}

func withLink(e End, f func(End, netlink.Link) error) error {
	link, err := netlink.LinkByName(e.Name)
	if err != nil {
		return err
	}
	return f(e, link)
}

// hush keeps the interface from making up an IPv6 link-local address, and so
// from sending solicitations nobody asked for: counters stay countable.
func hush(e End, _ netlink.Link) error {
	err := setSysctl("net/ipv6/conf/"+e.Name+"/addr_gen_mode", "1")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}

func configure(e End, link netlink.Link) error {
	if e.MTU != 0 {
		if err := netlink.LinkSetMTU(link, e.MTU); err != nil {
			return fmt.Errorf("MTU %d: %w", e.MTU, err)
		}
	}
	if e.Receiver {
		if err := attachReceiver(e.Namespace.lab, link.Attrs().Index); err != nil {
			return fmt.Errorf("XDP receiver: %w", err)
		}
	}
	for _, p := range e.Addresses {
		if err := addAddress(link, p); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// Address adds an address to an interface.
func (n *Namespace) Address(iface string, p netip.Prefix) error {
	return n.Do(func() error {
		link, err := netlink.LinkByName(iface)
		if err != nil {
			return fmt.Errorf("%s in namespace %s: %w", iface, n.name, err)
		}
		return addAddress(link, p)
	})
}

func addAddress(link netlink.Link, p netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		// Usable at once: nobody else is on the link to be asked.
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("address %s on %s: %w", p, link.Attrs().Name, err)
	}
	if p.Addr().Is6() && link.Attrs().Flags&net.FlagLoopback != 0 && link.Attrs().Flags&net.FlagUp != 0 {
		return AwaitLocal(p.Addr())
	}
	return nil
}

// AwaitLocal waits, in the namespace of the calling thread, until the kernel takes
// packets to an address of IPv6 that it has been given: its worker makes the route, up to 85 ms later, and until then
// what comes is answered with an error.
func AwaitLocal(a netip.Addr) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		found, err := netlink.RouteGet(a.AsSlice())
		if err == nil && len(found) > 0 && found[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("packets to %s do not come in: %v, %v", a, found, err)
		}
	}
}

// Route sends what goes to a prefix (0.0.0.0/0 for all) by a gateway.
func (n *Namespace) Route(to netip.Prefix, via netip.Addr) error {
	return n.Do(func() error {
		err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(to.Masked()), Gw: via.AsSlice()})
		if err != nil {
			return fmt.Errorf("route to %s via %s in namespace %s: %w", to, via, n.name, err)
		}
		return nil
	})
}

// Own makes all addresses of a prefix the namespace's own, without giving them to
// an interface.
func (n *Namespace) Own(p netip.Prefix) error {
	return n.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		err = netlink.RouteAdd(&netlink.Route{Dst: ipNet(p.Masked()), LinkIndex: lo.Attrs().Index,
			Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST})
		if err != nil {
			return fmt.Errorf("local route to %s in namespace %s: %w", p, n.name, err)
		}
		return nil
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
