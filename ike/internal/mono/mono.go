// Package mono is time as the IKE core sees it: nanoseconds of one kernel
// clock, read at the edge and handed in.
package mono

import "time"

// Time is an instant of CLOCK_BOOTTIME in nanoseconds: it never steps, counts
// through suspend, and is the clock that the maps' ticks are converted to.
// The zero Time means "never".
type Time int64

// Add returns t moved by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns the time from u to t.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Earliest returns the first of the given instants, where zero means "never"
// and so comes last; it is zero if all of them are.
func Earliest(ts ...Time) Time {
	var first Time
	for _, t := range ts {
		if t != 0 && (first == 0 || t < first) {
			first = t
		}
	}
	return first
}
