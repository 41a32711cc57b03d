package shard

import (
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/dpd"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
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
	conf := s.conf.Tunnels[e.sa.Conn().Index].DPD
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
