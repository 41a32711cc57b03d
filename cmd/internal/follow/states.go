package follow

import (
	"errors"
	"fmt"
	stdmaps "maps"
	"net/netip"
	"time"

	"github.com/ikepulse/ikepulse/ike/xfrm"
	"github.com/ikepulse/ikepulse/maps"
)

// states are the kernel's SAs and what becomes of them in the maps. One
// goroutine owns it.
type states struct {
	set      *maps.Set
	followed *maps.Followed
	locals   map[netip.Addr]bool
	all      map[xfrm.Key]*state
	tell     func(Fact) error
	resyncs  int
	began    int64 // CLOCK_BOOTTIME, before the first dump
	synced   bool
}

// state is one SA of the kernel's.
type state struct {
	xfrm.SA
	tracked bool // inbound, and in the maps
	slot    uint32
	refused error          // inbound, and why it is not in the maps
	heard   netip.AddrPort // where the kernel hears its peer, if elsewhere
	heardAt int64          // and when it said so last
	proof   proof
}

func (s *state) inMaps() maps.FollowedSA {
	return maps.FollowedSA{Local: s.Dst, SPI: s.SPI, Protocol: s.Proto}
}

// proves tells whether the kernel's counters say anything: without a replay
// window it counts replayed packets, too.
func (s *state) proves() bool { return s.ReplayWindow > 0 }

// take carries a batch over into the maps.
func (s *states) take(b xfrm.Batch) error {
	for _, c := range b.Changes {
		if err := s.change(c); err != nil {
			return err
		}
	}
	switch {
	case !b.Synced:
		return nil
	case s.synced:
		s.resyncs++
		return s.tell(Fact{Event: EventResync, Lost: b.Lost})
	}
	s.synced = true
	if err := s.followed.Settle(); err != nil {
		return err
	}
	return s.tell(Fact{Event: EventFollowing, Summary: s.summary()})
}

func (s *states) change(c xfrm.Change) error {
	switch c.Kind {
	case xfrm.Added:
		st := &state{SA: c.SA}
		s.all[c.SA.Key] = st
		return s.place(st)
	case xfrm.Updated:
		return s.update(s.all[c.SA.Key], c.SA)
	case xfrm.Removed:
		st := s.all[c.SA.Key]
		delete(s.all, c.SA.Key)
		return s.remove(st)
	case xfrm.Moved:
		return s.hear(s.all[c.SA.Key], c.Mapping.New)
	}
	return nil
}

// inbound goes by what the kernel was told, else by whose address it is.
func (s *states) inbound(sa xfrm.SA) bool {
	if sa.Direction != xfrm.DirectionUnknown {
		return sa.Direction == xfrm.Inbound
	}
	return s.locals[sa.Dst]
}

// place puts an inbound SA into the maps. One that does not fit is told, and
// tried again at each look.
func (s *states) place(st *state) error {
	if !s.inbound(st.SA) {
		return nil
	}
	slot, err := s.followed.Track(st.inMaps(), st.Local(), st.Peer())
	if err != nil {
		return s.refuse(st, err)
	}
	st.slot, st.tracked, st.refused = slot, true, nil
	s.begin(st)
	if !s.synced {
		return nil // there may be a million of them: their number says it
	}
	return s.tell(s.about(EventAdded, st))
}

// begin takes what the kernel has counted of an SA, and what was seen of it and
// proved before this process.
func (s *states) begin(st *state) {
	now := s.set.Clock.Now()
	seen, _, _ := s.set.Hot.ReadAt(st.slot, st.SPI)
	_, before := s.set.EvidenceAt(st.slot, st.SPI)
	looked := now
	if !s.synced {
		looked = s.began // what came since then may be in no counter of the dump
	}
	st.proof.begin(looked, seen, st.Counters, used(st.Counters, now))
	if st.proves() && st.proof.auth > before {
		s.followed.Stamp(st.slot, st.SPI, st.proof.auth)
	}
	st.proof.auth = max(st.proof.auth, before)
}

func (s *states) refuse(st *state, err error) error {
	known := st.refused != nil
	st.refused = err
	if known {
		return nil
	}
	f := s.about(EventUntracked, st)
	f.Error = err.Error()
	return s.tell(f)
}

func (s *states) update(st *state, now xfrm.SA) error {
	from, to := st.SA, now
	st.SA = now
	// An update's event shows the request, which is new and has counted nothing.
	// The next look has what the kernel counts.
	st.Counters = from.Counters
	switch {
	case !st.tracked:
		return s.place(st)
	case from.Peer() == to.Peer() && from.Local() == to.Local():
		return nil
	}
	if err := s.followed.Move(st.inMaps(), st.Local(), st.Peer()); err != nil {
		return errors.Join(s.remove(st), s.place(st))
	}
	st.heard = netip.AddrPort{}
	return s.tell(s.about(EventMoved, st))
}

func (s *states) remove(st *state) error {
	if !st.tracked {
		return nil
	}
	gone := s.about(EventRemoved, st) // as it was last
	st.tracked = false
	if err := s.followed.Untrack(st.inMaps()); err != nil {
		return fmt.Errorf("%s: %w", st.Key, err)
	}
	return s.tell(gone)
}

// hear notes that a peer is heard from elsewhere, once for each place: the
// kernel may say so with every packet.
func (s *states) hear(st *state, at netip.AddrPort) error {
	if !st.tracked {
		return nil
	}
	st.heardAt = s.set.Clock.Now()
	if st.heard == at {
		return nil
	}
	st.heard = at
	f := s.about(EventHeard, st)
	f.Heard = at.String()
	return s.tell(f)
}

// setLocals changes which addresses are ours, and with them which SAs are
// inbound.
func (s *states) setLocals(ours map[netip.Addr]bool) error {
	if stdmaps.Equal(s.locals, ours) {
		return nil
	}
	s.locals = ours
	var errs []error
	for _, st := range s.all {
		switch inbound := s.inbound(st.SA); {
		case inbound && !st.tracked:
			errs = append(errs, s.place(st))
		case !inbound && st.tracked:
			errs = append(errs, s.remove(st))
		case !inbound:
			st.refused = nil
		}
	}
	return errors.Join(errs...)
}

// used is when, by the kernel's wall clock, the SA was used last, or at least
// once; CLOCK_BOOTTIME as of now, 0 if it does not say.
func used(c xfrm.Counters, now int64) int64 {
	at := c.LastUsed
	if at.IsZero() {
		at = c.FirstUsed
	}
	if at.IsZero() {
		return 0
	}
	return max(1, now-max(0, int64(time.Since(at))))
}
