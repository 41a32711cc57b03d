package policy

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/dpd"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Connection is what is agreed with one peer, or with many alike. It is a value
// that everybody shares who has to do with it, and is never written.
type Connection struct {
	Name      string
	LocalID   ID
	RemoteID  Pattern
	Pins      []netip.Addr // where the peer may call from; empty: anywhere
	Hosts     []Host       // where he is called, the first first; empty: he calls
	Locals    []netip.Addr // where to call from; empty: any address of ours
	Proposals []suite.Proposal
	Child     Child
	Pools     []string     // a responder leases from these
	VIPs      []netip.Addr // an initiator asks for these; unspecified: any of the family
	Backoff   Backoff
	// NATKeepalive is how long we, when behind a NAT, stay silent before a
	// keepalive goes out; 0 sends none.
	NATKeepalive time.Duration
	MTU          int // of the packets inside; 0: what suits the data plane
	DPD          dpd.Config
	Unique       Unique
	MaxSAs       int  // that one identity may have at a time, 1 or more
	MaxLeases    int  // virtual addresses of a family that it may have, 1 or more
	Start        bool // it is to be up as long as the gateway runs
	Restart      bool // call again when the peer has died
}

// Host is where a peer may be called: at an address, or at those that a name has
// at the time of the call.
type Host struct {
	Addr netip.Addr
	Name string // "": Addr
}

// Child is what a connection's Child SA may carry.
type Child struct {
	Name      string
	Proposals []suite.Proposal
	Local     []wire.Selector
	// Remote is empty for "dynamic": the peer's virtual address, or else its
	// own.
	Remote []wire.Selector
}

// Domain is one of DNS, whose names those servers know that have addresses of its
// family.
type Domain struct {
	Name string
	IPv6 bool
}

// takes reports whether the peer may call from an address.
func (c *Connection) takes(from netip.Addr) bool {
	return len(c.Pins) == 0 || slices.Contains(c.Pins, from)
}

// Allows reports whether one of the connection's proposals contains the choice.
func (c *Connection) Allows(ch suite.Choice) bool {
	return slices.ContainsFunc(c.Proposals, func(p suite.Proposal) bool {
		return slices.Contains(p.Encr, suite.EncrKey{ID: ch.Encr, KeyBits: ch.KeyBits}) &&
			(ch.Integ == 0 || slices.Contains(p.Integ, ch.Integ)) &&
			slices.Contains(p.PRF, ch.PRF) && slices.Contains(p.KE, ch.KE)
	})
}

// Groups are the key exchange groups of the connection, first choice first.
func (c *Connection) Groups() []uint16 {
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
