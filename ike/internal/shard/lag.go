package shard

import (
	"math/bits"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// lag is how long what comes has to wait for a loop. What comes at any moment
// waits until the next turn begins, so each wait between two turns counts for
// as much time as it has taken: many short ones do not hide a long one.
type lag struct {
	max     time.Duration // ever
	windows [2]lagWindow  // the one being filled, and the one before it
}

// lagWindow is the time spent in waits of each length, by octaves and quarters
// of them.
type lagWindow struct {
	began mono.Time
	spent [lagBuckets]time.Duration
}

const (
	lagTime    = 30 * time.Second
	lagBuckets = 4 * 64
)

func lagBucket(d time.Duration) int {
	if d < 4 {
		return int(max(d, 0))
	}
	octave := bits.Len64(uint64(d)) - 1
	return octave*4 + int(d>>(octave-2))&3
}

// lagEdge is the longest wait that a bucket holds.
func lagEdge(bucket int) time.Duration {
	if bucket < 4 {
		return time.Duration(bucket)
	}
	octave, quarter := bucket/4, bucket%4
	return time.Duration(uint64(4+quarter+1)<<(octave-2)) - 1
}

// add takes note of a wait that has ended now.
func (l *lag) add(now mono.Time, wait time.Duration) {
	l.max = max(l.max, wait)
	if w := &l.windows[0]; now.Sub(w.began) >= lagTime {
		l.windows[1], l.windows[0] = *w, lagWindow{began: now}
	}
	l.windows[0].spent[lagBucket(wait)] += wait
}

// p99 is the wait that 99 of 100 moments of the last half to whole minute had
// at most.
func (l *lag) p99() time.Duration {
	var all time.Duration
	for b := range lagBuckets {
		all += l.windows[0].spent[b] + l.windows[1].spent[b]
	}
	var sum time.Duration
	for b := range lagBuckets {
		sum += l.windows[0].spent[b] + l.windows[1].spent[b]
		if sum > 0 && sum >= all/100*99 {
			return min(lagEdge(b), l.max)
		}
	}
	return 0
}
