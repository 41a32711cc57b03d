package tun

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// priority is the place of our rule: before the tables of the host, which
	// begin at 32766, or its default route would win over every tunnel.
	priority = 4500
	// aside is the place of the rules for what goes by the host's own tables
	// though a tunnel covers it: before ours.
	aside = priority - 1
)

// rules are those that ought to be there.
func (n *network) rules() (all []netlink.Rule) {
	covered := map[bool]bool{}
	for p := range n.plan.Load().Verdicts() {
		covered[p.Addr().Is4()] = true
	}
	for _, family := range families {
		r := n.rule(family, priority)
		r.Table, r.Mark, r.Invert = n.table, n.mark, true
		all = append(all, r)
	}
	if covered[true] {
		// DHCP: a lease is renewed at a server that may be beyond the link.
		// RFC 2131 §4.3.2
		r := n.aside(unix.AF_INET)
		r.IPProto, r.Sport, r.Dport = unix.IPPROTO_UDP, netlink.NewRulePortRange(68, 68), netlink.NewRulePortRange(67, 67)
		all = append(all, r)
	}
	for _, reply := range n.plan.Load().Replies {
		family := unix.AF_INET6
		if reply.From.Is4() {
			family = unix.AF_INET
		}
		r := n.aside(family)
		r.Src, r.Dst = ipNet(netip.PrefixFrom(reply.From, reply.From.BitLen())), ipNet(reply.To)
		all = append(all, r)
	}
	return all
}

func (n *network) rule(family, priority int) netlink.Rule {
	r := *netlink.NewRule()
	r.Family, r.Priority = family, priority
	return r
}

// aside is a rule that leads to the host's main table. A mark of which no bit is
// compared hits every packet, and says whose rule it is: those of two instances
// may be alike otherwise.
func (n *network) aside(family int) netlink.Rule {
	none := uint32(0)
	r := n.rule(family, aside)
	r.Table, r.Mark, r.Mask = unix.RT_TABLE_MAIN, uint32(n.table), &none
	return r
}

// presentRules are those of ours that are there, whatever they say.
func (n *network) presentRules() (all []netlink.Rule, err error) {
	for _, family := range families {
		rules, err := n.handle.RuleList(family)
		if ignore(err, noIPv6...) != nil {
			return nil, fmt.Errorf("rules: %w", err)
		}
		for _, r := range rules {
			ours := r.Priority == priority && r.Table == n.table ||
				r.Priority == aside && r.Mark == uint32(n.table) && r.Mask != nil && *r.Mask == 0
			if ours {
				r.Family = family
				all = append(all, r)
			}
		}
	}
	return all, nil
}

// ruleKey is what makes two rules of ours the same.
func ruleKey(r netlink.Rule) string {
	text := func(v fmt.Stringer, given bool) string {
		if !given {
			return "-"
		}
		return v.String()
	}
	return fmt.Sprint(r.Family, r.Priority, r.Table, r.Mark, r.Invert, r.IPProto, r.Sport, r.Dport,
		text(r.Src, r.Src != nil), text(r.Dst, r.Dst != nil))
}

func keyed(rules []netlink.Rule) map[string]netlink.Rule {
	m := map[string]netlink.Rule{}
	for _, r := range rules {
		m[ruleKey(r)] = r
	}
	return m
}

// fixRules adds the rules that are missing and takes away the others of ours.
func (n *network) fixRules() error {
	present, err := n.presentRules()
	if err != nil {
		return err
	}
	wanted, there := keyed(n.rules()), keyed(present)
	for key, r := range wanted {
		if _, ok := there[key]; ok {
			continue
		}
		if err := n.handle.RuleAdd(&r); ignore(err, noIPv6...) != nil {
			return fmt.Errorf("rule: %w", err)
		}
	}
	for key, r := range there {
		if _, ok := wanted[key]; !ok {
			if err := n.handle.RuleDel(&r); err != nil {
				return fmt.Errorf("leftover rule: %w", err)
			}
		}
	}
	return nil
}

// delRules deletes all rules of ours.
func (n *network) delRules() error {
	rules, err := n.presentRules()
	errs := []error{err}
	for _, r := range rules {
		errs = append(errs, n.handle.RuleDel(&r))
	}
	return errors.Join(errs...)
}
