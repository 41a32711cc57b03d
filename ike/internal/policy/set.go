// Package policy is what a configuration means to a handshake: identities and
// their patterns, in one grammar for the config file and the wire; connections
// and secrets, and which of them a peer gets.
//
// One rule chooses both, whatever the order of the configuration: the best match
// wins. That is the exact identity of the peer, then the longest pattern, then
// %any; and at each of these what names our identity, too, before what does not.
// Only among connections that are equal by that rule does it matter where the
// peer calls from. So nobody falls through from his own connection to one for
// everybody, because he calls from elsewhere or offers the other's algorithms.
package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/ikepulse/ikepulse/ike/internal/suite"
)

// Set is the connections and secrets of a configuration, indexed so that a look-up
// costs the same for ten peers and for a million. It is made once, shared by all
// and never written.
type Set struct {
	Connections []*Connection

	byName  map[string]*Connection
	byPeer  map[Pattern][]*Connection // by RemoteID; those that call from a pinned address first, then by name
	offers  []suite.Proposal
	byAddr  map[netip.Addr][]suite.Proposal
	secrets map[pair]Secret
}

// NewSet indexes connections, no two of which have one name, and secrets.
func NewSet(conns []*Connection, secrets []Secret) *Set {
	s := &Set{Connections: conns, byName: map[string]*Connection{}, byPeer: map[Pattern][]*Connection{}, secrets: indexSecrets(secrets)}
	for _, c := range conns {
		s.byName[c.Name] = c
		s.byPeer[c.RemoteID] = append(s.byPeer[c.RemoteID], c)
	}
	for _, equals := range s.byPeer {
		slices.SortFunc(equals, func(a, b *Connection) int {
			return cmp.Or(cmp.Compare(min(len(b.Pins), 1), min(len(a.Pins), 1)), strings.Compare(a.Name, b.Name))
		})
	}
	named := slices.SortedFunc(slices.Values(conns), func(a, b *Connection) int { return strings.Compare(a.Name, b.Name) })
	s.offers, s.byAddr = offersOf(named)
	return s
}

// ByName is the connection of that name, or nil.
func (s *Set) ByName(name string) *Connection { return s.byName[name] }

// For is the connections for exactly this remote identity or pattern, in the order in
// which they are looked at.
func (s *Set) For(remote Pattern) []*Connection { return s.byPeer[remote] }

// Pinned reports whether an address is one that a peer calls from by the
// configuration.
func (s *Set) Pinned(a netip.Addr) bool {
	_, ok := s.byAddr[a]
	return ok
}

// Proposals are those that a peer at this address may choose from, before anyone
// knows who he is.
func (s *Set) Proposals(peer netip.Addr) []suite.Proposal {
	if ps, ok := s.byAddr[peer]; ok {
		return ps
	}
	return s.offers
}

// offersOf are the proposals of those who call from anywhere, and of each address
// that somebody is pinned to. The first that a peer offers, too, is taken before he
// says who he is: so not the order of the file but that of names is to say which.
func offersOf(conns []*Connection) (anywhere []suite.Proposal, byAddr map[netip.Addr][]suite.Proposal) {
	var all distinct
	at := map[netip.Addr]*distinct{}
	for _, c := range conns {
		if len(c.Pins) == 0 {
			all.add(c.Proposals)
		}
		for _, a := range c.Pins {
			if at[a] == nil {
				at[a] = &distinct{}
			}
			at[a].add(c.Proposals)
		}
	}
	byAddr = map[netip.Addr][]suite.Proposal{}
	for a, d := range at {
		d.add(all.list)
		byAddr[a] = d.list
	}
	return all.list, byAddr
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
