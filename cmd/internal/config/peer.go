package config

import (
	"net/netip"

	"github.com/ikepulse/ikepulse/ike"
)

// peer is whom a connection is for.
type peer struct {
	pair
	connection string
	pins       []netip.Addr // where alone he may call from; none: anywhere
	proposals  []string
	unique     string
	asks       bool // we ask him for addresses, so he never calls
	at         Pos  // of his identity
	pos        Pos  // of the connection
}

// meeting is where a pair of identities meets.
type meeting struct {
	pair
	from netip.Addr // zero: anywhere
}

// Hosts are the addresses as the IKE side takes them.
func (p *Party) Hosts() (out []ike.Host) {
	for _, h := range p.Addresses {
		out = append(out, ike.Host(h))
	}
	return out
}

// Pins are where alone the peer may call from.
func (p *Party) Pins() []netip.Addr { return ike.Pins(p.Hosts()) }

// checkPair finds a second connection for the same two identities that nothing
// tells from the first: neither has an address that the other has not.
func (l *loader) checkPair(c *Connection, v value) {
	if c.Local.ID == (ike.Pattern{}) || c.Remote.ID == (ike.Pattern{}) {
		return
	}
	own, _ := c.Local.ID.Exact()
	p := peer{pair: pair{own, c.Remote.ID}, connection: c.Name, pins: c.Remote.Pins(), proposals: c.Proposals, unique: c.Unique, asks: len(c.VIPs) > 0,
		at: v.posOf(entry(entry(v.n, "remote"), "id")), pos: v.keyPos()}
	l.peers = append(l.peers, p)
	if len(c.Remote.Addresses) == 0 && v.has("remote", "addresses") {
		return // none of them could be read
	}
	if len(p.pins) == 0 {
		if first, twice := l.settle(netip.Addr{}, p); twice {
			v.failKey("no peer could tell it from %s at %s: the same local and remote id, and both take calls from anywhere; "+
				"remote: {addresses: …} of one of them would tell them apart (names would not)", first.connection, first.pos)
		}
		return
	}
	for _, a := range p.pins {
		if first, twice := l.settle(a, p); twice {
			v.failKey("no peer could tell it from %s at %s: the same local and remote id, and both take calls from %s", first.connection, first.pos, a)
			return
		}
	}
}

// settle takes a place for a peer, unless another has it: then it returns that.
func (l *loader) settle(from netip.Addr, p peer) (first peer, twice bool) {
	l.work++
	at := meeting{p.pair, from}
	if first, twice = l.meetings[at]; !twice {
		l.meetings[at] = p
	}
	return first, twice
}
