package directory

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
)

// holder is a pair that has SAs.
type holder struct {
	pair     Pair
	claims   []*claim  // the oldest first; without those that were told to go
	shares   [2]*share // of addresses, IPv4's and IPv6's; nil: none was ever had
	leaving  *leaving  // nil: nobody is
	probedAt mono.Time
}

// leaving is what waits for SAs that were told to go.
type leaving struct {
	sas     int
	answers []Order
}

// claim is one SA of a pair.
type claim struct {
	spi      uint64
	holder   *holder
	conn     *policy.Connection
	since    mono.Time
	leases   [2]*lease // one a family
	from     endpoint
	ours     bool
	leaving  bool
	carrying bool // its Child SA is up
}

// endpoint is where a peer is, without a pointer.
type endpoint struct {
	addr [16]byte
	port uint16
}

func endpointOf(a netip.AddrPort) endpoint { return endpoint{a.Addr().As16(), a.Port()} }

// Admit enters an SA, or refuses it. Where it takes the place of others it is answered
// when they are gone: so no data plane meets two SAs for the same traffic.
func (d *Directory) Admit(now mono.Time, r Request) []Order {
	pair := PairOf(r.Conn, r.Peer, r.From.Addr())
	h := d.pairs[pair]
	if h == nil {
		h = &holder{pair: pair}
	}
	orders := h.makeRoom(&r)
	if rule := h.refuses(&r); rule != policy.Accepted {
		return append(append(orders, h.probe(now)...), Order{SPI: r.SPI, Do: Answer, Admission: Admission{Rule: rule}})
	}
	d.pairs[pair] = h
	c := &claim{spi: r.SPI, holder: h, conn: r.Conn, ours: r.Ours, from: endpointOf(r.From), since: now}
	answer := Order{SPI: r.SPI, Do: Answer, Admission: d.lease(c, r.Want)}
	if answer.Rule == policy.TooManyLeases {
		orders = append(orders, h.probe(now)...)
	}
	h.claims = append(h.claims, c)
	d.claims[r.SPI] = c
	if h.leaving != nil {
		h.leaving.answers = append(h.leaving.answers, answer)
		return orders
	}
	return append(orders, answer)
}

// makeRoom tells those to go whose place the new SA takes.
func (h *holder) makeRoom(r *Request) (orders []Order) {
	for _, c := range slices.Clone(h.claims) {
		switch {
		case r.contacts(c):
			orders = append(orders, Order{SPI: c.spi, Do: Replace})
		case r.Conn.Unique == policy.UniqueReplace && r.speaksFor(c) && (c.since < r.Began || c.ours == r.Ours):
			orders = append(orders, Order{SPI: c.spi, Do: Displace})
		default:
			continue
		}
		h.dismiss(c)
	}
	return orders
}

// contacts reports whether the peer says, and may, that he does not know of an SA.
// What he has brought up since his handshake began he knows, whatever the order in
// which the network has brought that. RFC 7296 §2.4
func (r *Request) contacts(c *claim) bool {
	return r.InitialContact && r.Conn.Unique != policy.UniqueNever && c.since < r.Began && r.speaksFor(c)
}

// speaksFor reports whether an SA of the pair is the peer's own. A stranger speaks for
// the endpoint that he calls from: at another of the same address is somebody else.
func (r *Request) speaksFor(c *claim) bool {
	return !stranger(r.Conn, r.Peer) || c.from == endpointOf(r.From)
}

// refuses is the rule by which a call of the peer is refused, if it is. Ours are
// bounded by the configuration.
func (h *holder) refuses(r *Request) policy.Rule {
	older := func(c *claim) bool { return r.speaksFor(c) && (c.since < r.Began || !c.ours) }
	switch {
	case r.Ours:
	case r.Conn.Unique == policy.UniqueKeep && slices.ContainsFunc(h.claims, older):
		return policy.NotUnique
	case len(h.claims) >= r.Conn.MaxSAs:
		return policy.TooManySAs
	}
	return policy.Accepted
}

// probePause is how often a pair's SAs are probed because another one is refused.
const probePause = 10 * time.Second

// probe asks after the SAs of somebody who has his share: he may have forgotten them.
func (h *holder) probe(now mono.Time) (orders []Order) {
	if now.Sub(h.probedAt) < probePause {
		return nil
	}
	h.probedAt = now
	for _, c := range h.claims {
		orders = append(orders, Order{SPI: c.spi, Do: Probe})
	}
	return orders
}

// dismiss takes note that an SA was told to go. It will leave, as every SA does; its
// addresses are there for the one that takes its place.
func (h *holder) dismiss(c *claim) {
	h.drop(c)
	c.leaving = true
	if h.leaving == nil {
		h.leaving = &leaving{}
	}
	h.leaving.sas++
}

func (h *holder) drop(c *claim) {
	h.claims = slices.DeleteFunc(h.claims, func(o *claim) bool { return o == c })
	h.unshare(c)
}

// unshare leaves an SA's addresses to the pair's others.
func (h *holder) unshare(c *claim) {
	for family, l := range c.leases {
		if l != nil {
			h.shares[family].unshare(l)
		}
	}
}

// release ends what an SA has of addresses.
func (c *claim) release() {
	for _, l := range c.leases {
		if l != nil {
			l.release()
		}
	}
	c.leases = [2]*lease{}
}

// Leave ends an SA's admission, if it was admitted.
func (d *Directory) Leave(spi uint64) []Order {
	c := d.claims[spi]
	if c == nil {
		return nil
	}
	delete(d.claims, spi)
	h := c.holder
	if c.leaving {
		h.leaving.sas--
	} else {
		h.drop(c)
	}
	c.release()
	return d.settle(h)
}

// ReturnLeases ends what an SA has of addresses, and not its admission.
func (d *Directory) ReturnLeases(spi uint64) {
	if c := d.claims[spi]; c != nil {
		if !c.leaving {
			c.holder.unshare(c)
		}
		c.release()
	}
}

// settle gives the answers that nobody has to be waited for any more, and forgets a
// pair that has no SA.
func (d *Directory) settle(h *holder) (orders []Order) {
	if h.leaving != nil {
		if h.leaving.sas > 0 {
			return nil
		}
		orders, h.leaving = h.leaving.answers, nil
	}
	if len(h.claims) == 0 {
		delete(d.pairs, h.pair)
	}
	return orders
}

// Carries takes note that an SA's Child SA is up, or has gone. Where a pair has called
// each other at once, both calls come up: then the one that was begun by the lower
// identity stays, by the same rule at both ends, and who has begun the other deletes
// it.
func (d *Directory) Carries(spi uint64, up bool) []Order {
	c := d.claims[spi]
	if c == nil {
		return nil
	}
	c.carrying = up
	if !c.holder.pair.higher {
		return nil // ours stays, and the peer deletes his
	}
	var ours, his *claim
	for _, o := range c.holder.claims {
		switch {
		case !o.carrying || o.conn != c.conn:
		case o.ours:
			ours = o
		default:
			his = o
		}
	}
	if ours == nil || his == nil {
		return nil
	}
	return []Order{{SPI: ours.spi, Do: Uncross}}
}
