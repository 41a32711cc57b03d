package halfopen

import (
	"cmp"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

const (
	// limitedEntries is how many sources are known by name that were turned
	// away; the one that has not been for longest makes room.
	limitedEntries = 16
	limitedTime    = 5 * time.Minute
)

// limited are the sources that were turned away of late: an operator wants to
// know them also when their first messages have gone.
type limited []limitedSource

type limitedSource struct {
	source source
	times  uint64
	last   mono.Time
}

func (l *limited) turnAway(now mono.Time, s source) {
	l.forget(now)
	at := slices.IndexFunc(*l, func(o limitedSource) bool { return o.source == s })
	if at < 0 {
		if len(*l) == limitedEntries {
			oldest := slices.MinFunc(*l, func(a, b limitedSource) int { return cmp.Compare(a.last, b.last) })
			*l = slices.DeleteFunc(*l, func(o limitedSource) bool { return o == oldest })
		}
		*l, at = append(*l, limitedSource{source: s}), len(*l)
	}
	(*l)[at].times++
	(*l)[at].last = now
}

// forget leaves those of the last minutes.
func (l *limited) forget(now mono.Time) {
	*l = slices.DeleteFunc(*l, func(o limitedSource) bool { return now.Sub(o.last) >= limitedTime })
}
