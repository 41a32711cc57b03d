package sa

import (
	"fmt"
	"net/netip"

	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Effects is what an SA asks the outside to do, in order. The caller carries
// the steps out strictly in this order and stops at the first that fails,
// telling the SA with a [Failed] command; the steps behind it are forgotten,
// and the SA's answer to Failed says what to do instead.
//
// Only Persist, Track, InstallInbound, InstallOutbound and a responder's Admit
// can fail. Whoever carries out one of the others counts and logs what went
// wrong, and goes on: a removal that stopped half-way would leave more behind,
// and a packet that was not sent is a packet lost.
//
// A step and everything it points to is valid only until the next call into
// the same SA, except for Agree and Admit, whose contents are the receiver's.
type Effects struct {
	Steps []Step
}

func (e *Effects) add(s ...Step) { e.Steps = append(e.Steps, s...) }

// Reset empties e and keeps its memory.
func (e *Effects) Reset() {
	clear(e.Steps)
	e.Steps = e.Steps[:0]
}

// Step is one side effect. The set is closed.
type Step interface{ step() }

// Persist stores the SA's record before a message that depends on it is sent.
type Persist struct{ Record *Record }

// Forget removes the SA's record.
type Forget struct{}

// Track registers an inbound SPI and the address pair that it comes from.
type Track struct {
	SPI        uint32
	Path       Path
	PeerNATted bool // the peer, and not we, stands behind a NAT
}

// Untrack ends what Track began and gives the SPI's slot back. For an SPI that
// was allotted but never tracked, Path is the zero Path.
type Untrack struct {
	SPI  uint32
	Path Path
}

// Retrack moves a tracked SPI to a new address pair.
type Retrack struct {
	SPI        uint32
	Old, New   Path
	PeerNATted bool
}

// InstallInbound makes the data plane accept packets of the Child SA.
type InstallInbound struct{ Child *ChildSA }

// InstallOutbound makes the data plane send through the Child SA.
type InstallOutbound struct{ Child *ChildSA }

// MoveOutbound changes where an installed Child SA's packets go.
type MoveOutbound struct {
	InSPI, OutSPI uint32
	Path          Path
}

// RemoveOutbound and RemoveInbound end one direction of a Child SA. They also
// come for one whose installation failed: what is not there need not go.
type (
	RemoveOutbound struct{ InSPI, OutSPI uint32 }
	RemoveInbound  struct{ InSPI, OutSPI uint32 }
)

// Send transmits one IKE message.
type Send struct{ Packet wire.Packet }

// Keepalive sends one NAT keepalive, a datagram of the single byte 0xFF.
// RFC 3948 §2.3
type Keepalive struct{ Path Path }

// Agree asks for a key exchange, done off the loop and answered by an [Agreed]
// command. Without Private a key pair of Group is made first; without Peer
// that is all. Private comes back with the answer; who asks has not kept it.
type Agree struct {
	Group   uint16
	Private *suite.Private
	Peer    []byte
}

// Admit asks the owner of identities and leases to take in this SA for an
// authenticated identity; answered by an [Admitted] command.
type Admit struct {
	InitialContact bool         // the peer says that he has no other SA with us
	Want           []netip.Addr // one a family asked for; unspecified = any address of it
}

// Leave ends what Admit began: the identity's claim and its leases.
type Leave struct{}

// ReturnLeases gives back the addresses that came with the admission.
type ReturnLeases struct{}

// Report tells what has become of the SA.
type Report struct{ Event Event }

func (Persist) step()         {}
func (Forget) step()          {}
func (Track) step()           {}
func (Untrack) step()         {}
func (Retrack) step()         {}
func (InstallInbound) step()  {}
func (InstallOutbound) step() {}
func (MoveOutbound) step()    {}
func (RemoveOutbound) step()  {}
func (RemoveInbound) step()   {}
func (Send) step()            {}
func (Keepalive) step()       {}
func (Agree) step()           {}
func (Admit) step()           {}
func (Leave) step()           {}
func (ReturnLeases) step()    {}
func (Report) step()          {}

// Path is a pair of UDP endpoints, ours and the peer's.
type Path struct{ Local, Remote netip.AddrPort }

// ChildSA is a Child SA as a data plane needs it. Keys are in the data plane's
// sense: In opens what the peer sends. They are the SA's own, which wipes them:
// who installs them makes a copy, and wipes that. Only an InstallInbound and an
// InstallOutbound have them.
type ChildSA struct {
	InSPI, OutSPI     uint32
	ReqID             uint32 // stable over rekeys of one tunnel
	Suite             suite.Choice
	InEncr, InInteg   *suite.Key
	OutEncr, OutInteg *suite.Key
	Local, Remote     []wire.Selector // narrowed; ours and the peer's side
	Path              Path
	VirtualIPs        []netip.Addr // ours, given by the peer
	MTU               int          // of the packets inside; 0: what suits the data plane
}

// EventKind says what an Event is about.
type EventKind uint8

const (
	Connecting    EventKind = iota + 1 // a handshake began
	Refusing                           // one refuses the other; Refusal says why
	NATDetected                        // somebody translates addresses on the path
	Established                        // authenticated; Child says whether traffic can flow
	ChildUp                            // a Child SA is installed
	ChildGone                          // a Child SA was deleted, the IKE SA stays
	ProbeSent                          // a DPD probe went out, for the first time
	Retransmit                         // an outstanding request was sent again; Try counts
	ProbeAnswered                      // the answer to a probe
	Moved                              // the peer's endpoint has changed
	Drift                              // a packet with its SPI came from elsewhere, and nobody has verified it
	Unanswered                         // all tries of the outstanding request are used up
	Closed                             // the SA is gone; Reason says why
)

// Event is a fact for logs, snapshots and tests; it asks for nothing.
type Event struct {
	Kind   EventKind
	Reason Reason // for Closed
	Notify wire.NotifyType
	Try    int
	Path   Path
	From   netip.AddrPort // for Drift
	Child  *ChildSA
	Err    error // for Closed by a local failure
	// Refusal is for Refusing.
	Refusal *Refusal
}

// Reason is why an SA closed.
type Reason uint8

const (
	NoReason         Reason = iota
	DeletedByPeer           // a DELETE arrived
	DeletedByUs             // our DELETE was answered, or nobody answered it
	PeerDead                // declared dead
	Replaced                // the same identity came again with INITIAL_CONTACT
	AuthFailed              // either side refused the other's AUTH or identity
	Refused                 // the peer, or we, refused the offer; Notify says which way
	HandshakeTimeout        // the handshake was not finished in time
	ProtocolError           // the peer broke the protocol after authentication
	LocalFailure            // a step failed here
)

func (r Reason) String() string {
	return [...]string{"none", "deleted by peer", "deleted", "dead", "replaced", "authentication failed",
		"refused", "handshake timeout", "protocol error", "local failure"}[r]
}

func (k EventKind) String() string {
	return [...]string{"none", "connecting", "refused", "nat detected", "established", "child up", "child gone", "probe sent",
		"retransmit", "probe answered", "moved", "drift", "unanswered", "closed"}[k]
}

// Format keeps the keys out of whatever prints a Child SA, even where fmt
// passes over the methods of a field because its verb is wrong.
func (c ChildSA) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "Child SA %08x-%08x %v", c.InSPI, c.OutSPI, c.Suite)
}
