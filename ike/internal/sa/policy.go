package sa

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ikepulse/ikepulse/ike/internal/suite"
)

// Secret is a pre-shared key and whom it is shared with. A peer's own identity
// is looked for first, then a pattern that fits it, then our identity.
type Secret struct {
	ID  Pattern
	PSK []byte
}

// Format keeps the key out of logs, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "[secret of %v]", s.ID) }

// MarshalJSON does for a log in JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(s)) }

// Policy is what the configuration allows: connections and secrets, indexed so
// that a look-up costs the same for ten peers and for a million. It is built
// once, shared by all shards and never written.
type Policy struct {
	Conns []*Conn

	byName   map[string]*Conn
	byPeer   map[ID][]*Conn // RemoteID is exactly this
	wild     []*Conn        // RemoteID is a wildcard
	offers   []suite.Proposal
	byAddr   map[netip.Addr][]suite.Proposal
	secrets  map[ID][]byte
	wildPSKs []Secret
}

// Format keeps the keys out of logs, whatever the verb.
func (p Policy) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "[policy of %d connections]", len(p.Conns))
}

// NewPolicy indexes the connections and sets their Index.
func NewPolicy(conns []*Conn, secrets []Secret) *Policy {
	p := &Policy{Conns: conns, byName: map[string]*Conn{}, byPeer: map[ID][]*Conn{},
		byAddr: map[netip.Addr][]suite.Proposal{}, secrets: map[ID][]byte{}}
	var all distinct
	at := map[netip.Addr]*distinct{}
	for i, c := range conns {
		c.Index = uint32(i)
		p.byName[c.Name] = c
		if id, ok := c.RemoteID.Exact(); ok {
			p.byPeer[id] = append(p.byPeer[id], c)
		} else {
			p.wild = append(p.wild, c)
		}
		if len(c.Remotes) == 0 {
			all.add(c.Proposals)
		}
		for _, a := range c.Remotes {
			if at[a] == nil {
				at[a] = &distinct{}
			}
			at[a].add(c.Proposals)
		}
	}
	p.offers = all.list
	for a, d := range at {
		d.add(all.list)
		p.byAddr[a] = d.list
	}
	for _, s := range secrets {
		if id, ok := s.ID.Exact(); ok {
			p.secrets[id] = s.PSK
		} else {
			p.wildPSKs = append(p.wildPSKs, s)
		}
	}
	return p
}

// distinct collects proposals, each once, in the order of their first use.
type distinct struct {
	list []suite.Proposal
	seen map[string]bool
}

func (d *distinct) add(ps []suite.Proposal) {
	if d.seen == nil {
		d.seen = map[string]bool{}
	}
	for _, p := range ps {
		if name := p.String(); !d.seen[name] {
			d.seen[name] = true
			d.list = append(d.list, p)
		}
	}
}

// ByName is the connection of that name, or nil.
func (p *Policy) ByName(name string) *Conn { return p.byName[name] }

// proposals are those that a peer at this address may choose from, before
// anyone knows who he is.
func (p *Policy) proposals(peer netip.Addr) []suite.Proposal {
	if ps, ok := p.byAddr[peer]; ok {
		return ps
	}
	return p.offers
}

// match finds the connection for an identity: an exact one before a wildcard,
// in the order of the configuration. want is the IDr that the peer asked for,
// nil if he did not.
func (p *Policy) match(peer netip.Addr, id ID, want *ID, chosen suite.Choice) *Conn {
	for _, list := range [][]*Conn{p.byPeer[id], p.wild} {
		for _, c := range list {
			if c.RemoteID.Match(id) && (want == nil || *want == c.LocalID) && c.from(peer) && c.allows(chosen) {
				return c
			}
		}
	}
	return nil
}

// secret is the key shared by the two identities.
func (p *Policy) secret(peer, own ID) ([]byte, bool) {
	if psk, ok := p.secrets[peer]; ok {
		return psk, true
	}
	for _, s := range p.wildPSKs {
		if s.ID.Match(peer) {
			return s.PSK, true
		}
	}
	psk, ok := p.secrets[own]
	return psk, ok
}

func (c *Conn) from(peer netip.Addr) bool {
	return len(c.Remotes) == 0 || slices.Contains(c.Remotes, peer)
}

// allows tells that one of the connection's proposals contains the choice.
func (c *Conn) allows(ch suite.Choice) bool {
	return slices.ContainsFunc(c.Proposals, func(p suite.Proposal) bool {
		return slices.Contains(p.Encr, suite.EncrKey{ID: ch.Encr, KeyBits: ch.KeyBits}) &&
			(ch.Integ == 0 || slices.Contains(p.Integ, ch.Integ)) &&
			slices.Contains(p.PRF, ch.PRF) && slices.Contains(p.KE, ch.KE)
	})
}

// groups are the key exchange groups of the connection, first choice first.
func (c *Conn) groups() []uint16 {
	var out []uint16
	for _, p := range c.Proposals {
		for _, g := range p.KE {
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	return out
}
