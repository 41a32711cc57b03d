package shard

import (
	"math/bits"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// lag is how long what comes has to wait for a loop. What comes while the loop
// is at work waits until its next turn begins, so each wait counts for as much
// time as it has taken: many short ones do not hide a long one. While the loop
// sleeps nothing waits, and nothing counts.
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

// at turns the windows to a time.
func (l *lag) at(now mono.Time) {
	switch age := now.Sub(l.windows[0].began); {
	case age >= 2*lagTime:
		l.windows = [2]lagWindow{{began: now}}
	case age >= lagTime:
		l.windows[1], l.windows[0] = l.windows[0], lagWindow{began: l.windows[0].began.Add(lagTime)}
	}
}

// add takes note of a wait that has ended now.
func (l *lag) add(now mono.Time, wait time.Duration) {
	l.at(now)
	l.max = max(l.max, wait)
	l.windows[0].spent[lagBucket(wait)] += wait
}

// p99 is the longest wait of the last half to whole minute, but for those in
// which the worst hundredth of its waiting was spent.
func (l *lag) p99(now mono.Time) time.Duration {
	l.at(now)
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
