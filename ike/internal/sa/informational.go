package sa

import (
	"errors"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// informational answers a fresh INFORMATIONAL request: an empty one is the
// peer's probe. RFC 7296 §1.4
func (s *SA) informational(now mono.Time, p wire.Packet, ps []wire.Payload, out *Effects) {
	var answer []wire.Payload
	gone := NoReason
	child := false
	for _, pl := range ps {
		switch pl := pl.(type) {
		case *wire.Delete:
			switch {
			case pl.Protocol == wire.ProtoIKE:
				gone = DeletedByPeer
			case s.deletes(pl):
				child = true
			}
		case *wire.Notify:
			if pl.Kind == wire.AuthenticationFailed { // RFC 7296 §2.21.2
				gone = AuthFailed
			}
		}
	}
	if child && gone == NoReason { // RFC 7296 §1.4.1: the other half goes in the answer
		answer = append(answer, &wire.Delete{Protocol: wire.ProtoESP, SPIs: []uint32{s.rec.Child.InSPI}})
	}
	switch {
	case gone != NoReason:
		if gone == AuthFailed {
			s.refusedByPeer(wire.AuthenticationFailed, out)
		}
		// There is nothing to store any more: what could fail would lose the
		// steps behind it, and the end would never be told.
		out.add(reply(p, s.seal(wire.Informational, wire.FlagResponse, s.rec.NextExpected-1, answer...)))
		s.close(gone, Event{}, out)
		return
	case child: // before what may fail, for the same reason
		s.dropChild(out)
		out.add(report(Event{Kind: ChildGone, Path: s.Path()}))
	}
	s.respond(now, wire.Informational, p, out, answer...)
}

// deletes tells that a DELETE names our Child SA, by the SPI that the peer
// receives on.
func (s *SA) deletes(d *wire.Delete) bool {
	for _, spi := range d.SPIs {
		if c := &s.rec.Child; d.Protocol == wire.ProtoESP && c.InSPI != 0 && spi == c.OutSPI {
			return true
		}
	}
	return false
}

// refuseSyntax answers a request that opened but made no sense. An unknown
// critical payload is refused alone; anything else ends the SA, since its
// peer's view of it cannot be known. RFC 7296 §2.5, §2.21.3
func (s *SA) refuseSyntax(now mono.Time, h wire.Header, p wire.Packet, err error, out *Effects) {
	var critical *wire.CriticalError
	known := errors.As(err, &critical)
	if known {
		n := &wire.Notify{Kind: wire.UnsupportedCriticalPayload, Data: []byte{byte(critical.Type)}}
		if s.rec.State >= Up {
			s.respond(now, h.Exchange, p, out, n)
			return
		}
		out.add(reply(p, s.seal(h.Exchange, wire.FlagResponse, h.MessageID, n)))
	} else {
		out.add(reply(p, s.seal(h.Exchange, wire.FlagResponse, h.MessageID, &wire.Notify{Kind: wire.InvalidSyntax})))
	}
	s.close(ProtocolError, Event{Err: err}, out)
}
