package tun

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/barrier"
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
		if e.to.Addr().Is4() {
			// Where somebody adds a route by a router, the kernel looks for the way to
			// that among routes of this scope or a narrower one than a link's.
			r.Scope = unix.RT_SCOPE_HOST
		}
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
