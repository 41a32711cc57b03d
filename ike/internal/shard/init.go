package shard

import (
	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// onInit takes an IKE_SA_INIT request: a retransmission goes to the SA that the
// first made, and a new one makes an SA if the gate lets it.
func (s *Shard) onInit(now mono.Time, h wire.Header, p wire.Packet) {
	key := s.initKeyOf(h.SPIi, p)
	if e := s.table.byInit[key]; e != nil {
		if s.handle(now, e, p) != nil {
			s.count[cDiscarded]++
		}
		return
	}
	if s.closing != nil {
		return
	}
	m, err := wire.Parse(p.Data)
	if err != nil {
		s.count[cMalformed]++
		return
	}
	proven := s.group.gate.proven(now, m, p.Remote)
	switch s.group.gate.admit(p.Remote.Addr(), proven) {
	case halfopen.DemandCookie:
		s.demandCookie(now, m, p)
	case halfopen.Drop:
		s.count[cHalfOpenFull]++
	case halfopen.Accept:
		if !s.group.reserve() {
			s.group.gate.done(p.Remote.Addr())
			s.count[cTableFull]++
			return
		}
		s.newResponder(now, p, &pending{init: key, source: p.Remote.Addr(), proven: proven})
	}
}

// newResponder makes an SA for a request that has passed the gate. If the SA
// refuses the request, nothing is left of it but what the sender is told.
func (s *Shard) newResponder(now mono.Time, p wire.Packet, pd *pending) {
	e := &entry{sa: sa.NewResponder(&s.env, s.newSPI()), pending: pd}
	s.table.add(e)
	if s.handle(now, e, p) != nil {
		s.count[cDiscarded]++
		s.drop(now, e)
	}
}

// demandCookie asks the sender to show that the address is its own; nothing is
// kept. RFC 7296 §2.6
func (s *Shard) demandCookie(now mono.Time, m *wire.Message, p wire.Packet) {
	nonce, ok := wire.Find[*wire.Nonce](m.Payloads)
	if !ok {
		s.count[cMalformed]++
		return
	}
	cookie := s.group.gate.cookies.Make(now, m.SPIi, nonce.Data, p.Remote)
	answer := wire.Message{
		Header:   wire.Header{SPIi: m.SPIi, Exchange: wire.IKESAInit, Flags: wire.FlagResponse},
		Payloads: []wire.Payload{&wire.Notify{Kind: wire.Cookie, Data: cookie}},
	}
	data := answer.Append(nil)
	if len(data) > len(p.Data) {
		s.count[cWithheld]++
		return
	}
	s.count[cCookies]++
	s.transmit(wire.Packet{Local: p.Local, Remote: p.Remote, NATT: p.NATT, Data: data})
}

// credited takes note that a packet came.
func (pd *pending) credited(p wire.Packet) {
	if p.Remote != pd.addr {
		pd.addr, pd.credit = p.Remote, 0
	}
	pd.credit += len(p.Data)
}
