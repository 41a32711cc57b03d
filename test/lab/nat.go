package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NAT is source address translation by a namespace that forwards.
type NAT struct {
	ns    *Namespace
	table *nftables.Table
}

// Masquerade makes the namespace forward, and hide what it sends by an
// interface behind that interface's address, with a random source port for
// each flow, as a home router does.
func (n *Namespace) Masquerade(out string) (*NAT, error) {
	nat := &NAT{ns: n, table: &nftables.Table{Name: "lab_nat", Family: nftables.TableFamilyIPv4}}
	err := errors.Join(
		n.Sysctl("net/ipv4/ip_forward", "1"),
		nat.commit(func(c *nftables.Conn) { nat.rules(c, out) }))
	if err != nil {
		return nil, fmt.Errorf("masquerade on %s in namespace %s: %w", out, n.name, err)
	}
	return nat, nil
}

// rules is: table ip lab_nat { chain postrouting { type nat hook postrouting
// priority srcnat; oifname OUT masquerade random } }
func (t *NAT) rules(c *nftables.Conn, out string) {
	c.AddTable(t.table)
	chain := c.AddChain(&nftables.Chain{
		Name:     "postrouting",
		Table:    t.table,
		Type:     nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource,
	})
	c.AddRule(&nftables.Rule{Table: t.table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: nameData(out)},
		&expr.Masq{Random: true},
	}})
}

// commit applies one transaction in the namespace.
func (t *NAT) commit(change func(*nftables.Conn)) error {
	return t.ns.Do(func() error {
		c, err := nftables.New() // dials from this thread at each transaction
		if err != nil {
			return err
		}
		change(c)
		return c.Flush()
	})
}

// Rebind forgets the mappings: each flow gets another port with its next
// packet from inside (the same one in 1 of about 64,000 cases, for ports of
// 1024 and above), and what comes to the old port no longer reaches anyone.
func (t *NAT) Rebind() error { return t.ns.FlushConntrack() }

// RebindFrom is Rebind for what one address inside sends.
func (t *NAT) RebindFrom(inside netip.Addr) error {
	flows := &netlink.ConntrackFilter{}
	if err := flows.AddIP(netlink.ConntrackOrigSrcIP, inside.AsSlice()); err != nil {
		return err
	}
	err := t.ns.Do(func() error {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flows)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete the flows of %v in namespace %s: %w", inside, t.ns.name, err)
	}
	return nil
}

// Remove stops the translation, of running flows too: the kernel translates
// nothing while no chain asks for it. Forwarding stays on.
func (t *NAT) Remove() error {
	return t.commit(func(c *nftables.Conn) { c.DelTable(t.table) })
}

// FlushConntrack empties the namespace's connection tracking table.
func (n *Namespace) FlushConntrack() error {
	err := n.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	if err != nil {
		return fmt.Errorf("flush conntrack in namespace %s: %w", n.name, err)
	}
	return nil
}
