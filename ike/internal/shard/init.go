package shard

import (
	"bytes"

	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// maxFirst is the longest first message that is read. One with every algorithm
// there is and a hybrid key exchange stays far below.
const maxFirst = 4 << 10

// deliverFirst judges an IKE_SA_INIT request where it was read: a demand for a
// cookie is answered at once, so that nobody waits for one behind those who
// have shown theirs, and nothing of him is queued.
func (g *Group) deliverFirst(p wire.Packet) {
	defer g.contain()
	if len(p.Data) > maxFirst {
		g.tally.add(cFirstTooLong)
		return
	}
	if g.total.Load() >= int64(g.conf.MaxSAs) {
		g.tally.add(cTableFull)
		return
	}
	first, err := wire.ScanFirst(p.Data)
	if err != nil {
		g.tally.add(cMalformed)
		return
	}
	now := g.conf.Clock()
	proven := first.Cookie != nil && g.gate.cookies.Check(now, first.Cookie, first.SPIi, first.Nonce, p.Remote)
	key := halfopen.Key{SPI: first.SPIi, Remote: p.Remote, Digest: first.Digest(g.seed)}
	verdict, place, victim := g.gate.admit(now, key, proven)
	if victim != nil {
		g.evict(victim)
	}
	switch verdict {
	case halfopen.Accept:
		g.accept(p, &pending{place: place, proven: proven})
	case halfopen.Known:
		g.again(p, place, proven)
	case halfopen.DemandCookie:
		g.demandCookie(now, &first, p)
	case halfopen.SourceFull:
		g.tally.add(cSourceFull)
	case halfopen.Full:
		g.tally.add(cHalfOpenFull)
	case halfopen.Ignored:
		g.tally.add(cFirstIgnored)
	}
}

// accept has its shard make an SA of a first message.
func (g *Group) accept(p wire.Packet, pd *pending) {
	p.Data = bytes.Clone(p.Data)
	s := g.firstOwner(pd.place.Key())
	if !s.first.offer(func(now mono.Time) { s.onFirst(now, p, pd) }) {
		g.gate.done(pd.place)
		return
	}
	s.rouse()
}

// again hands on a first message whose SA is there already.
func (g *Group) again(p wire.Packet, place *halfopen.Place, proven bool) {
	p.Data = bytes.Clone(p.Data)
	s := g.firstOwner(place.Key())
	if !s.first.offer(func(now mono.Time) { s.onFirstAgain(now, p, place, proven) }) {
		g.gate.repeated(place)
		return
	}
	s.rouse()
}

// evict drops the SA of somebody who was answered and has not come back.
func (g *Group) evict(victim *halfopen.Place) {
	g.tally.add(cEvicted)
	s := g.firstOwner(victim.Key())
	s.post(func(now mono.Time) {
		if e := s.table.byInit[victim.Key()]; e != nil && e.pending.place == victim {
			s.drop(now, e)
		}
	})
}

// demandCookie asks the sender to show that the address is its own; nothing is
// kept. RFC 7296 §2.6
func (g *Group) demandCookie(now mono.Time, first *wire.First, p wire.Packet) {
	answer := wire.Message{
		Header: wire.Header{SPIi: first.SPIi, Exchange: wire.IKESAInit, Flags: wire.FlagResponse},
		Payloads: []wire.Payload{&wire.Notify{Kind: wire.Cookie,
			Data: g.gate.cookies.Make(now, first.SPIi, first.Nonce, p.Remote)}},
	}
	data := answer.Append(nil)
	if len(data) > len(p.Data) {
		g.tally.add(cWithheld)
		return
	}
	g.tally.add(cCookies)
	if g.conf.Edges.Sender.Send(wire.Packet{Local: p.Local, Remote: p.Remote, NATT: p.NATT, Data: data}) != nil {
		g.tally.add(cSendErrors)
		return
	}
	g.tally.add(cSent)
}

// contain ends a message that was judged where it was read.
func (g *Group) contain() {
	if recover() != nil {
		g.tally.add(cPanics)
	}
}

// onFirst makes an SA of a first message that has a place. If the SA refuses
// it, nothing is left but what the sender is told, and for a moment the place.
func (s *Shard) onFirst(now mono.Time, p wire.Packet, pd *pending) {
	if old := s.table.byInit[pd.place.Key()]; old != nil {
		s.drop(now, old) // it has lost its place, and does not know yet
	}
	if s.closing != nil {
		s.group.gate.done(pd.place)
		return
	}
	pd.size = len(p.Data)
	e := &entry{sa: sa.NewResponder(&s.env, s.newSPI()), pending: pd}
	s.table.add(e)
	if err := s.handle(now, e, p); err != nil {
		s.count.discard(err)
		s.group.gate.decline(now, pd.place)
		s.drop(now, e)
	}
}

// onFirstAgain gives a first message to the SA that it has made. Its sender may
// have shown a cookie by now.
func (s *Shard) onFirstAgain(now mono.Time, p wire.Packet, place *halfopen.Place, proven bool) {
	s.group.gate.repeated(place)
	e := s.table.byInit[place.Key()]
	if e == nil || e.pending.place != place {
		s.count[cDiscardedState]++
		return
	}
	if pd := e.pending; proven && !pd.proven {
		pd.proven = true
		if pd.job != nil {
			pd.job = s.group.workers.promote(pd.job)
		}
	}
	if err := s.handle(now, e, p); err != nil {
		s.count.discard(err)
	}
}

// credited takes note that a packet came.
func (pd *pending) credited(p wire.Packet) {
	if p.Remote != pd.addr {
		pd.addr, pd.credit = p.Remote, 0
	}
	pd.credit += len(p.Data)
}
