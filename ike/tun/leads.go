package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// lead is a route into the interface.
type lead struct {
	tunnels []user // that need it, the newest last; of a standing one, that which has told src
	with
}

// lead adds the routes of a tunnel. own are our addresses inside it, and local
// what it may carry from us: this host itself sends from one of those. After
// an error nothing has changed.
func (n *network) lead(spi uint32, routes []netip.Prefix, mtu int, own []netip.Addr, local []wire.Selector) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, to := range routes {
		if err := n.add(spi, to, metric(to, mtu, n.mtu), own, local); err != nil {
			for _, added := range routes[:i] {
				_ = n.drop(spi, added) // it was added just now
			}
			return fmt.Errorf("route to %v: %w", to, err)
		}
	}
	return nil
}

// user is a tunnel that needs a route, by its inbound SPI, and what this host
// sends from through it, which is one of its own addresses or lies in local.
type user struct {
	spi   uint32
	src   netip.Addr
	local []wire.Selector
}

// with is what the kernel knows of a route beside where it leads.
type with struct {
	src netip.Addr // what this host sends from there; not valid: the kernel chooses
	mtu int        // the smallest that any of its tunnels has had since the first; 0: the interface's
}

func (n *network) add(spi uint32, to netip.Prefix, mtu int, own []netip.Addr, local []wire.Selector) error {
	if p, l := n.stands(to); l != nil {
		return n.sourceStanding(spi, p, l, own, local)
	}
	src, err := n.source(to.Addr().Is4(), own, local)
	if err != nil {
		return err
	}
	if l := n.routes[to]; l != nil {
		return n.share(to, l, user{spi, src, local}, mtu)
	}
	l := &lead{[]user{{spi, src, local}}, with{src, mtu}}
	if n.open(to) {
		if err := n.unlessOff(to.Addr(), n.handle.RouteAdd(n.route(entry{to, unix.RTN_UNICAST}, l.with))); err != nil {
			return err
		}
	}
	n.routes[to] = l
	return nil
}

// share has one more tunnel use a route. It is the newest, and so carries the
// packets: this host sends from its address.
func (n *network) share(to netip.Prefix, l *lead, u user, mtu int) error {
	if l.mtu != 0 && (mtu == 0 || mtu > l.mtu) {
		mtu = l.mtu
	}
	if err := n.alter(to, l, with{u.src, mtu}); err != nil {
		return err
	}
	l.tunnels = append(l.tunnels, u)
	return nil
}

// alter changes what the kernel knows of a route of tunnels.
func (n *network) alter(to netip.Prefix, l *lead, w with) error {
	if w != l.with && n.open(to) {
		if err := n.unlessOff(to.Addr(), n.handle.RouteReplace(n.route(entry{to, unix.RTN_UNICAST}, w))); err != nil {
			return err
		}
	}
	l.with = w
	return nil
}

// stands is the standing route that makes one needless, or nil.
func (n *network) stands(to netip.Prefix) (netip.Prefix, *lead) {
	for p, l := range n.standing {
		if p.Bits() <= to.Bits() && p.Contains(to.Addr()) {
			return p, l
		}
	}
	return netip.Prefix{}, nil
}

// sourceStanding gives a standing route its source address when the first
// tunnel tells what ours may be.
func (n *network) sourceStanding(spi uint32, to netip.Prefix, l *lead, own []netip.Addr, local []wire.Selector) error {
	if len(l.tunnels) > 0 {
		return nil
	}
	src, err := n.source(to.Addr().Is4(), own, local)
	if err == nil {
		err = n.alter(to, l, with{src, l.mtu})
	}
	if err == nil {
		l.tunnels = []user{{spi, src, local}}
	}
	return err
}

// source is the address of this host that may send through a tunnel: the one
// that we were given for it, or else one of ours that lies in the selectors.
// Without it the kernel would take that of another interface, and the packet
// would be refused. There may be none.
func (n *network) source(v4 bool, own []netip.Addr, local []wire.Selector) (netip.Addr, error) {
	for _, a := range own {
		if a.Is4() == v4 {
			return a, nil
		}
	}
	here, err := n.addressesOn(nil, netlink.FAMILY_ALL)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("our addresses: %w", err)
	}
	return localAmong(here, v4, local), nil
}

// localAmong is the first address of this host that selectors hold.
func localAmong(here []netlink.Addr, v4 bool, local []wire.Selector) netip.Addr {
	for _, a := range here {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); ok && ip.Is4() == v4 && a.Scope == unix.RT_SCOPE_UNIVERSE && covers(local, ip) {
			return ip
		}
	}
	return netip.Addr{}
}

// addressesOn are those of a link, or of the host.
func (n *network) addressesOn(link netlink.Link, family int) ([]netlink.Addr, error) {
	return barrier.Dump(func() ([]netlink.Addr, error) { return n.handle.AddrList(link, family) })
}

// unlead ends what lead began.
func (n *network) unlead(spi uint32, routes []netip.Prefix) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, to := range routes {
		errs = append(errs, n.drop(spi, to))
	}
	return errors.Join(errs...)
}

// drop takes away the route of a tunnel, unless another needs it, from whose
// address this host then sends: that of the one that ends may go with it. That
// somebody else was quicker is no error.
func (n *network) drop(spi uint32, to netip.Prefix) error {
	if _, standing := n.stands(to); standing != nil {
		return nil
	}
	l := n.routes[to]
	l.tunnels = slices.DeleteFunc(l.tunnels, func(u user) bool { return u.spi == spi })
	if k := len(l.tunnels); k > 0 {
		return n.alter(to, l, with{l.tunnels[k-1].src, l.mtu})
	}
	delete(n.routes, to)
	if !n.open(to) {
		return nil
	}
	return n.unlessOff(to.Addr(), ignore(n.handle.RouteDel(n.route(entry{to, unix.RTN_UNICAST}, with{})), unix.ESRCH))
}
