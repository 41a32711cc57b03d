// Package directory knows which pair of identities has which SAs and which leases,
// whatever shard they are in: so it decides who may have another one, who has to go,
// and who gets which virtual address. It is pure: requests and the time go in, and
// what the SAs are to be told comes out. One goroutine owns it.
//
// What it goes by is the pair of our identity and the one that the peer has proved.
// A peer who is known by a private address, such as Windows', and whom a pattern
// matches, is known together with where he calls from: strangers in many networks
// have the same one. Behind a carrier's NAT they call from one address, too, and have
// its share together; none speaks for another.
package directory

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/pool"
)

// Directory is that of one gateway.
type Directory struct {
	pools  map[string]*addresses
	claims map[uint64]*claim // by the SA's SPI
	pairs  map[Pair]*holder
	calls  map[Pair]int // handshakes of ours that are open
}

// Pool is a range of virtual addresses.
type Pool struct {
	Name     string
	Prefixes []netip.Prefix
	DNS      []netip.Addr
	Domains  []string // that the DNS servers are asked for
}

// Pair is our identity and a peer's. It is what a million peers are found by, so it is
// small.
type Pair struct {
	name   string // no two have the same
	higher bool   // our identity is the higher of the two
}

// PairOf is the pair of a peer who has proved his identity, and calls from an address.
func PairOf(conn *policy.Connection, peer policy.ID, from netip.Addr) Pair {
	own := conn.LocalID
	name := fmt.Appendf(nil, "%d,%d:%s%d,%d:%s", own.Kind, len(own.Data), own.Data, peer.Kind, len(peer.Data), peer.Data)
	if stranger(conn, peer) {
		name = from.AppendTo(name)
	}
	return Pair{string(name), own.Compare(peer) > 0}
}

// stranger reports whether a peer has an identity that others have, too.
func stranger(conn *policy.Connection, peer policy.ID) bool {
	a, _ := peer.Addr()
	_, exact := conn.RemoteID.Exact()
	return private(a) && !exact
}

// shared are addresses that many hosts have, beside those of private networks and of a
// link: those between a carrier's NAT and its customers, RFC 6598, and those of hosts
// that have IPv6 alone, RFC 7335.
var shared = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/29")}

// private reports whether an address is one that many hosts have.
func private(a netip.Addr) bool {
	return a.IsUnspecified() || a.IsPrivate() || a.IsLinkLocalUnicast() ||
		slices.ContainsFunc(shared, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Request asks for an SA's admission, whose peer is authenticated.
type Request struct {
	SPI            uint64 // ours, of all the gateway's SAs
	Conn           *policy.Connection
	Peer           policy.ID
	From           netip.AddrPort // where the peer is
	Ours           bool           // we have called
	Began          mono.Time      // when the handshake did
	InitialContact bool
	Want           []netip.Addr // one a family asked for; unspecified: any of it
}

// Admission is the answer. Where the rule is not Accepted, the SA is refused, or, if
// the rule is of a Child SA, stands without one.
type Admission struct {
	Rule    policy.Rule
	Addrs   []netip.Addr // leased, one for each that was wanted and can be had
	DNS     []netip.Addr
	Domains []policy.Domain
}

// Order is what an SA is told.
type Order struct {
	SPI uint64
	Do  Act
	Admission
}

// Act is what an order says.
type Act uint8

const (
	Answer   Act = iota // the SA's admission
	Replace             // its peer has begun anew, and knows of it no more
	Displace            // another SA takes its place: its peer is told
	Uncross             // we have called each other at once, and his call is the one that stays
	Probe               // is its peer still there?
)

// rememberLeases is how many former holders a pool keeps an address for.
const rememberLeases = 1 << 16

// New makes a directory in which nobody is.
func New(pools []Pool) (*Directory, error) {
	d := &Directory{pools: map[string]*addresses{}, claims: map[uint64]*claim{}, pairs: map[Pair]*holder{}, calls: map[Pair]int{}}
	for _, p := range pools {
		made, err := pool.New(p.Prefixes, rememberLeases)
		if err != nil {
			return nil, fmt.Errorf("pool %s: %w", p.Name, err)
		}
		d.pools[p.Name] = &addresses{p, made}
	}
	return d, nil
}

// Calls counts the handshakes of ours with a pair that are open.
func (d *Directory) Calls(p Pair, more int) {
	if d.calls[p] += more; d.calls[p] == 0 {
		delete(d.calls, p)
	}
}

// Alone reports whether a handshake of ours is all that there is between a pair: only
// then INITIAL_CONTACT is true. RFC 7296 §2.4
func (d *Directory) Alone(p Pair) bool { return d.pairs[p] == nil && d.calls[p] <= 1 }

// Moved takes note of where the peer of an SA is now.
func (d *Directory) Moved(spi uint64, to netip.AddrPort) {
	if c := d.claims[spi]; c != nil {
		c.from = endpointOf(to)
	}
}

// Leases is how many addresses each pool has given.
func (d *Directory) Leases() map[string]int {
	out := map[string]int{}
	for name, p := range d.pools {
		out[name] = p.pool.Live()
	}
	return out
}
