package sa

import (
	"bytes"
	"errors"
	"math"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

type requestKind uint8

const (
	noRequest requestKind = iota
	initRequest
	authRequest
	probeRequest
	deleteRequest
)

// request is our outstanding request: there is at most one. RFC 7296 §2.3
type request struct {
	kind     requestKind
	exchange wire.ExchangeType
	try      uint8 // retransmissions so far
	unsent   bool  // a try has not left this host
	anew     uint8 // how often the tries have begun anew for that
}

// unsentMax is how long the tries of a probe may begin anew.
const unsentMax = 10 * time.Minute

// nextTry is when the outstanding request is sent again, or given up; zero if
// there is none.
func (s *SA) nextTry() mono.Time {
	if !s.Outstanding() {
		return 0
	}
	return s.tryAt
}

// start sends a sealed request and keeps its bytes for retransmission.
func (s *SA) start(now mono.Time, kind requestKind, ex wire.ExchangeType, out *Effects, ps ...wire.Payload) {
	s.rec.Request = s.seal(ex, 0, s.rec.NextRequest, ps...)
	s.rec.NextRequest++
	s.await(now, kind, ex)
	if s.rec.State >= Up {
		s.unpersisted = false
		out.add(Persist{&s.rec})
	}
	out.add(s.send(s.rec.Request))
}

// await begins to wait for the answer to the request just made.
func (s *SA) await(now mono.Time, kind requestKind, ex wire.ExchangeType) {
	s.rec.LastSent = now
	s.req = request{kind: kind, exchange: ex}
	s.tryAt = now.Add(s.rec.Conn.Backoff.Wait(0))
}

// retransmit sends the outstanding request again, bit for bit, or gives it up.
// RFC 7296 §2.1, §2.4
func (s *SA) retransmit(now mono.Time, out *Effects) {
	if s.Tries() < s.rec.Conn.Backoff.Tries {
		s.req.try++
		s.tryAt = now.Add(s.rec.Conn.Backoff.Wait(s.Tries()))
		s.rec.LastSent = now
		s.persist(out)
		out.add(s.send(s.rec.Request), report(Event{Kind: Retransmit, Try: s.Tries(), Path: s.Path()}))
		return
	}
	if s.provesNothing() {
		s.req.anew++
		s.again(now, out)
		return
	}
	s.tryAt = 0
	switch {
	case s.rec.State < Up:
		s.close(s.handshakeFailure(), Event{Try: s.Tries(), Notify: s.hs.trouble, Err: s.unsent()}, out)
	case s.req.kind == deleteRequest, s.wantDelete:
		s.close(DeletedByUs, Event{Try: s.Tries()}, out)
	default:
		// Whether that means death is not the SA's to say.
		out.add(report(Event{Kind: Unanswered, Try: s.Tries(), Path: s.Path()}))
	}
}

// Unsent takes note of a message that this host could not send. A probe that does
// not leave it proves nothing of the peer: its tries begin anew when they are used
// up, for as long as unsentMax, unless the SA is to end anyway.
func (s *SA) Unsent(message []byte) {
	if s.Outstanding() && bytes.Equal(message, s.rec.Request) {
		s.req.unsent = true
	}
}

// provesNothing tells that the tries of a probe are to begin anew.
func (s *SA) provesNothing() bool {
	rounds := min(int(unsentMax/s.rec.Conn.Backoff.Total()), math.MaxUint8)
	return s.req.kind == probeRequest && s.req.unsent && !s.wantDelete && int(s.req.anew) < rounds
}

// ErrUnsent is why a peer's silence may be no fault of his.
var ErrUnsent = errors.New("not every message to the peer could be sent from this host")

// unsent is ErrUnsent where a try has not left this host.
func (s *SA) unsent() error {
	if s.req.unsent {
		return ErrUnsent
	}
	return nil
}

// resend sends the outstanding request to where the peer is from now on. It has
// gone to his old endpoint, which may no longer be anybody's; its next
// retransmission may be a minute away, or none be left. It uses up no try: the
// waiting goes on as it was. RFC 7296 §2.23
func (s *SA) resend(now mono.Time, out *Effects) {
	if !s.Outstanding() {
		return
	}
	s.rec.LastSent = now
	s.persist(out)
	out.add(s.send(s.rec.Request))
}

// probe asks for a sign of life, unless an outstanding request already does.
// RFC 7296 §2.4
func (s *SA) probe(now mono.Time, out *Effects) {
	if s.rec.State != Up || s.Outstanding() {
		return
	}
	if s.exhaustedIDs() {
		s.close(LocalFailure, Event{Err: errIDs}, out)
		return
	}
	s.start(now, probeRequest, wire.Informational, out)
	out.add(report(Event{Kind: ProbeSent, Path: s.Path()}))
}

// terminate deletes the SA: at once if nothing of it is known to the peer,
// with a DELETE if it is, which waits for an outstanding request.
func (s *SA) terminate(now mono.Time, out *Effects) {
	switch {
	case s.rec.State < AuthSent:
		s.close(DeletedByUs, Event{}, out)
	case s.rec.State < Up, s.Outstanding() && !s.Exhausted():
		s.wantDelete = true
	case s.Exhausted():
		s.close(DeletedByUs, Event{}, out)
	default:
		s.sendDelete(now, out)
	}
}

// deleteIfWanted sends the DELETE that had to wait.
func (s *SA) deleteIfWanted(now mono.Time, out *Effects) {
	if s.wantDelete && s.rec.State == Up && !s.Outstanding() {
		s.sendDelete(now, out)
	}
}

func (s *SA) sendDelete(now mono.Time, out *Effects) {
	s.setState(Deleting)
	s.start(now, deleteRequest, wire.Informational, out, &wire.Delete{Protocol: wire.ProtoIKE})
}
