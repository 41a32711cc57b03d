package directory

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/pool"
)

// addresses are one pool's.
type addresses struct {
	conf Pool
	pool *pool.Pool
}

// share is what a pair has of the addresses of a family. Each is leased under an
// ordinal, from 0: so several devices of one identity have addresses of their own, and
// one that comes again has its address again.
type share struct {
	next int   // the lowest ordinal that was never used
	free []int // those below that are free again, the latest last
}

func (s *share) taken() int { return s.next - len(s.free) }

// share is what the pair has of a family.
func (h *holder) share(family int) *share {
	if h.shares[family] == nil {
		h.shares[family] = &share{}
	}
	return h.shares[family]
}

// lease is an address that an SA has, or two: the one that a peer is about to end, and
// the one that he has made in its place from the same endpoint.
type lease struct {
	from *addresses
	pool.Lease
	ordinal int32
	users   int32 // SAs that have it and were not told to go
	held    int32 // all that have it
}

// lease gives the addresses that are wanted.
func (d *Directory) lease(c *claim, want []netip.Addr) (a Admission) {
	for _, w := range want {
		l, rule := d.leaseOne(c, w)
		if l == nil {
			a.Rule = max(a.Rule, rule)
			continue
		}
		l.users++
		l.held++
		c.leases[familyOf(w)] = l
		a.Addrs = append(a.Addrs, l.Addr)
		a.DNS = append(a.DNS, l.from.dnsFor(l.Addr)...)
		a.Domains = append(a.Domains, l.from.domainsFor(l.Addr)...)
	}
	if len(a.Addrs) > 0 {
		a.Rule = policy.Accepted
	}
	return a
}

// leaseOne gives the address that the same peer has at the same endpoint, or else one
// from the first pool that has one.
func (d *Directory) leaseOne(c *claim, want netip.Addr) (*lease, policy.Rule) {
	h, family := c.holder, familyOf(want)
	if l := h.beside(c, family); l != nil {
		return l, policy.Accepted
	}
	share := h.share(family)
	if share.taken() >= c.conn.MaxLeases {
		return nil, policy.TooManyLeases
	}
	for _, name := range c.conn.Pools {
		from := d.pools[name]
		ordinal := h.ordinal(share, from, want)
		if l, ok := from.pool.Lease(h.pair.leaseName(ordinal), want); ok {
			share.take(ordinal)
			return &lease{ordinal: int32(ordinal), from: from, Lease: l}, policy.Accepted
		}
	}
	return nil, policy.NoAddress
}

// beside is the newest lease of an SA of the same peer at the same endpoint: he
// makes the new one before he breaks the old, and keeps his address.
func (h *holder) beside(c *claim, family int) *lease {
	for _, o := range slices.Backward(h.claims) {
		if o.from != c.from {
			continue
		}
		if l := o.leases[family]; l != nil && slices.Contains(c.conn.Pools, l.from.conf.Name) {
			return l
		}
	}
	return nil
}

// mostAsked is how many of a pair's former addresses are compared with the one that
// is asked for.
const mostAsked = 16

// ordinal is a free one: the one whose address is asked for, or the latest, or a new one.
func (h *holder) ordinal(s *share, from *addresses, want netip.Addr) int {
	for _, o := range slices.Backward(s.free[max(0, len(s.free)-mostAsked):]) {
		if from.pool.Holds(h.pair.leaseName(o), want) {
			return o
		}
	}
	for o := s.next; o < s.next+mostAsked; o++ {
		if from.pool.Holds(h.pair.leaseName(o), want) {
			return o
		}
	}
	if len(s.free) > 0 {
		return s.free[len(s.free)-1]
	}
	return s.next
}

// take makes a free ordinal no longer free. Those below it that were passed over are.
func (s *share) take(ordinal int) {
	for ; s.next <= ordinal; s.next++ {
		s.free = append(s.free, s.next)
	}
	at := slices.Index(s.free, ordinal)
	s.free = slices.Delete(s.free, at, at+1)
}

// unshare takes note that one of the SAs that have a lease has it no more, or was told
// to go.
func (s *share) unshare(l *lease) {
	if l.users--; l.users == 0 {
		s.free = append(s.free, int(l.ordinal))
	}
}

// release ends one SA's part in a lease. If it was the last, and nobody has taken the
// address over, it is the pool's again.
func (l *lease) release() {
	if l.held--; l.held == 0 {
		l.from.pool.Release(l.Lease)
	}
}

// leaseName is whom the pool remembers an address for.
func (p Pair) leaseName(ordinal int) string { return fmt.Sprintf("%s#%d", p.name, ordinal) }

// dnsFor are the pool's servers of an address's family.
func (p *addresses) dnsFor(a netip.Addr) (out []netip.Addr) {
	for _, s := range p.conf.DNS {
		if s.Is4() == a.Is4() {
			out = append(out, s)
		}
	}
	return out
}

// domainsFor are the pool's domains, for the servers of an address's family.
func (p *addresses) domainsFor(a netip.Addr) (out []policy.Domain) {
	for _, name := range p.conf.Domains {
		out = append(out, policy.Domain{Name: name, IPv6: a.Is6()})
	}
	return out
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
