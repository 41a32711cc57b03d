package shard

import (
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

// closing is the end of a shard: each SA is deleted politely, at a pace that
// neither socket nor peers choke on, and what is left after a time goes
// without.
type closing struct {
	todo  []uint64 // SPIs to say goodbye to
	share int      // how many at once
	next  mono.Time
	end   mono.Time
}

const (
	closeTime   = 5 * time.Second // at most, over all
	closeSpread = 3 * time.Second // for all goodbyes; then their answers are waited for
	closeStep   = 10 * time.Millisecond
	closeSteps  = int(closeSpread / closeStep)
)

// beginClosing lets no SA begin any more, and has all deleted.
func (s *Shard) beginClosing(now mono.Time) {
	c := &closing{next: now, end: now.Add(closeTime)}
	for spi := range s.table.bySPI {
		c.todo = append(c.todo, spi)
	}
	c.share = (len(c.todo) + closeSteps - 1) / closeSteps
	s.closing = c
}

// closeSome says the goodbyes that are due.
func (s *Shard) closeSome(now mono.Time) {
	c := s.closing
	if c == nil {
		return
	}
	if now >= c.end {
		s.dropAll(now)
		return
	}
	if c.next == 0 || now < c.next {
		return
	}
	n := min(c.share, len(c.todo))
	for _, spi := range c.todo[:n] {
		s.onMessage(now, func(now mono.Time) { s.tell(now, spi, sa.Terminate{}) })
	}
	c.todo = c.todo[n:]
	c.next = 0
	if len(c.todo) > 0 {
		c.next = now.Add(closeStep)
	}
}

// dropAll ends what is left without a word.
func (s *Shard) dropAll(now mono.Time) {
	for _, e := range s.table.slab {
		if e != nil {
			s.onMessage(now, func(now mono.Time) {
				s.begin(e)
				s.report(now, e, sa.Event{Kind: sa.Closed, Reason: sa.DeletedByUs, Path: e.sa.Path()})
				s.drop(now, e)
			})
		}
	}
}

// finished tells that the loop has nothing left to do, for ever.
func (s *Shard) finished() bool { return s.closing != nil && len(s.table.bySPI) == 0 }

func (s *Shard) nextClosing() mono.Time {
	if s.closing == nil {
		return 0
	}
	return mono.Earliest(s.closing.next, s.closing.end)
}
