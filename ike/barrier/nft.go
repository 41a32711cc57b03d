package barrier

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nft is a table of nftables with a chain for each direction: at postrouting for
// what goes to a covered address by another interface than the TUN, at prerouting
// for what comes from one so. Two more have what of that may pass, and drop the
// rest: so a packet of others meets few rules. It drops whether or not the host
// filters by the reverse path.
type nft struct {
	Options
	conn   *nftables.Conn
	listen []netip.Addr
	// blind: the kernel cannot tell whose socket a packet is for (nft_socket).
	blind  bool
	second bool   // the table that stands is the one of the second name
	set    *state // as of the last Set; nil: none yet
}

// state is what the kernel says of a table that is whole.
type state struct {
	rules    map[string][]uint64 // handles, by chain
	elements map[string]int      // by set
}

// NFTables is a filter of nftables. An error says that the kernel has none, or
// that we may not use it. listen are our own outer addresses.
func NFTables(o Options, listen []netip.Addr) (Filter, error) {
	// A batch goes by one send; nothing of it is kept.
	const batch = 64 << 20
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error { return c.SetWriteBuffer(batch) }))
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("nftables: %w", err), c.CloseLasting())
	}
	f := &nft{Options: o, conn: c, listen: listen, second: true}
	for _, t := range tables {
		if t.Name == f.table(false).Name {
			f.second = false // it stands, left by a killed process
		}
	}
	return f, nil
}

func (*nft) Kind() string { return "nftables" }

func (f *nft) Hears() bool { return !f.blind }

// table is that of the first or the second name.
func (f *nft) table(second bool) *nftables.Table {
	t := &nftables.Table{Name: f.Name, Family: nftables.TableFamilyINet}
	if second {
		t.Name += "."
	}
	return t
}

func (f *nft) Concerns(e Event) bool {
	return e.What == FilterChanged && (e.Name == f.table(false).Name || e.Name == f.table(true).Name)
}

// Silent: the kernel tells of everything.
func (*nft) Silent() bool { return false }

// Set makes a table beside the one that stands, and then takes that away. To
// replace a table in one transaction is not enough: for an instant the kernel has
// the new rules and not yet the elements of their sets (tried on 6.18: one packet
// in some hundred transactions came in).
func (f *nft) Set(p *Plan) error {
	err := f.replace(p)
	if errors.Is(err, unix.ENOENT) && !f.blind {
		f.blind = true
		err = f.replace(p)
	}
	if err == nil {
		f.set, err = f.look()
	}
	return err
}

func (f *nft) replace(p *Plan) error {
	next := !f.second
	t := f.table(next)
	f.conn.AddTable(t) // so that there is one to delete
	f.conn.DelTable(t)
	f.conn.AddTable(t)
	b := batch{f.conn, t, nil}
	inCovered := f.conn.AddChain(&nftables.Chain{Name: "in_covered", Table: t})
	outCovered := f.conn.AddChain(&nftables.Chain{Name: "out_covered", Table: t})
	f.pass(&b, inCovered, outCovered, p)
	b.drop(inCovered)
	b.drop(outCovered)
	in := b.chain("in", nftables.ChainHookPrerouting, beforeConntrack)
	out := b.chain("out", nftables.ChainHookPostrouting, nftables.ChainPriorityFilter)
	for _, ours := range []string{f.TUN, "lo"} {
		b.accept(in, interfaceName(expr.MetaKeyIIFNAME, ours))
		b.accept(out, interfaceName(expr.MetaKeyOIFNAME, ours))
	}
	for _, v4 := range []bool{true, false} {
		covered := b.ranges("covered"+suffix(v4), v4, p.Ranges(v4))
		b.judge(in, inCovered, inSet(covered, v4, true))
		b.judge(out, outCovered, inSet(covered, v4, false))
	}
	if err := errors.Join(b.err, f.conn.Flush()); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	f.second = next
	return f.delete(!next)
}

// beforeConntrack spares it what is dropped anyway.
var beforeConntrack = nftables.ChainPriorityRef(*nftables.ChainPriorityRaw - 10)

func suffix(v4 bool) string {
	if v4 {
		return "4"
	}
	return "6"
}

// The ports of what is ours on the outside. RFC 7296 §2.23
var outerPorts = []uint16{500, 4500}

// The ports of DHCP. RFC 2131 §4.1
const dhcpClient, dhcpServer = 68, 67

// ICMP errors that a path makes: RFC 792, RFC 4443 §3.
var pathErrors = map[bool][]byte{true: {3, 11, 12}, false: {1, 2, 3, 4}}

// pass has the rules for what is not the tunnel's, though it has a covered
// address.
func (f *nft) pass(b *batch, in, out *nftables.Chain, p *Plan) {
	b.accept(out, marked(f.Mark))
	if !f.blind { // name servers answer what the gateway itself asks
		b.acceptOuter(in, f.Mark, forSocketMarked(f.Mark))
	}
	for _, v4 := range []bool{true, false} {
		f.passOuter(b, in, v4)
		client, server := uint16(dhcpClient), uint16(dhcpServer)
		if !v4 {
			client, server = 546, 547 // RFC 8415 §7.2
		}
		for _, c := range []*nftables.Chain{in, out} {
			b.accept(c, ofFamily(v4), protocol(unix.IPPROTO_UDP), port(atSource, client), port(atDestination, server))
			b.accept(c, ofFamily(v4), protocol(unix.IPPROTO_UDP), port(atSource, server), port(atDestination, client))
		}
	}
	for _, c := range []*nftables.Chain{in, out} {
		b.accept(c, neighbourDiscovery())
	}
	for _, r := range p.Replies {
		b.accept(in, inPrefix(r.To, true), inPrefix(single(r.From), false))
		b.accept(out, inPrefix(single(r.From), true), inPrefix(r.To, false))
	}
}

// passOuter lets in what carries the tunnels, and what the path says of it. A
// later fragment is nothing without its first, which has the ports.
func (f *nft) passOuter(b *batch, in *nftables.Chain, v4 bool) {
	var ours []Range
	for _, a := range f.listen {
		if a.Is4() == v4 {
			ours = append(ours, Range{a, a})
		}
	}
	if len(ours) == 0 {
		return
	}
	listen := b.ranges("listen"+suffix(v4), v4, ours)
	to := inSet(listen, v4, false)
	b.acceptOuter(in, f.Mark, to, protocol(unix.IPPROTO_UDP), laterFragment(v4))
	for _, p := range outerPorts {
		b.acceptOuter(in, f.Mark, to, protocol(unix.IPPROTO_UDP), port(atDestination, p))
		for _, kind := range pathErrors[v4] {
			b.acceptOuter(in, f.Mark, to, outerError(v4, kind, p))
		}
	}
}

// batch is a transaction in the making.
type batch struct {
	conn  *nftables.Conn
	table *nftables.Table
	err   error
}

func (b *batch) chain(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return b.conn.AddChain(&nftables.Chain{Name: name, Table: b.table, Type: nftables.ChainTypeFilter, Hooknum: hook,
		Priority: priority, Policy: &accept})
}

func (b *batch) accept(c *nftables.Chain, all ...match) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: append(matching(all...), &expr.Verdict{Kind: expr.VerdictAccept})})
}

// acceptOuter gives a packet the mark that our answer to it has, too. Where the
// host filters by the reverse path and minds marks (src_valid_mark), that path is
// then the answer's, and not the tunnel's or none.
func (b *batch) acceptOuter(c *nftables.Chain, mark uint32, all ...match) {
	b.accept(c, append(all, marking(mark))...)
}

// judge leaves a packet to another chain for good.
func (b *batch) judge(c, to *nftables.Chain, all ...match) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: append(matching(all...), &expr.Verdict{Kind: expr.VerdictGoto, Chain: to.Name})})
}

// drop counts, too: nft list table shows how much would have leaked.
func (b *batch) drop(c *nftables.Chain) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
}

// ranges makes a set of addresses. Its elements go by some at a time: the length
// of one message is told in 16 bits.
func (b *batch) ranges(name string, v4 bool, ranges []Range) *nftables.Set {
	kind := nftables.TypeIP6Addr
	if v4 {
		kind = nftables.TypeIPAddr
	}
	s := &nftables.Set{Table: b.table, Name: name, KeyType: kind, Interval: true}
	b.err = errors.Join(b.err, b.conn.AddSet(s, nil))
	const some = 250
	for len(ranges) > 0 {
		n := min(some, len(ranges))
		var elements []nftables.SetElement
		for _, r := range ranges[:n] {
			elements = append(elements, nftables.SetElement{Key: r.First.AsSlice()})
			// Behind the last address nothing can begin.
			if end := r.Last.Next(); end.IsValid() {
				elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
			}
		}
		b.err = errors.Join(b.err, b.conn.SetAddElements(s, elements))
		ranges = ranges[n:]
	}
	return s
}

// Missing compares the table with what it was when it was made.
func (f *nft) Missing() (string, error) {
	now, err := f.look()
	switch {
	case err != nil:
		return "", err
	case now == nil || f.set == nil:
		return fmt.Sprintf("the nftables table inet %s", f.Name), nil
	}
	for name, handles := range f.set.rules {
		if !sameHandles(handles, now.rules[name]) {
			return fmt.Sprintf("rules of the nftables chain inet %s %s", f.Name, name), nil
		}
	}
	for name, n := range f.set.elements {
		if now.elements[name] != n {
			return fmt.Sprintf("elements of the nftables set inet %s %s", f.Name, name), nil
		}
	}
	return "", nil
}

// sameHandles reports whether the rules that we made still come first, with
// nothing before or between them.
func sameHandles(want, got []uint64) bool {
	if len(got) < len(want) {
		return false
	}
	for i, h := range want {
		if got[i] != h {
			return false
		}
	}
	return true
}

// look reads the table; nil if it is not there, or does not work.
func (f *nft) look() (*state, error) {
	tables, err := f.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	for _, t := range tables {
		const dormant = 1 // NFT_TABLE_F_DORMANT
		if t.Name == f.table(f.second).Name && t.Flags&dormant == 0 {
			return f.contents(t)
		}
	}
	return nil, nil
}

func (f *nft) contents(t *nftables.Table) (*state, error) {
	s := &state{rules: map[string][]uint64{}, elements: map[string]int{}}
	for _, name := range []string{"in", "in_covered", "out", "out_covered"} {
		rules, err := f.conn.GetRules(t, &nftables.Chain{Name: name, Table: t})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("nftables: chain %s: %w", name, err)
		}
		for _, r := range rules {
			s.rules[name] = append(s.rules[name], r.Handle)
		}
	}
	sets, err := f.conn.GetSets(t)
	if err != nil {
		return nil, fmt.Errorf("nftables: sets: %w", err)
	}
	for _, set := range sets {
		elements, err := f.conn.GetSetElements(set)
		if err != nil {
			return nil, fmt.Errorf("nftables: set %s: %w", set.Name, err)
		}
		s.elements[set.Name] = len(elements)
	}
	return s, nil
}

// delete takes a table away, if it is there.
func (f *nft) delete(second bool) error {
	t := f.table(second)
	f.conn.AddTable(t)
	f.conn.DelTable(t)
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

func (f *nft) Remove() error {
	return errors.Join(f.delete(false), f.delete(true), f.conn.CloseLasting())
}

func (f *nft) Close() error { return f.conn.CloseLasting() }

// RemoveNFTables takes away what a killed process has left.
func RemoveNFTables(o Options) error {
	f, err := NFTables(o, nil)
	if err != nil {
		return nil // the kernel has none
	}
	return f.Remove()
}
