package sa

import (
	"net/netip"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Conn is one configured connection, shared by all its SAs and never written.
type Conn struct {
	Index     uint32 // in Policy.Conns; also the record's way to name it
	Name      string
	LocalID   ID
	RemoteID  Pattern
	Remotes   []netip.Addr // where the peer may come from; empty = anywhere
	Proposals []suite.Proposal
	Child     ChildConfig
	Pools     []string     // a responder leases from these
	VIPs      []netip.Addr // an initiator asks for these; unspecified = any of the family
	Backoff   Backoff
	// NATKeepalive is how long we, when behind a NAT, stay silent before a
	// keepalive goes out; 0 sends none.
	NATKeepalive time.Duration
	MTU          int // of the tunnel; 0: what suits the data plane
}

// ChildConfig is what a connection's Child SA may carry.
type ChildConfig struct {
	Name      string
	Proposals []suite.Proposal
	Local     []wire.Selector
	// Remote is empty for "dynamic": the peer's virtual address, or else its
	// own.
	Remote []wire.Selector
}
