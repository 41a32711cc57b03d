package shard

import (
	"encoding/binary"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/dpd"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// onDeadline carries out what is due of an SA: its own timers first, since they
// may be about to send or to end what is judged next, when it is settled.
func (s *Shard) onDeadline(now mono.Time, e *entry) {
	defer s.contain(now)
	if e.checkAt <= now {
		e.checkAt = 0
	}
	s.begin(e)
	e.sa.Advance(now, &s.out)
	s.carryOut(now, e)
}

// check judges whether the peer of an established SA lives, and does what
// follows. It reads the evidence from mapped memory: while a tunnel's own
// traffic proves life, this costs no system call.
func (s *Shard) check(now mono.Time, e *entry) {
	if s.cutOff(now, e) {
		return
	}
	conf := e.sa.Conn().DPD
	ev := s.evidence(e)
	e.heard = ev.Auth
	v := dpd.Judge(now, conf, ev)
	switch v.Action {
	case dpd.Dead:
		s.do(now, e, sa.Dead{})
	case dpd.Probe:
		s.count[cProbes]++
		// Should the SA not send one, it is asked again, but not at once.
		e.checkAt = now.Add(max(conf.Delay, time.Second))
		s.do(now, e, sa.Probe{})
	case dpd.Wait:
		e.checkAt = v.Until
		if v.Why == dpd.Alive {
			s.count[cProbesSpared]++
		}
	}
}

// onDrift takes up a hint that packets of an SA come from elsewhere. It moves
// nothing, and nothing goes there. If the packet was the peer's, the data plane
// has authenticated it or is about to; that moves the SA, and the probe with
// it. If not, the peer answers from where he was.
func (s *Shard) onDrift(now mono.Time, p wire.Packet) {
	defer s.contain(now)
	s.count[cDrifts]++
	e := s.table.byChild[binary.BigEndian.Uint32(p.Data)]
	if e == nil || e.sa.State() != sa.Up {
		s.count[cDriftsUnknown]++
		return
	}
	s.begin(e)
	v := dpd.Drifted(now, e.sa.Conn().DPD, s.evidence(e), e.driftAt)
	if v.Why == dpd.TooSoon {
		return
	}
	e.driftAt = now
	s.report(now, e, sa.Event{Kind: sa.Drift, Path: e.sa.Path(), From: p.Remote})
	if v.Action == dpd.Probe {
		s.count[cProbes]++
		s.count[cProbesDrift]++
		s.do(now, e, sa.Probe{})
	}
}

// evidence is what is known of an SA and its Child SA.
func (s *Shard) evidence(e *entry) dpd.Evidence {
	ev := dpd.Evidence{
		IKE: e.sa.LastIKE(),
		// A handshake is a round trip, whoever began it.
		RoundTrip:   max(e.sa.LastRoundTrip(), e.sa.Created()),
		Outstanding: e.sa.Outstanding(),
		Exhausted:   e.sa.Exhausted(),
	}
	for _, c := range e.held.children {
		if !c.inbound {
			continue
		}
		seen, auth := s.edges.Tracker.Evidence(c.inSPI)
		ev.Seen = max(ev.Seen, mono.Time(seen))
		ev.Auth = max(ev.Auth, mono.Time(auth))
		ev.Sent = max(ev.Sent, mono.Time(s.plane.LastSent(c.inSPI)))
	}
	return ev
}
