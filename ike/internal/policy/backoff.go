package policy

import (
	"math"
	"time"
)

// Backoff says when an unanswered request is sent again: Tries times, the nth
// wait being Timeout × Base^n, and one more wait before it counts as
// unanswered.
type Backoff struct {
	Timeout time.Duration
	Base    float64
	Tries   int
}

// DefaultBackoff gives up after 165 s.
var DefaultBackoff = Backoff{Timeout: 4 * time.Second, Base: 1.8, Tries: 5}

// Wait is how long to wait for an answer after the nth retransmission, where
// the 0th is the request itself.
func (b Backoff) Wait(n int) time.Duration {
	return time.Duration(float64(b.Timeout) * math.Pow(b.Base, float64(n)))
}

// Total is the time from the request to its being given up.
func (b Backoff) Total() time.Duration {
	var sum time.Duration
	for n := range b.Tries + 1 {
		sum += b.Wait(n)
	}
	return sum
}
