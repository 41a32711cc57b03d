package shard

import (
	"cmp"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// Down is a connection that is to be up and is not.
type Down struct {
	Connection string `json:"connection"`
	DownMS     int64  `json:"down_ms"`
	Why        string `json:"why"`                  // the last tunnel went, or could not be had
	CallInMS   *int64 `json:"call_in_ms,omitempty"` // nil: it is being called
}

const (
	// mostDown is how many of them are named.
	mostDown = 5
	// firstCall is how long the first call may take before it is told.
	firstCall = 10 * time.Second
)

// down names those that have been down for the longest, and counts all.
func (ds *dialers) down(now mono.Time) (longest []Down, total int) {
	var list []*dialer
	for _, d := range ds.list {
		if ds.has(d) || !d.missing(now) {
			continue
		}
		total++
		list = append(list, d)
		if len(list) > 2*mostDown {
			list = longestDown(list, func(d *dialer) int64 { return int64(d.since) })
		}
	}
	for _, d := range longestDown(list, func(d *dialer) int64 { return int64(d.since) }) {
		one := Down{Connection: d.conn.Name, DownMS: now.Sub(d.since).Milliseconds(), Why: d.why}
		if one.Why == "" {
			one.Why = "the peer does not answer"
		}
		if d.dueAt != 0 {
			ms := max(d.dueAt.Sub(now), 0).Milliseconds()
			one.CallInMS = &ms
		}
		longest = append(longest, one)
	}
	return longest, total
}

// missing reports whether a connection is to be up, and our call has brought no tunnel.
func (d *dialer) missing(now mono.Time) bool {
	return d.conn.Start && !d.kept && d.since != 0 && (d.why != "" || now.Sub(d.since) >= firstCall)
}

func longestDown[T any](list []T, since func(T) int64) []T {
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(since(a), since(b)) })
	return list[:min(len(list), mostDown)]
}
