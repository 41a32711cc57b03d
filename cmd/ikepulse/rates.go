package main

import (
	"context"
	"math"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

// leastInterval is the shortest time that rates are taken over: a reading is
// some milliseconds long itself.
const leastInterval = 100 * time.Millisecond

// reading is an instance's counters at a moment between two others.
type reading struct {
	began, ended time.Time
	status       *gateway.Status
}

func read(c *cli.Context) (r reading, err error) {
	r.began = time.Now()
	r.status, err = instanceOf(c).status(c.Context) // whose socket may have moved
	r.ended = time.Now()
	return r, err
}

// moment is when the counters were most likely read.
func (r reading) moment() time.Time { return r.began.Add(r.ended.Sub(r.began) / 2) }

func (r reading) empty() bool { return r.status.Daemon == nil && r.status.XDP == nil }

// age is how long the counters of a place have been kept.
func (r reading) age(where string) time.Duration {
	ms := int64(0)
	switch {
	case where == whereXDP:
		ms = r.status.XDP.LoadedMS
	case r.status.Daemon != nil:
		ms = r.status.IKE.UpMS
	}
	return time.Duration(ms) * time.Millisecond
}

// rated is a counter with what it gained a second between two readings.
type rated struct {
	stat
	PerSecond  *float64  `json:"per_second,omitempty"` // not of a counter that was not there, or began anew
	Reset      bool      `json:"reset,omitempty"`      // it began anew in between
	IntervalMS int64     `json:"interval_ms"`          // as it was measured
	Time       time.Time `json:"time"`                 // of the later reading
}

// ratesOf compares two readings.
func ratesOf(before, after reading) []rated {
	type key struct{ where, name string }
	had := map[key]uint64{}
	for _, s := range statsOf(before.status) {
		had[key{s.Where, s.Name}] = s.Count
	}
	passed := after.moment().Sub(before.moment())
	out := []rated{}
	for _, s := range statsOf(after.status) {
		r := rated{stat: s, IntervalMS: passed.Milliseconds(), Time: after.moment().Round(time.Millisecond)}
		was, there := had[key{s.Where, s.Name}]
		switch {
		case !there:
		case s.Count < was || anew(before, after, s.Where):
			r.Reset = true
		default:
			perSecond := math.Round(float64(s.Count-was)/passed.Seconds()*1e6) / 1e6
			r.PerSecond = &perSecond
		}
		out = append(out, r)
	}
	return out
}

// anew tells whether a place's counters began again between two readings, even
// if they are beyond where they were: then they are younger than time would
// have made them.
func anew(before, after reading, where string) bool {
	const rounding = 10 * time.Millisecond
	return after.age(where) < before.age(where)+after.began.Sub(before.ended)-rounding
}

// pace is how often counters are read.
type pace struct {
	every  time.Duration // 0: once, without rates
	repeat bool
}

func paceOf(c *cli.Context) (p pace, err error) {
	if c.IsSet("rate") && c.IsSet("watch") {
		return p, usage("stats takes --rate, which ends, or --watch, which goes on, not both")
	}
	for _, name := range []string{"rate", "watch"} {
		if !c.IsSet(name) {
			continue
		}
		p = pace{c.Duration(name), name == "watch"}
		if p.every < leastInterval {
			return p, usage("--%s %v: not less than %v, or the readings themselves would count for too much", name, p.every, leastInterval)
		}
	}
	return p, nil
}

// follow reads again and shows the rates since the reading before: once, or
// until ctx ends, which is how a repetition is meant to end.
func (p pace) follow(ctx context.Context, before reading, read func() (reading, error), show func([]rated, reading) error) error {
	next := time.NewTicker(p.every)
	defer next.Stop()
	interrupted := func() error {
		if p.repeat {
			return nil
		}
		return ctx.Err()
	}
	for {
		select {
		case <-ctx.Done():
			return interrupted()
		case <-next.C:
		}
		after, err := read()
		if ctx.Err() != nil {
			return interrupted()
		}
		if err == nil {
			err = show(ratesOf(before, after), after)
		}
		if err != nil || !p.repeat {
			return err
		}
		before = after
	}
}
