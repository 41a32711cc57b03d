package lab

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Hole makes the namespace a router that tells nobody of a narrower path: it drops
// the fragments of IPv4 that come in, and every ICMP message of its own.
func (n *Namespace) Hole() error {
	err := n.Do(func() error {
		c, err := nftables.New() // dials from this thread at each transaction
		if err != nil {
			return err
		}
		holeRules(c)
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("hole in namespace %s: %w", n.name, err)
	}
	return nil
}

// holeRules is: table ip lab_hole { chain prerouting { type filter hook prerouting
// priority -450; ip frag-off & 0x3fff != 0 drop } chain output { type filter hook
// output priority filter; meta l4proto icmp drop } }
func holeRules(c *nftables.Conn) {
	const beforeDefragmentation = -450
	t := c.AddTable(&nftables.Table{Name: "lab_hole", Family: nftables.TableFamilyIPv4})
	in := c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(beforeDefragmentation),
	})
	c.AddRule(&nftables.Rule{Table: t, Chain: in, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: binary.BigEndian.AppendUint16(nil, fragmentBits), Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0}},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	out := c.AddChain(&nftables.Chain{
		Name: "output", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
	})
	c.AddRule(&nftables.Rule{Table: t, Chain: out, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMP}},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
}
