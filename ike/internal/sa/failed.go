package sa

import (
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// failed answers a step that could not be carried out. The steps behind it are
// lost, the message among them: what stands is taken down, and the peer gets a
// clean refusal instead.
func (s *SA) failed(now mono.Time, c Failed, out *Effects) {
	switch c.Step.(type) {
	case Persist:
		s.failedPersist(c, out)
		return
	case Admit:
		s.lastWord(out)
		s.refusedPlace(policy.NoPlace, Event{Notify: wire.TemporaryFailure, Err: c.Err}, out)
		s.close(Refused, Event{Notify: wire.TemporaryFailure, Err: c.Err}, out)
		return
	case Track:
		s.tracked = false
	}
	s.dropChild(out)
	if s.rec.Role == Responder {
		if len(s.rec.Conn.Pools) > 0 {
			out.add(ReturnLeases{})
		}
		s.respondAuth(now, append(s.identify(), &wire.Notify{Kind: wire.TemporaryFailure}), false, out)
		out.add(report(Event{Kind: Established, Notify: wire.TemporaryFailure, Path: s.Path(), Err: c.Err}))
		return
	}
	out.add(report(Event{Kind: ChildGone, Path: s.Path(), Err: c.Err}))
	if s.req.kind == deleteRequest { // it was behind the step, and another would have an ID that the peer does not wait for
		s.unpersisted = true
		s.resend(now, out)
		return
	}
	s.sendDelete(now, out)
}

// failedPersist: a message whose state is not stored is not sent. In IKE_AUTH
// that ends the SA with a last word that needs no state; later the message
// waits for its retransmission, which tries again.
func (s *SA) failedPersist(c Failed, out *Effects) {
	if s.hs == nil {
		s.unpersisted, s.req.unsent = true, true
		return
	}
	s.tracked = false // Persist comes before Track
	s.lastWord(out)
	s.close(LocalFailure, Event{Err: c.Err}, out)
}

// lastWord ends IKE_AUTH without an SA behind the message. An initiator, whose peer
// has one, deletes it, and hears no answer; a responder refuses, and the other may
// come again.
func (s *SA) lastWord(out *Effects) {
	if s.rec.Role == Initiator {
		if s.rec.Request == nil { // else it is one already, which could not be stored
			s.rec.Request = s.seal(wire.Informational, 0, s.rec.NextRequest, &wire.Delete{Protocol: wire.ProtoIKE})
		}
		out.add(s.send(s.rec.Request))
		return
	}
	out.add(reply(s.hs.auth.packet, s.seal(wire.IKEAuth, wire.FlagResponse, s.rec.NextExpected-1,
		&wire.Notify{Kind: wire.TemporaryFailure})))
}
