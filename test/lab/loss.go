package lab

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Lose drops a share of the IPv4 packets that come in by an interface, each by
// chance, as a bad line does. Who sends them is told nothing: dropped on its way
// out, a packet would be an error of its sender's.
func (n *Namespace) Lose(iface string, share float64) error {
	err := n.Do(func() error {
		c, err := nftables.New() // dials from this thread at each transaction
		if err != nil {
			return err
		}
		loseRules(c, iface, share)
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("loss on %s in namespace %s: %w", iface, n.name, err)
	}
	return nil
}

// loseRules is: table ip lab_loss { chain prerouting { type filter hook prerouting
// priority raw; iifname IFACE meta random < SHARE drop } }
func loseRules(c *nftables.Conn, iface string, share float64) {
	t := c.AddTable(&nftables.Table{Name: "lab_loss", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: nameData(iface)},
		// Compared byte by byte: to chance it is all the same which comes first.
		&expr.Meta{Key: expr.MetaKeyPRANDOM, Register: 1},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binary.BigEndian.AppendUint32(nil, uint32(share*math.MaxUint32))},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
}

// nameData is an interface's name as nftables compares it: whole, with its zeros.
func nameData(iface string) []byte {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, iface)
	return name
}
