package halfopen

import (
	"hash/maphash"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

const (
	finisherEntries = 4096
	// finisherTime is how long a handshake that was finished speaks for its
	// source: between once and twice this. The retransmissions of those who
	// came together come together, up to a minute apart.
	finisherTime = time.Minute
)

// finishers remember how many handshakes a source has finished of late. The
// memory is fixed; a source that falls out of it begins anew.
type finishers struct {
	seed    maphash.Seed
	sources [finisherEntries]finisher
}

type finisher struct {
	source      source
	since       mono.Time // of now
	now, before int       // finished in this time, and in the one before it
}

func (f *finishers) at(now mono.Time, s source) *finisher {
	e := &f.sources[maphash.Comparable(f.seed, s)%finisherEntries]
	switch age := now.Sub(e.since); {
	case e.source != s || age >= 2*finisherTime:
		*e = finisher{source: s, since: now}
	case age >= finisherTime:
		e.since, e.before, e.now = e.since.Add(finisherTime), e.now, 0
	}
	return e
}

func (f *finishers) finished(now mono.Time, s source) { f.at(now, s).now++ }

func (f *finishers) lately(now mono.Time, s source) int {
	e := f.at(now, s)
	return e.now + e.before
}
