package tun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// network is what leads packets into the interface: our own routing table, the
// rules that point to it, and virtual addresses. Tunnels of several shards
// share routes and addresses, which therefore are counted.
type network struct {
	handle *netlink.Handle
	link   netlink.Link
	table  int
	mark   uint32

	mu        sync.Mutex
	routes    map[route]int
	addresses map[netip.Addr]int
	standing  []standing
}

// route is one entry of our table. One that is thrown leads back to the tables
// behind ours: it keeps a network of our own out of a tunnel to the wider one
// that it is part of.
type route struct {
	to    netip.Prefix
	throw bool
}

// standing is a route of the configuration.
type standing struct {
	to      netip.Prefix
	sourced bool // whether its source address has been looked for
}

// priority is the place of our rules: before the tables of the host, which
// begin at 32766, or its default route would win over every tunnel.
const priority = 4500

var families = []int{unix.AF_INET, unix.AF_INET6}

// setUp brings the interface up and points the rules to our table. What an
// earlier process has left there by being killed is cleared away.
func (n *network) setUp(mtu int, routes []netip.Prefix) error {
	if err := n.clearTable(); err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		// IPv6 would make up an address and talk to itself about it.
		{"address generation", func() error { return ignore(n.handle.LinkSetIP6AddrGenMode(n.link, 1), noIPv6...) }},
		{"MTU", func() error { return n.handle.LinkSetMTU(n.link, mtu) }},
		{"up", func() error { return n.handle.LinkSetUp(n.link) }},
		{"rule", n.addRules},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	for _, p := range routes {
		if err := n.unlessOff(p.Addr(), n.handle.RouteAdd(n.entry(route{to: p.Masked()}, netip.Addr{}))); err != nil {
			return fmt.Errorf("route to %v: %w", p, err)
		}
		n.standing = append(n.standing, standing{to: p.Masked()})
	}
	return nil
}

// takeDown removes what would outlive the interface.
func (n *network) takeDown() error {
	defer n.handle.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	errs := []error{n.delRules()}
	for r := range n.routes {
		if r.throw {
			errs = append(errs, n.handle.RouteDel(n.entry(r, netip.Addr{})))
		}
	}
	return errors.Join(errs...)
}

// clearTable removes the leftovers of a process that was killed: rules to our
// table at our place, and routes without an interface. Anything else there is
// somebody's.
func (n *network) clearTable() error {
	for _, family := range families {
		filter := &netlink.Route{Table: n.table}
		routes, err := n.handle.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE)
		if ignore(err, noIPv6...) != nil {
			return fmt.Errorf("routes of table %d: %w", n.table, err)
		}
		for _, r := range routes {
			if r.Type != unix.RTN_THROW {
				return fmt.Errorf("routing table %d is in use: %v", n.table, r)
			}
			if err := n.handle.RouteDel(&r); err != nil {
				return fmt.Errorf("leftover route: %w", err)
			}
		}
	}
	return n.delRules()
}

// rule leads everything but our own packets to our table.
func (n *network) rule(family int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Table, r.Priority, r.Mark, r.Invert = family, n.table, priority, n.mark, true
	return r
}

func (n *network) addRules() error {
	for _, family := range families {
		if err := n.handle.RuleAdd(n.rule(family)); ignore(err, noIPv6...) != nil {
			return err
		}
	}
	return nil
}

// delRules deletes the rules to our table at our place, whatever their mark.
func (n *network) delRules() error {
	var errs []error
	for _, family := range families {
		rules, err := n.handle.RuleListFiltered(family, n.rule(family), netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PRIORITY)
		errs = append(errs, ignore(err, noIPv6...))
		for _, r := range rules {
			errs = append(errs, n.handle.RuleDel(&r))
		}
	}
	return errors.Join(errs...)
}

// noIPv6 are the errors of a kernel that has only the other family.
var noIPv6 = []error{unix.EAFNOSUPPORT, unix.EOPNOTSUPP}

func ignore(err error, harmless ...error) error {
	for _, h := range harmless {
		if errors.Is(err, h) {
			return nil
		}
	}
	return err
}

// entry is a route as the kernel takes it; src is the address that this host
// sends from there, if it has the choice.
func (n *network) entry(r route, src netip.Addr) *netlink.Route {
	e := &netlink.Route{Dst: ipNet(r.to), Table: n.table, Protocol: unix.RTPROT_STATIC}
	if r.throw {
		e.Type = unix.RTN_THROW
		return e
	}
	e.LinkIndex = n.link.Attrs().Index
	if r.to.Addr().Is4() {
		e.Scope = unix.RT_SCOPE_LINK
	}
	if src.IsValid() {
		e.Src = src.AsSlice()
	}
	return e
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// lead adds the routes of a tunnel. own are our addresses inside it, and local
// what it may carry from us: this host itself sends from one of those. After
// an error nothing has changed.
func (n *network) lead(routes []route, own []netip.Addr, local []wire.Selector) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, r := range routes {
		if err := n.add(r, own, local); err != nil {
			for _, added := range routes[:i] {
				_ = n.drop(added) // it was added just now
			}
			return fmt.Errorf("route to %v: %w", r.to, err)
		}
	}
	return nil
}

func (n *network) add(r route, own []netip.Addr, local []wire.Selector) error {
	if s := n.stands(r); s != nil {
		return n.sourceStanding(s, own, local)
	}
	if n.routes[r] == 0 {
		src, err := n.source(r.to.Addr().Is4(), own, local)
		if err != nil {
			return err
		}
		if err := n.unlessOff(r.to.Addr(), n.handle.RouteAdd(n.entry(r, src))); err != nil {
			return err
		}
	}
	n.routes[r]++
	return nil
}

// stands is the standing route that makes r needless, or nil.
func (n *network) stands(r route) *standing {
	i := slices.IndexFunc(n.standing, func(s standing) bool {
		return !r.throw && s.to.Bits() <= r.to.Bits() && s.to.Contains(r.to.Addr())
	})
	if i < 0 {
		return nil
	}
	return &n.standing[i]
}

// sourceStanding gives a standing route its source address when the first
// tunnel tells what ours may be.
func (n *network) sourceStanding(s *standing, own []netip.Addr, local []wire.Selector) error {
	if s.sourced {
		return nil
	}
	src, err := n.source(s.to.Addr().Is4(), own, local)
	if err == nil && src.IsValid() {
		err = n.unlessOff(s.to.Addr(), n.handle.RouteReplace(n.entry(route{to: s.to}, src)))
	}
	s.sourced = err == nil
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
	family := unix.AF_INET6
	if v4 {
		family = unix.AF_INET
	}
	addresses, err := n.handle.AddrList(nil, family)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("our addresses: %w", err)
	}
	for _, a := range addresses {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); ok && a.Scope == unix.RT_SCOPE_UNIVERSE && covers(local, ip) {
			return ip, nil
		}
	}
	return netip.Addr{}, nil
}

// unlead ends what lead began.
func (n *network) unlead(routes []route) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, r := range routes {
		errs = append(errs, n.drop(r))
	}
	return errors.Join(errs...)
}

func (n *network) drop(r route) error {
	if n.stands(r) != nil {
		return nil
	}
	if n.routes[r]--; n.routes[r] > 0 {
		return nil
	}
	delete(n.routes, r)
	return n.unlessOff(r.to.Addr(), n.handle.RouteDel(n.entry(r, netip.Addr{})))
}

// own gives the interface virtual addresses. After an error nothing has
// changed.
func (n *network) own(addresses []netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, a := range addresses {
		if n.addresses[a] == 0 {
			if err := n.unlessOff(a, n.handle.AddrAdd(n.link, address(a))); err != nil {
				for _, added := range addresses[:i] {
					_ = n.disownOne(added) // it was added just now
				}
				return fmt.Errorf("address %v: %w", a, err)
			}
		}
		n.addresses[a]++
	}
	return nil
}

// disown ends what own began.
func (n *network) disown(addresses []netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, a := range addresses {
		errs = append(errs, n.disownOne(a))
	}
	return errors.Join(errs...)
}

func (n *network) disownOne(a netip.Addr) error {
	if n.addresses[a]--; n.addresses[a] > 0 {
		return nil
	}
	delete(n.addresses, a)
	return n.unlessOff(a, n.handle.AddrDel(n.link, address(a)))
}

// address is a host's own. An IPv6 one is usable at once: nobody else is on the
// link to be asked.
func address(a netip.Addr) *netlink.Addr {
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}
