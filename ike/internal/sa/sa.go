// Package sa is one IKE SA with its Child SA, as a pure state machine: packets,
// commands and time go in, an ordered list of steps comes out. It does no I/O,
// starts no goroutine, and reads neither a clock nor a global random source.
//
// IKEv2 is symmetric, so any message may come in any state. What is not fresh
// and authenticated changes nothing: [SA.Handle] works in the order header,
// window, ICV, and only then touches the SA.
package sa

import (
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Env is what the SAs of one shard share. It is not written after the first SA
// has been made.
type Env struct {
	Rand     io.Reader // never fails: crypto/rand, or a test's stream
	Policy   *policy.Set
	Listen   []netip.Addr                              // ours: no virtual address
	AllocSPI func(now mono.Time) (spi uint32, ok bool) // an inbound SPI with a free slot
	// LastSent is the newest packet that the data plane sent through a Child
	// SA; zero if none.
	LastSent func(inSPI uint32) mono.Time
	// Cookies are those that an initiator may have been asked for, who came with
	// that SPI and nonce from there, and whose request was accepted at that time.
	Cookies func(accepted mono.Time, spii uint64, ni []byte, from netip.AddrPort) [][]byte
	// FailedAuth takes note that somebody there has claimed to be ID and has
	// not proved it, and tells how long he is to wait for his answer.
	FailedAuth func(now mono.Time, from netip.Addr, claimed policy.ID) time.Duration
	NATTPort   uint16        // ours and the peers': 4500 but in tests
	HalfOpen   time.Duration // how long a responder waits for IKE_AUTH
	ForceEncap bool          // the data plane has UDP encapsulation only
}

// State is how far an SA has come.
type State uint8

const (
	New         State = iota
	KeyPending        // waiting for a key exchange
	InitSent          // initiator: IKE_SA_INIT is out
	HalfOpen          // responder: IKE_SA_INIT is answered
	AuthSent          // initiator: IKE_AUTH is out
	AuthPending       // the peer is authenticated, its admission is asked for
	Up                // established
	Deleting          // our DELETE is out
	Gone              // nothing is left; the owner drops the SA
)

func (s State) String() string {
	return [...]string{"new", "key exchange", "init sent", "half-open", "auth sent", "admission", "established",
		"deleting", "closed"}[s]
}

// Role tells who began.
type Role uint8

const (
	Responder Role = iota
	Initiator
)

// SA is one IKE SA. Its shard owns it: nothing in it is safe for concurrent use.
type SA struct {
	env *Env
	rec Record
	hs  *handshake // nil once established and settled

	// The size of an SA is that of a class of the allocator: with 8 bytes more
	// it would take 256.
	req         request
	unpersisted bool      // the record's last Persist failed, or the peer has moved since
	tracked     bool      // the Child SA's Track has been ordered and has not failed
	wantDelete  bool      // DELETE as soon as the outstanding request is done
	tryAt       mono.Time // see nextTry
	mustFinish  mono.Time // the handshake must be done by then
	responseEnd mono.Time // the cached response is kept so long
	keepaliveAt mono.Time // when to see whether a NAT keepalive is due
	moves       *moves    // nil: the peer has never moved
}

// NewInitiator makes an SA that will call the connection's peer. spi is ours.
func NewInitiator(env *Env, spi uint64, conn *policy.Connection, path Path) *SA {
	return &SA{env: env, hs: &handshake{}, rec: Record{Role: Initiator, SPI: spi, Conn: conn,
		Local: endpointOf(path.Local), Remote: endpointOf(path.Remote)}}
}

// NewResponder makes an SA for an IKE_SA_INIT request, which is to be handled
// next.
func NewResponder(env *Env, spi uint64) *SA {
	return &SA{env: env, hs: &handshake{}, rec: Record{Role: Responder, SPI: spi}}
}

func (s *SA) SPI() uint64              { return s.rec.SPI }
func (s *SA) PeerSPI() uint64          { return s.rec.PeerSPI }
func (s *SA) State() State             { return s.rec.State }
func (s *SA) Role() Role               { return s.rec.Role }
func (s *SA) Conn() *policy.Connection { return s.rec.Conn } // nil before the peer is known
func (s *SA) PeerID() policy.ID        { return s.rec.Peer.ID() }
func (s *SA) LocalNATted() bool        { return s.rec.LocalNATted }
func (s *SA) PeerNATted() bool         { return s.rec.PeerNATted }
func (s *SA) Created() mono.Time       { return s.rec.Created }
func (s *SA) LastIKE() mono.Time       { return s.rec.LastIKE }
func (s *SA) LastRoundTrip() mono.Time { return s.rec.LastRoundTrip }
func (s *SA) Suite() string            { return s.rec.Suite.String() }

// Path is where the peer is reached.
func (s *SA) Path() Path { return Path{s.rec.Local.AddrPort(), s.rec.Remote.AddrPort()} }

// Outstanding tells that a request of ours waits for its answer: whatever it
// is, it proves as much as a probe would.
func (s *SA) Outstanding() bool { return s.req.kind != noRequest }

// Exhausted tells that all tries of the outstanding request are used up.
func (s *SA) Exhausted() bool { return s.Outstanding() && s.tryAt == 0 }

// Tries is how often the outstanding request has been sent again.
func (s *SA) Tries() int { return int(s.req.try) }

// Child is the SA's Child SA, if it has one, without its keys. The slices are
// fresh copies.
func (s *SA) Child() (ChildSA, bool) {
	c := &s.rec.Child
	if c.InSPI == 0 {
		return ChildSA{}, false
	}
	return ChildSA{InSPI: c.InSPI, OutSPI: c.OutSPI, ReqID: c.ReqID, Suite: c.Suite,
		Local: selectorsOf(c.Local[:c.NLocal]), Remote: selectorsOf(c.Remote[:c.NRemote]),
		Path: s.Path(), VirtualIPs: c.vips(), MTU: s.rec.Conn.MTU}, true
}

// InSPI is the inbound SPI of the Child SA, or 0.
func (s *SA) InSPI() uint32 { return s.rec.Child.InSPI }

// Format keeps an SA's keys out of whatever prints it.
func (s SA) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "IKE SA %016x-%016x %v", s.rec.SPI, s.rec.PeerSPI, s.rec.State)
}

// setState is the only writer of the state.
func (s *SA) setState(st State) { s.rec.State = st }

// spis are the initiator's and the responder's SPI, as the header has them.
func (s *SA) spis() (i, r uint64) {
	if s.rec.Role == Initiator {
		return s.rec.SPI, s.rec.PeerSPI
	}
	return s.rec.PeerSPI, s.rec.SPI
}

func (s *SA) random(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.env.Rand, b); err != nil {
		panic("sa: the random source failed: " + err.Error())
	}
	return b
}

// reply turns a packet's path round.
func reply(p wire.Packet, msg []byte) Send {
	return Send{wire.Packet{Local: p.Local, Remote: p.Remote, NATT: p.NATT, Data: msg}}
}

func (s *SA) send(msg []byte) Send {
	path := s.Path()
	return Send{wire.Packet{Local: path.Local, Remote: path.Remote, NATT: path.Local.Port() == s.env.NATTPort, Data: msg}}
}

func report(e Event) Report { return Report{e} }

// Deadline is when Advance is due next; zero means never.
func (s *SA) Deadline() mono.Time {
	return mono.Earliest(s.nextTry(), s.mustFinish, s.responseEnd, s.keepaliveAt, s.moves.due())
}

// Advance carries out what is due; called too early it does nothing.
func (s *SA) Advance(now mono.Time, out *Effects) {
	due := func(t mono.Time) bool { return t != 0 && t <= now }
	switch {
	case due(s.mustFinish) && s.hs.denial != nil:
		s.deny(out)
		return
	case due(s.mustFinish) && s.rec.State < Up:
		s.close(HandshakeTimeout, Event{}, out)
		return
	case due(s.mustFinish):
		s.settle()
	}
	if due(s.responseEnd) {
		s.rec.Response, s.responseEnd = nil, 0
	}
	if due(s.moves.due()) {
		s.move(now, out)
	}
	if due(s.nextTry()) {
		s.retransmit(now, out)
	}
	if due(s.keepaliveAt) {
		s.keepalive(now, out)
	}
}

// Do carries out a command.
func (s *SA) Do(now mono.Time, c Command, out *Effects) {
	if a, ok := c.(Agreed); ok { // which somebody must take, come too late or not
		s.agreed(now, a, out)
		return
	}
	if s.rec.State == Gone {
		return
	}
	if _, failed := c.(Failed); !failed {
		s.settle()
	}
	switch c := c.(type) {
	case Initiate:
		s.initiate(now, out)
	case Admitted:
		s.admitted(now, c, out)
	case Failed:
		s.failed(now, c, out)
	case Probe:
		s.probe(now, out)
	case Again:
		s.again(now, out)
	case Terminate:
		s.terminate(now, out)
	case Dead:
		s.close(PeerDead, Event{Try: s.Tries(), Err: s.unsent()}, out)
	case Replace:
		s.close(Replaced, Event{}, out)
	case Displace:
		s.displace(out)
	case Rebound:
		s.rebound(now, c.Path, out)
	}
}
