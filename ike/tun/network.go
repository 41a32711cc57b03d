package tun

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// network is what leads packets into the interface, and what keeps those that no
// tunnel takes from leaving beside it: our own routing table, the rules that
// point to it, and virtual addresses. Tunnels of several shards share routes and
// addresses, which therefore are counted.
//
// What ought to be in the kernel is a function of the fields (wanted, rules,
// addresses): so what somebody deletes can be put back.
type network struct {
	handle *netlink.Handle
	name   string // of the interface
	table  int
	mark   uint32
	mtu    int

	plan atomic.Pointer[barrier.Plan] // also read beside mu

	mu        sync.Mutex
	link      netlink.Link
	standing  map[netip.Prefix]*lead // of the configuration: the pools
	routes    map[netip.Prefix]*lead // of tunnels
	addresses map[netip.Addr]int
}

// lead is a route into the interface.
type lead struct {
	tunnels []user // that need it, the newest last; of a standing one, that which has told src
	with
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

// entry is one route of our table: into the interface, an end (unreachable), or
// back to the tables behind ours (throw).
type entry struct {
	to   netip.Prefix
	kind int // RTN_UNICAST, RTN_UNREACHABLE, RTN_THROW
}

// blockMetric lets every other route to the same network win.
const blockMetric = 1<<31 - 1

var families = []int{unix.AF_INET, unix.AF_INET6}

// setUp brings the interface up and makes everything that leads to it. What a
// killed process has left of that is taken over, so that at no moment there is
// less.
func (n *network) setUp() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	present, err := n.present()
	if err != nil {
		return err
	}
	for e := range present {
		if e.kind == unix.RTN_UNICAST {
			return fmt.Errorf("routing table %d is in use: it has a route to %v", n.table, e.to)
		}
	}
	if err := n.prepareLink(); err != nil {
		return err
	}
	wanted := n.wanted()
	if err := n.addMissing(wanted, present); err != nil {
		return err
	}
	for e := range present {
		if _, ok := wanted[e]; !ok {
			if err := n.handle.RouteDel(n.route(e, with{})); err != nil {
				return fmt.Errorf("leftover route to %v: %w", e.to, err)
			}
		}
	}
	return n.fixRules()
}

// prepareLink brings the interface up.
func (n *network) prepareLink() error {
	for _, step := range []struct {
		what string
		do   func() error
	}{
		// IPv6 would make up an address and talk to itself about it.
		{"address generation", func() error { return ignore(n.handle.LinkSetIP6AddrGenMode(n.link, 1), noIPv6...) }},
		{"MTU", func() error { return n.handle.LinkSetMTU(n.link, n.mtu) }},
		{"up", func() error { return n.handle.LinkSetUp(n.link) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// takeDown removes what would outlive the interface: at the end nothing of ours
// is left in the table.
func (n *network) takeDown() error {
	defer n.handle.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	errs := []error{n.delRules()}
	present, err := n.present()
	errs = append(errs, err)
	for e := range present {
		if e.kind != unix.RTN_UNICAST {
			errs = append(errs, n.handle.RouteDel(n.route(e, with{})))
		}
	}
	return errors.Join(errs...)
}

// wanted are the routes that ought to be there, with what else the kernel is to know of them.
func (n *network) wanted() map[entry]with {
	all := map[entry]with{}
	plan := n.plan.Load()
	for to, v := range plan.Verdicts() {
		switch {
		case v != barrier.Covered:
			all[entry{to, unix.RTN_THROW}] = with{}
		case !plan.Pass:
			all[entry{to, unix.RTN_UNREACHABLE}] = with{}
		}
	}
	for _, leads := range []map[netip.Prefix]*lead{n.routes, n.standing} {
		for to, l := range leads {
			if n.open(to) {
				all[entry{to, unix.RTN_UNICAST}] = l.with
			}
		}
	}
	if IPv6Off(n.name) != "" {
		maps.DeleteFunc(all, func(e entry, _ with) bool { return e.to.Addr().Is6() })
	}
	return all
}

// open reports whether a route into the interface may be there: what is to stay
// outside does, whatever a peer has asked for.
func (n *network) open(to netip.Prefix) bool {
	v := n.plan.Load().At(to)
	return v == barrier.Free || v == barrier.Covered
}

// present are the routes of our table.
func (n *network) present() (map[entry]bool, error) {
	all := map[entry]bool{}
	for _, family := range families {
		routes, err := n.handle.RouteListFiltered(family, &netlink.Route{Table: n.table}, netlink.RT_FILTER_TABLE)
		if ignore(err, noIPv6...) != nil {
			return nil, fmt.Errorf("routes of table %d: %w", n.table, err)
		}
		for _, r := range routes {
			all[entry{destination(r.Dst, family), r.Type}] = true
		}
	}
	return all, nil
}

func destination(to *net.IPNet, family int) netip.Prefix {
	if to == nil {
		if family == unix.AF_INET {
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	a, _ := netip.AddrFromSlice(to.IP)
	bits, _ := to.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// addMissing adds what is wanted and not present: first what ends packets or
// keeps them outside.
func (n *network) addMissing(wanted map[entry]with, present map[entry]bool) error {
	for _, leading := range []bool{false, true} {
		for e, w := range wanted {
			if present[e] || (e.kind == unix.RTN_UNICAST) != leading {
				continue
			}
			if err := n.handle.RouteReplace(n.route(e, w)); err != nil {
				return fmt.Errorf("route to %v: %w", e.to, err)
			}
		}
	}
	return nil
}

// route is an entry as the kernel takes it.
func (n *network) route(e entry, w with) *netlink.Route {
	r := &netlink.Route{Dst: ipNet(e.to), Table: n.table, Protocol: unix.RTPROT_STATIC, Type: e.kind}
	switch e.kind {
	case unix.RTN_THROW:
		return r
	case unix.RTN_UNREACHABLE:
		r.Priority = blockMetric
		return r
	}
	r.LinkIndex = n.link.Attrs().Index
	if e.to.Addr().Is4() {
		r.Scope = unix.RT_SCOPE_LINK
	}
	if w.src.IsValid() {
		r.Src = w.src.AsSlice()
	}
	// Not locked: a lock would end path MTU discovery behind the tunnel.
	r.MTU = w.mtu
	return r
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
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

// follow goes over to another plan.
func (n *network) follow(p *barrier.Plan) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.wanted()
	n.plan.Store(p)
	now := n.wanted()
	there := map[entry]bool{}
	for e := range before {
		there[e] = true
	}
	errs := []error{n.addMissing(now, there)}
	for e, w := range before {
		if _, still := now[e]; !still {
			errs = append(errs, ignore(n.handle.RouteDel(n.route(e, w)), unix.ESRCH))
		}
	}
	return errors.Join(append(errs, n.fixRules())...)
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
	return n.unlessOff(a, ignore(n.handle.AddrDel(n.link, address(a)), unix.EADDRNOTAVAIL))
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
