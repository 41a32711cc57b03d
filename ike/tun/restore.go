package tun

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/barrier"
)

// Follow goes over to another plan.
func (d *Device) Follow(p *barrier.Plan) error { return d.net.follow(p) }

// Concerns reports whether an event may mean that somebody has taken away what
// leads to the interface, or the interface. The tunnels' own coming and going is
// not among that.
func (d *Device) Concerns(e barrier.Event) bool {
	switch e.What {
	case barrier.Unknown, barrier.RuleGone, barrier.AddressChanged:
		return true
	case barrier.LinkChanged:
		return e.Link == d.net.name
	case barrier.RouteGone:
		return e.Table == d.net.table && d.net.wants(e.To, e.Type)
	}
	return false
}

func (n *network) wants(to netip.Prefix, kind int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if kind == unix.RTN_UNICAST {
		return n.routes[to] != nil || n.standing[to] != nil
	}
	_, decided := n.plan.Load().Verdicts()[to]
	return decided
}

// Missing says what somebody has taken away of what leads to the interface, in a
// few words; "" if nothing.
func (d *Device) Missing() (string, error) {
	n := d.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if text, err := n.missingLink(); text != "" || err != nil {
		return text, err
	}
	rules, err := n.presentRules()
	if err != nil {
		return "", err
	}
	there := keyed(rules)
	for key, r := range keyed(n.rules()) {
		if _, ok := there[key]; !ok && n.hasFamily(r.Family) {
			return fmt.Sprintf("routing policy rule %d to table %d", r.Priority, r.Table), nil
		}
	}
	present, err := n.present()
	if err != nil {
		return "", err
	}
	missing := 0
	for e := range n.wanted() {
		if !present[e] {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Sprintf("%d of the routes of table %d", missing, n.table), nil
	}
	return "", nil
}

// hasFamily reports whether the kernel has rules of a family.
func (n *network) hasFamily(family int) bool {
	_, err := n.handle.RuleList(family)
	return err == nil
}

// missingLink looks at the interface and its addresses.
func (n *network) missingLink() (string, error) {
	link, err := n.handle.LinkByName(n.name)
	var none netlink.LinkNotFoundError
	switch {
	case errors.As(err, &none):
		return "interface " + n.name, nil
	case err != nil:
		return "", err
	case link.Attrs().Index != n.link.Attrs().Index:
		return "interface " + n.name + ", in the place of which there is another", nil
	case link.Attrs().Flags&net.FlagUp == 0:
		return "interface " + n.name + ", which is down", nil
	case link.Attrs().MTU != n.mtu:
		return "the MTU of interface " + n.name, nil
	}
	there, err := n.addressesOn(link, netlink.FAMILY_ALL)
	if err != nil {
		return "", err
	}
	off := IPv6Off(n.name) != ""
	for a := range n.addresses {
		if !(off && a.Is6()) && !slices.ContainsFunc(there, func(b netlink.Addr) bool { return b.IP.Equal(a.AsSlice()) }) {
			return fmt.Sprintf("address %v of interface %s", a, n.name), nil
		}
	}
	return "", nil
}

// Restore puts back what is missing. Where the interface cannot be made anew, what
// ends packets blocks all the same.
func (d *Device) Restore() error {
	if err := d.reopen(); err != nil {
		return errors.Join(fmt.Errorf("interface %s: %w", d.net.name, err), d.net.block())
	}
	return d.net.restore()
}

// block puts back what needs no interface.
func (n *network) block() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	present, err := n.present()
	if err != nil {
		return err
	}
	wanted := n.wanted()
	maps.DeleteFunc(wanted, func(e entry, _ with) bool { return e.kind == unix.RTN_UNICAST })
	return errors.Join(n.fixRules(), n.addMissing(wanted, present))
}

func (n *network) restore() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	present, err := n.present()
	if err != nil {
		return err
	}
	errs := []error{n.fixRules(), n.prepareLink()}
	for a := range n.addresses {
		errs = append(errs, n.unlessOff(a, ignore(n.handle.AddrAdd(n.link, address(a)), unix.EEXIST)))
	}
	errs = append(errs, n.sourceAnew())
	return errors.Join(append(errs, n.addMissing(n.wanted(), present))...)
}

// sourceAnew gives routes whose source address is gone another one, or none: the
// kernel refuses them with that.
func (n *network) sourceAnew() error {
	here, err := n.addressesOn(nil, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	ours := map[netip.Addr]bool{}
	for _, a := range here {
		ip, _ := netip.AddrFromSlice(a.IP)
		ours[ip.Unmap()] = true
	}
	for _, leads := range []map[netip.Prefix]*lead{n.routes, n.standing} {
		for to, l := range leads {
			for i := range l.tunnels {
				if u := &l.tunnels[i]; u.src.IsValid() && !ours[u.src] && n.addresses[u.src] == 0 {
					u.src = localAmong(here, to.Addr().Is4(), u.local)
				}
			}
			if k := len(l.tunnels); k > 0 {
				l.src = l.tunnels[k-1].src
			}
		}
	}
	return nil
}
