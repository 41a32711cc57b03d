package follow

import (
	"errors"
	"net/netip"
	"time"

	"github.com/ikepulse/ikepulse/ike/xfrm"
)

const (
	// dumpAll: so few states that reading all of them costs nothing, and every
	// proof is as new as the look.
	dumpAll = 4096
	// dumpFrom: reading one state costs what twelve cost in a dump.
	dumpFrom = 12
)

// counters reads what the kernel has counted for the SAs in question, and for
// others if that is cheaper. SAs that are gone are missing.
type counters func(due []*state, all int) (map[xfrm.Key]xfrm.Counters, error)

// readCounters is counters from the kernel.
func readCounters(r *xfrm.Reader) counters {
	return func(due []*state, all int) (map[xfrm.Key]xfrm.Counters, error) {
		found := make(map[xfrm.Key]xfrm.Counters, len(due))
		if all <= dumpAll || len(due) > all/dumpFrom {
			_, err := r.All(func(sa xfrm.SA) { found[sa.Key] = sa.Counters })
			return found, err
		}
		for _, st := range due {
			sa, err := r.Read(st.Key, st.Mark)
			if errors.Is(err, xfrm.ErrGone) {
				continue
			}
			if err != nil {
				return nil, err
			}
			found[st.Key] = sa.Counters
		}
		return found, nil
	}
}

// look compares what XDP saw with what the kernel authenticated, and tells
// what has become of the alarms.
func (s *states) look(read counters) error {
	due, seen := s.due()
	now := s.set.Clock.Now() // before the counters: nothing is credited too late
	found, err := read(due, len(s.all))
	if err != nil {
		return err
	}
	for i, st := range due {
		if c, there := found[st.Key]; there {
			if err := s.judge(st, now, seen[i], c); err != nil {
				return err
			}
		}
	}
	return s.again()
}

// due are the SAs whose counters are worth a look, with XDP's ticks: read
// before the counters, so that a packet in between is no alarm.
func (s *states) due() (due []*state, seen []uint32) {
	for _, st := range s.all {
		if !st.tracked || !st.proves() {
			continue
		}
		tick, _, _ := s.set.Hot.ReadAt(st.slot, st.SPI)
		if tick != st.proof.seen || len(s.all) <= dumpAll {
			due, seen = append(due, st), append(seen, tick)
		}
	}
	return due, seen
}

// heardFor: who is authenticated for so long, and not heard from elsewhere,
// has come back. The kernel may leave seconds between two notices.
const heardFor = int64(time.Minute)

// staleTicks is for how long XDP may have seen nothing of a packet that the kernel
// counts now: it rounds down to ticks, and is read before.
const staleTicks = 4

func (s *states) judge(st *state, now int64, seen uint32, c xfrm.Counters) error {
	auth, alarmed := st.proof.auth, st.alarm() != ""
	st.Counters = c
	// A packet from this host comes by no interface that XDP could be on.
	stale := now-s.set.Clock.BootAt(seen, now) > staleTicks*int64(s.set.Clock.Tick()) && !s.locals[st.Peer().Addr()]
	st.proof.look(now, seen, stale, c, used(c, now))
	if st.proof.auth > auth {
		s.followed.Stamp(st.slot, st.SPI, st.proof.auth)
	}
	if st.heard.IsValid() && st.proof.auth-st.heardAt > heardFor {
		st.heard = netip.AddrPort{}
	}
	switch {
	case alarmed == (st.alarm() != ""):
		return nil
	case alarmed:
		return s.tell(s.about(EventAlarmOver, st))
	}
	return s.tell(s.about(EventAlarm, st))
}

// again tries those for which there was no room.
func (s *states) again() error {
	for _, st := range s.all {
		if st.refused != nil && !st.tracked {
			if err := s.place(st); err != nil {
				return err
			}
		}
	}
	return nil
}
