package shard

import (
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

// carries keeps account of how many tunnels each connection has, whoever has
// called: one that is to be up is called when there is none, and by one side
// only where both are to call.
func (s *Shard) carries(now mono.Time, e *entry, ev sa.Event) {
	switch ev.Kind {
	case sa.ChildUp:
		if c := e.sa.Conn(); c != nil && !e.carrier {
			e.carrier = true
			s.group.carriers[c].Add(1)
			s.carrying(e, true)
		}
	case sa.ChildGone:
		s.carriesNoMore(now, e, sa.DeletedByPeer, ev.Err)
	case sa.Closed:
		s.carriesNoMore(now, e, ev.Reason, ev.Err)
	}
}

// carriesNoMore tells the one who calls, unless he will hear of it by the end of
// his own SA.
func (s *Shard) carriesNoMore(now mono.Time, e *entry, reason sa.Reason, err error) {
	if !e.carrier {
		return
	}
	e.carrier = false
	s.carrying(e, false)
	c := e.sa.Conn()
	others := s.group.carriers[c].Add(-1) > 0
	if !exact(c) { // whoever the others are, they are not whom we call
		others = e.dial == nil
	}
	if others || !c.Start || s.closing != nil || e.dial != nil && e.sa.State() == sa.Gone {
		return
	}
	lasted := now.Sub(e.sa.Created())
	owner := s.group.owner(c)
	owner.post(func(now mono.Time) { owner.dialers.fell(now, c, lasted, reason, err) })
}
