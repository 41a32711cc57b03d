// Package pool leases virtual addresses to identities.
//
// An identity has at most one lease of each family, and while it has one it is
// given the same address again: that is how a peer who comes back (RFC 7296
// §2.4, INITIAL_CONTACT) keeps his address although his old SA has not been
// cleared away yet. Each Lease carries a fresh generation, and only the latest
// one of an address can be released, so the old SA's late Release does nothing.
//
// A released address rests: it is kept for its last holder as long as others
// are to be had and it is among the latest so many. Everything is O(1),
// whatever the size of the prefixes, and memory follows the number of leases
// and of remembered holders. Holders are kept as digests, so a long identity
// costs as much as a short one, and the garbage collector finds no pointer.
package pool

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
)

// Pool leases addresses. It is owned by one goroutine.
type Pool struct {
	v4, v6     space
	generation uint64
}

// Lease is an address in somebody's hands. It is a plain value.
type Lease struct {
	Addr       netip.Addr
	Generation uint64
}

// New returns a pool over prefixes of either family, which may not overlap. It
// remembers the holders of at most so many released addresses of a family.
//
// The network and the broadcast address of an IPv4 prefix are not leased,
// except from /31 and /32, nor is the subnet-router anycast address of an IPv6
// prefix (RFC 4291 §2.6.1), except from /127 and /128.
func New(prefixes []netip.Prefix, remember int) (*Pool, error) {
	p := &Pool{v4: newSpace(remember), v6: newSpace(remember)}
	for i, prefix := range prefixes {
		if !prefix.IsValid() || prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("%v is not a prefix of addresses", prefix)
		}
		for _, other := range prefixes[:i] {
			if prefix.Overlaps(other) {
				return nil, fmt.Errorf("%v overlaps %v", prefix, other)
			}
		}
		s := &p.v6
		if prefix.Addr().Is4() {
			s = &p.v4
		}
		s.add(prefix)
	}
	return p, nil
}

// Lease gives identity an address of the family of want: the one it holds, or
// else want itself if that is free, or else the one it held last, or else any.
// An address that rests for somebody else is not free to be asked for. A want
// that is unspecified (0.0.0.0 or ::) only names the family. It is false when
// the pool has no address of that family left.
func (p *Pool) Lease(identity string, want netip.Addr) (Lease, bool) {
	s := p.family(want)
	index, ok := s.lease(digest(identity), want)
	if !ok {
		return Lease{}, false
	}
	p.generation++
	s.records[index].generation = p.generation
	return Lease{s.records[index].addr(), p.generation}, true
}

// Holds reports whether an address is the one that identity holds, or held last.
func (p *Pool) Holds(identity string, a netip.Addr) bool {
	s := p.family(a)
	index, ok := s.holders[digest(identity)]
	return ok && s.records[index].addr() == a
}

// Release ends a lease. It does nothing, and is false, if the lease is not the
// latest of its address.
func (p *Pool) Release(l Lease) bool {
	return p.family(l.Addr).release(l)
}

// Live is the number of leases.
func (p *Pool) Live() int { return p.v4.live + p.v6.live }

func (p *Pool) family(a netip.Addr) *space {
	if a.Is4() {
		return &p.v4
	}
	return &p.v6
}

// holder is an identity's digest: too long to be met twice by accident or
// design, or somebody would get another's address.
type holder [sha256.Size]byte

func digest(identity string) holder { return sha256.Sum256([]byte(identity)) }
