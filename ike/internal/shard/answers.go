package shard

import (
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// onIKE takes one message from the inbox.
func (s *Shard) onIKE(now mono.Time, p wire.Packet) {
	defer s.contain(now)
	h, err := wire.ParseHeader(p.Data)
	switch {
	case err != nil:
		s.count[cMalformed]++
	case h.Major() > 2:
		s.count[cOtherVersion]++
		// The reply's header says which version we speak.
		s.answer(now, h, p, &wire.Notify{Kind: wire.InvalidMajorVersion})
	default:
		s.onKnown(now, h, p)
	}
}

// onKnown gives a message to the SA whose SPI it bears.
func (s *Shard) onKnown(now mono.Time, h wire.Header, p wire.Packet) {
	e := s.table.bySPI[ownSPI(h)]
	if e == nil {
		s.count[cUnknownSPI]++
		s.answer(now, h, p, &wire.Notify{Kind: wire.InvalidIKESPI})
		return
	}
	if err := s.handle(now, e, p); err != nil {
		s.count.discard(err)
	}
}

// answer tells the sender of a request outside of any SA what is wrong with it:
// seldom, in no more bytes than the request has, and never in answer to a
// response. RFC 7296 §1.5, §2.5, §2.21.4
func (s *Shard) answer(now mono.Time, h wire.Header, p wire.Packet, n *wire.Notify) {
	if h.Flags&wire.FlagResponse != 0 || uint64(h.Length) != uint64(len(p.Data)) {
		return
	}
	m := wire.Message{Header: h, Payloads: []wire.Payload{n}}
	m.Flags = wire.FlagResponse | (h.Flags&wire.FlagInitiator ^ wire.FlagInitiator)
	data := m.Append(nil)
	if len(data) > len(p.Data) || !s.group.gate.mayAnswer(now, p.Remote.Addr()) {
		s.count[cUnanswered]++
		return
	}
	s.transmit(wire.Packet{Local: p.Local, Remote: p.Remote, NATT: p.NATT, Data: data})
}
