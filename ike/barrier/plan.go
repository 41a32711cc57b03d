// Package barrier keeps what a tunnel covers from leaving or entering in the
// clear, whether the tunnel is up, dead or not yet called.
//
// A [Plan] says of every address whether a tunnel covers it; it is made from the
// configuration and from what the host has, and made anew when that changes.
// Two barriers follow it, each enough alone: the routes of ike/tun, and a
// [Filter] of packets, which is nftables or, where the kernel has none, policies
// of XFRM.
package barrier

import (
	"cmp"
	"net/netip"
	"slices"
	"sync/atomic"
)

// Config is what the configuration says, in prefixes without host bits.
// Selectors that depend on a peer's address ("dynamic") are left out: they cover
// nothing.
type Config struct {
	Tunnels []Tunnel
	Pools   []netip.Prefix // of virtual addresses of the peers
	Bypass  []netip.Prefix // never into a tunnel
	Peers   []netip.Addr   // outer addresses of peers, as far as they are written down
	Listen  []netip.Addr   // our own outer addresses
	Pass    bool           // what is covered may go in the clear while no tunnel takes it
}

// Tunnel is one configured child.
type Tunnel struct {
	Name          string
	Local, Remote []netip.Prefix
}

// Verdict is what becomes of the packets of an address.
type Verdict uint8

const (
	Free    Verdict = iota // no tunnel covers it
	Covered                // only by a tunnel, or not at all
	Spared                 // a tunnel covers it, and it stays outside
	// Next is a next hop whose address somebody else chose: the kernel may find
	// it outside of the tunnel, and no packet goes to it.
	Next
)

// Plan has the verdict of every address: that of the longest prefix. It is not
// changed once it is made.
type Plan struct {
	number   uint64
	verdicts map[netip.Prefix]Verdict
	lengths  [2][129]int // how many prefixes there are of each length, by family
	names    map[netip.Prefix]string
	// Replies are networks that we answer from one address of ours, though a
	// tunnel covers them.
	Replies []Reply
	Hidden  []Hidden
	Pass    bool // as in Config
}

// Reply is what may pass between an outer address of ours and its neighbours.
type Reply struct {
	From netip.Addr
	To   netip.Prefix
}

// Hidden is an attached network whose hosts cannot be reached, since a tunnel
// covers it.
type Hidden struct {
	Attached
	Tunnel string
	Remote netip.Prefix // of that tunnel
}

// made is how many plans there have been.
var made atomic.Uint64

// Number tells a plan from every other one; that of an empty one is 0.
func (p *Plan) Number() uint64 { return p.number }

// linkScope never leaves a link, so that no tunnel can be meant: link-local
// addresses, the multicast and broadcast of one link.
var linkScope = []netip.Prefix{
	netip.MustParsePrefix("224.0.0.0/24"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff01::/16"), netip.MustParsePrefix("ff02::/16"),
}

// Plan makes the plan for a host.
func (c *Config) Plan(h Host) *Plan {
	p := &Plan{number: made.Add(1), Pass: c.Pass, verdicts: map[netip.Prefix]Verdict{}, names: map[netip.Prefix]string{}}
	for _, pool := range c.Pools {
		p.set(pool, Covered)
	}
	for _, nested := range []bool{false, true} {
		for _, t := range c.Tunnels {
			p.cover(t, nested)
		}
	}
	for _, t := range c.Tunnels {
		p.spareOwn(t)
	}
	for _, s := range linkScope {
		p.exempt(s)
	}
	for _, b := range c.Bypass {
		p.exempt(b)
	}
	// The peers of a tunnel between two hosts are what it covers.
	for _, a := range c.Peers {
		if host := single(a); p.verdicts[host] != Covered {
			p.exempt(host)
		}
	}
	for _, n := range h.NextHops {
		p.hop(n)
	}
	for _, a := range h.Attached {
		p.attach(c, a)
	}
	return p
}

// single is the prefix of one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// cover takes the networks to which a tunnel leads: first those that are not
// nested in another of it, and then the others. Peers agree about the wider one
// alone, which then is for both.
func (p *Plan) cover(t Tunnel, nested bool) {
	for _, r := range t.Remote {
		if nested != slices.ContainsFunc(t.Remote, func(w netip.Prefix) bool { return w.Bits() < r.Bits() && w.Contains(r.Addr()) }) {
			continue
		}
		if _, by := p.at(r); nested && slices.Contains(t.Remote, by) {
			continue
		}
		p.set(r, Covered)
		p.names[r] = t.Name
	}
}

// spareOwn keeps our networks out of the tunnel to a wider one that they are
// part of. What lies in a pool, or behind another tunnel, is not ours, though we
// speak for it: a tunnel that passes on what some of our clients send has them as
// its local side.
func (p *Plan) spareOwn(t Tunnel) {
	for _, own := range t.Local {
		if v, by := p.at(own); v == Covered && by != own && slices.Contains(t.Remote, by) {
			p.set(own, Spared)
		}
	}
}

// exempt spares a prefix that some tunnel covers.
func (p *Plan) exempt(x netip.Prefix) {
	if v, _ := p.at(x); v == Covered {
		p.set(x, Spared)
	}
}

// hop keeps a next hop out of the tunnel. A public address that a network has
// pushed may be that of anybody: the network would get what is meant for him.
func (p *Plan) hop(n NextHop) {
	host := single(n.Addr)
	switch {
	case p.At(host) != Covered:
	case n.Pushed && !ofNeighbours(n.Addr):
		p.set(host, Next)
	default:
		p.set(host, Spared)
	}
}

// ofNeighbours reports whether only a neighbour can have an address.
func ofNeighbours(a netip.Addr) bool { return a.IsPrivate() || a.IsLinkLocalUnicast() }

// attach decides about a network that the host is on. Only a tunnel to
// everywhere leaves it alone, and only where nobody but a neighbour can be meant:
// whoever runs the network chose its addresses.
func (p *Plan) attach(c *Config, a Attached) {
	v, by := p.at(a.Network)
	switch {
	case v != Covered:
	case by.Bits() > 0:
		p.Hidden = append(p.Hidden, Hidden{a, p.names[by], by})
	case ofNeighbours(a.Network.Addr()):
		p.set(a.Network, Spared)
	case a.Permanent && slices.Contains(c.Listen, a.Address) && c.everywhere(a.Address):
		p.Replies = append(p.Replies, Reply{a.Address, a.Network})
	}
}

// everywhere reports whether a tunnel is for all addresses of a's family, at
// both ends: then also our outer addresses lie in it, and yet have to answer.
func (c *Config) everywhere(a netip.Addr) bool {
	all := func(p netip.Prefix) bool { return p.Bits() == 0 && p.Addr().Is4() == a.Is4() }
	return slices.ContainsFunc(c.Tunnels, func(t Tunnel) bool {
		return slices.ContainsFunc(t.Local, all) && slices.ContainsFunc(t.Remote, all)
	})
}

func (p *Plan) set(x netip.Prefix, v Verdict) {
	if p.verdicts[x] == Free {
		p.count(x)[x.Bits()]++
	}
	p.verdicts[x] = v
}

// count has the lengths of x's family.
func (p *Plan) count(x netip.Prefix) *[129]int {
	if x.Addr().Is4() {
		return &p.lengths[0]
	}
	return &p.lengths[1]
}

// At is the verdict for a prefix as a whole; a longer one within it may have
// another.
func (p *Plan) At(x netip.Prefix) Verdict {
	v, _ := p.at(x)
	return v
}

// Tunnel is how long the prefix of a tunnel must at least be that may carry the
// packets of an address: that of a wider one is not for it, whether or not
// another is up. What stays outside is for none.
func (p *Plan) Tunnel(a netip.Addr) (bits int, ok bool) {
	switch v, by := p.at(single(a)); v {
	case Free:
		return 0, true
	case Covered:
		return by.Bits(), true
	}
	return 0, false
}

func (p *Plan) at(x netip.Prefix) (Verdict, netip.Prefix) {
	lengths := p.count(x)
	for bits := x.Bits(); bits >= 0; bits-- {
		if lengths[bits] == 0 {
			continue
		}
		wider, _ := x.Addr().Prefix(bits) // cannot fail for that many bits
		if v := p.verdicts[wider]; v != Free {
			return v, wider
		}
	}
	return Free, netip.Prefix{}
}

// Verdicts are the prefixes that have one of their own.
func (p *Plan) Verdicts() map[netip.Prefix]Verdict { return p.verdicts }

// Networks is how many prefixes tunnels cover.
func (p *Plan) Networks() (n int) {
	for _, v := range p.verdicts {
		if v == Covered {
			n++
		}
	}
	return n
}

// Covers reports whether tunnels cover anything of a family.
func (p *Plan) Covers(v4 bool) bool {
	for x, v := range p.verdicts {
		if v == Covered && x.Addr().Is4() == v4 {
			return true
		}
	}
	return false
}

// Equal reports whether two plans say the same.
func (p *Plan) Equal(q *Plan) bool {
	if len(p.verdicts) != len(q.verdicts) || !slices.Equal(p.Replies, q.Replies) || !slices.Equal(p.Hidden, q.Hidden) {
		return false
	}
	for x, v := range p.verdicts {
		if q.verdicts[x] != v {
			return false
		}
	}
	return true
}

// Range is the addresses from First to Last, both included.
type Range struct{ First, Last netip.Addr }

// Ranges are the covered addresses of one family, in order, with gaps between
// them.
func (p *Plan) Ranges(v4 bool) []Range {
	var prefixes []netip.Prefix
	for x := range p.verdicts {
		if x.Addr().Is4() == v4 {
			prefixes = append(prefixes, x)
		}
	}
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	f := flattener{plan: p}
	for _, x := range prefixes {
		f.closeBefore(x.Addr())
		f.upTo(x.Addr())
		f.open, f.at = append(f.open, x), x.Addr()
	}
	f.closeBefore(netip.Addr{})
	return f.ranges
}

// flattener walks over nested prefixes, in order, the wider before the narrower.
type flattener struct {
	plan   *Plan
	open   []netip.Prefix // around the place where we are, the innermost last
	at     netip.Addr     // where we are; not valid behind the last address
	ranges []Range
}

// upTo adds what lies between where we are and next, which has the verdict of
// the innermost prefix.
func (f *flattener) upTo(next netip.Addr) {
	if len(f.open) > 0 && f.at.Less(next) {
		f.add(f.at, next.Prev())
	}
}

// closeBefore leaves the prefixes that end before next; all, if it is not valid.
func (f *flattener) closeBefore(next netip.Addr) {
	for len(f.open) > 0 {
		last := LastOf(f.open[len(f.open)-1])
		if next.IsValid() && !last.Less(next) {
			return
		}
		if f.at.IsValid() && !last.Less(f.at) {
			f.add(f.at, last)
			f.at = last.Next()
		}
		f.open = f.open[:len(f.open)-1]
	}
}

func (f *flattener) add(first, last netip.Addr) {
	if f.plan.verdicts[f.open[len(f.open)-1]] == Spared {
		return
	}
	if n := len(f.ranges); n > 0 && f.ranges[n-1].Last.Next() == first {
		f.ranges[n-1].Last = last
		return
	}
	f.ranges = append(f.ranges, Range{first, last})
}

// LastOf is the highest address of a prefix.
func LastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
