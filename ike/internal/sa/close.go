package sa

import (
	"errors"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

var errIDs = errors.New("message IDs are used up")

// close ends the SA: whatever of it exists outside is removed, traffic first.
func (s *SA) close(why Reason, e Event, out *Effects) {
	s.dropChild(out)
	e.Kind, e.Reason, e.Path = Closed, why, s.Path()
	if s.rec.Peer.n != 0 {
		out.add(Leave{})
	}
	if s.rec.State >= Up {
		out.add(Forget{})
	}
	s.setState(Gone)
	s.Wipe()
	s.hs = nil
	s.req = request{}
	s.mustFinish, s.responseEnd, s.keepaliveAt = 0, 0, 0
	s.moves = nil
	s.rec.Request, s.rec.Response = nil, nil
	out.add(report(e))
}

// displace ends the SA with a DELETE whose answer nobody waits for. Behind a request
// that is outstanding it may be one too early for the peer, who then finds out by
// himself.
func (s *SA) displace(out *Effects) {
	switch {
	case s.rec.State == AuthPending:
		s.lastWord(out)
	case s.rec.State == Up && !s.exhaustedIDs():
		out.add(s.send(s.seal(wire.Informational, 0, s.rec.NextRequest, &wire.Delete{Protocol: wire.ProtoIKE})))
	}
	s.close(Replaced, Event{}, out)
}

// Wipe overwrites the keys. An SA that closes does so by itself; one that its
// owner drops without asking it is not to be used any more.
func (s *SA) Wipe() {
	s.rec.Keys.Wipe()
	s.rec.Child = childRecord{}
	if s.hs != nil && s.hs.private != nil {
		s.hs.private.Wipe()
	}
}

// dropChild removes the Child SA: outbound, inbound, tracking if there is any.
// An SPI that was only allotted goes back.
func (s *SA) dropChild(out *Effects) {
	if c := &s.rec.Child; c.InSPI != 0 {
		u := Untrack{SPI: c.InSPI}
		if s.tracked {
			u.Path = s.Path()
		}
		s.tracked = false
		out.add(RemoveOutbound{c.InSPI, c.OutSPI}, RemoveInbound{c.InSPI, c.OutSPI}, u)
		*c = childRecord{}
	}
	if s.hs != nil && s.hs.childSPI != 0 {
		out.add(Untrack{SPI: s.hs.childSPI})
		s.hs.childSPI = 0
	}
}
