package halfopen

import (
	"hash/maphash"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

const (
	completionEntries = 4096
	// completionTime is how long a completed handshake speaks for its source:
	// between once and twice this. The retransmissions of those who came
	// together come together, up to a minute apart.
	completionTime = time.Minute
	// flowTime is how long after a completion places are likely to become free
	// by the next.
	flowTime = time.Second
)

// completions remember how many handshakes a source has completed of late. The
// memory is fixed: of sources that share an entry the one with most keeps it,
// so that many small ones do not make a carrier's NAT forgotten.
type completions struct {
	seed    maphash.Seed
	sources [completionEntries]completion
}

type completion struct {
	source      source
	last        mono.Time
	since       mono.Time // of now
	now, before int       // completed in this time, and in the one before it
}

func (c *completions) entry(s source) *completion {
	return &c.sources[maphash.Comparable(c.seed, s)%completionEntries]
}

// aged is the entry as it is now.
func (e completion) aged(now mono.Time) completion {
	switch age := now.Sub(e.since); {
	case age >= 2*completionTime:
		e.now, e.before, e.since = 0, 0, now
	case age >= completionTime:
		e.now, e.before, e.since = 0, e.now, e.since.Add(completionTime)
	}
	return e
}

// add counts one. Where the entry is another's, it takes one from him, and is
// the newcomer's once nothing is left.
func (c *completions) add(now mono.Time, s source) {
	e := c.entry(s)
	*e = e.aged(now)
	switch {
	case e.source == s:
		e.now++
		e.last = now
	case e.before > 0:
		e.before--
	case e.now > 0:
		e.now--
	default:
		*e = completion{source: s, last: now, since: now, now: 1}
	}
}

// recent is how many a source has completed; asking changes nothing.
func (c *completions) recent(now mono.Time, s source) int {
	e := c.entry(s).aged(now)
	if e.source != s {
		return 0
	}
	return e.now + e.before
}

// flowing reports whether a source has just completed one.
func (c *completions) flowing(now mono.Time, s source) bool {
	e := c.entry(s)
	return e.source == s && now.Sub(e.last) < flowTime
}
