package policy

import (
	"net/netip"
	"slices"

	"github.com/ikepulse/ikepulse/ike/internal/suite"
)

// Claim is how a peer presents himself, before he has proved anything.
type Claim struct {
	ID    ID
	Asked ID // which of us he wants, zero: he did not say. RFC 7296 §1.2
	From  netip.Addr
}

// Match is the connection for a peer, and the key that is to prove him. Where rule
// is not Accepted it is refused: then the connection is the one that he would have
// had, or nil, and there is no key.
func (s *Set) Match(claim Claim, chosen suite.Choice) (conn *Connection, psk []byte, rule Rule) {
	conn, rule = s.Find(claim)
	if rule != Accepted {
		return conn, nil, rule
	}
	if !conn.Allows(chosen) {
		return conn, nil, NoSuite
	}
	psk, ok := s.Secret(conn.LocalID, claim.ID)
	if !ok {
		return conn, nil, NoSecret
	}
	return conn, psk, Accepted
}

// Find is the connection for a peer, whatever he offers.
func (s *Set) Find(claim Claim) (*Connection, Rule) {
	known := false
	for remote := range Only(claim.ID).Wider {
		equals := s.byPeer[remote]
		known = known || len(equals) > 0
		if conn, rule := choose(equals, claim); conn != nil {
			return conn, rule
		}
	}
	if known {
		return nil, NoOwnIdentity
	}
	return nil, NoIdentity
}

// choose is the best of connections that match the peer equally well: that for his
// address, then one that has none. If there is only one for another address, it is
// his, and refuses him. nil: there is none as whom he asked for.
func choose(equals []*Connection, claim Claim) (conn *Connection, rule Rule) {
	for _, c := range equals {
		if claim.Asked != (ID{}) && claim.Asked != c.LocalID {
			continue
		}
		if c.takes(claim.From) {
			return c, Accepted
		}
		if conn == nil {
			conn, rule = c, WrongAddress
		}
	}
	return conn, rule
}

// Ours are we to a peer: the identities that his connections have for us.
func (s *Set) Ours(peer ID) (out []ID) {
	for remote := range Only(peer).Wider {
		for _, c := range s.byPeer[remote] {
			if !slices.Contains(out, c.LocalID) {
				out = append(out, c.LocalID)
			}
		}
	}
	return out
}
