package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

// at is a reading that took no time, so long after the others began.
func at(after time.Duration, st *gateway.Status) reading {
	t := time.Date(2026, 3, 1, 13, 58, 31, 0, time.UTC).Add(after)
	return reading{t, t, st}
}

// later is what a status has become after a time in which everything went on
// being counted, by more each; 1 more of the second counter than of the first.
func later(t *testing.T, st *gateway.Status, after time.Duration, more uint64) *gateway.Status {
	out := status(t, gateway.Healthy, xdp(eth0))
	out.XDP.LoadedMS = st.XDP.LoadedMS + after.Milliseconds()
	out.IKE.UpMS = st.IKE.UpMS + after.Milliseconds()
	for i := range out.XDP.Counters {
		out.XDP.Counters[i].Frames += more * uint64(i)
	}
	out.IKE.Counters["established"] += more
	return out
}

// TestRenderRates: what is printed, at a terminal, to a pipe and as JSON.
func TestRenderRates(t *testing.T) {
	const passed = 2003 * time.Millisecond
	first := status(t, gateway.Healthy, xdp(eth0))
	second := later(t, first, passed, 4007)
	second.XDP.Counters[7].Frames = 1 // fewer than before
	second.Sockets[1].ESP += 1
	before, after := at(0, first), at(passed, second)
	before.status.Dataplane.Counters = nil // the counters of it appear
	rates := ratesOf(before, after)
	golden(t, "stats-rate", printed(t, func(w io.Writer) error { return renderRates(w, true, rates, false) }))
	golden(t, "stats-rate-pipe", printed(t, func(w io.Writer) error { return renderRates(w, false, rates, true) }))
	some := slices.DeleteFunc(slices.Clone(rates), func(r rated) bool {
		return r.Name != "esp_udp_known" && r.Name != "keepalive_limited" && r.Name != "in"
	})
	golden(t, "stats-rate-json", printed(t, func(w io.Writer) error { return statsOutput{env: env{stdout: w}, json: true}.rates(some) }))
	golden(t, "stats-watch", printed(t, func(w io.Writer) error {
		o := statsOutput{env: env{stdout: w, terminal: true}}
		return errors.Join(o.block(some, after), o.block(some[:1], at(2*passed, second)), o.block(nil, at(3*passed, &gateway.Status{})))
	}))
}

// TestRatesOfNewCounters: a counter that began anew has no rate, also where it
// is beyond where it was by then; the others have theirs.
func TestRatesOfNewCounters(t *testing.T) {
	const passed = 10 * time.Second
	first := status(t, gateway.Healthy, xdp(eth0))
	for name, c := range map[string]struct {
		change  func(before, after *gateway.Status)
		want    map[string]string // by place, of all of its counters
		elapsed time.Duration
	}{
		"nothing happened": {func(*gateway.Status, *gateway.Status) {}, map[string]string{"xdp": "rate", "ike": "rate"}, passed},
		"the daemon began anew": {func(_, after *gateway.Status) { after.IKE.UpMS = 9000 },
			map[string]string{"xdp": "rate", "ike": "reset"}, passed},
		"XDP was loaded anew": {func(_, after *gateway.Status) { after.XDP.LoadedMS = 9000 },
			map[string]string{"xdp": "reset", "ike": "rate"}, passed},
		"both had just begun": {func(before, after *gateway.Status) {
			before.XDP.LoadedMS, before.IKE.UpMS = 100, 100
			after.XDP.LoadedMS, after.IKE.UpMS = 9000, 9000
		}, map[string]string{"xdp": "reset", "ike": "reset"}, passed},
		"the host slept": {func(_, after *gateway.Status) {
			after.XDP.LoadedMS += 3600_000
			after.IKE.UpMS += 3600_000
		}, map[string]string{"xdp": "rate", "ike": "rate"}, passed},
		"the daemon was not there": {func(before, _ *gateway.Status) { before.Daemon = nil },
			map[string]string{"xdp": "rate", "ike": "none"}, passed},
		"XDP was not there": {func(before, _ *gateway.Status) { before.XDP = nil },
			map[string]string{"xdp": "none", "ike": "rate"}, passed},
		"the daemon has gone": {func(_, after *gateway.Status) { after.Daemon = nil },
			map[string]string{"xdp": "rate"}, passed},
	} {
		before, after := later(t, first, 0, 0), later(t, first, passed, 70)
		c.change(before, after)
		places := map[string]string{}
		for _, r := range ratesOf(at(0, before), at(passed, after)) {
			got := "none"
			switch {
			case r.Reset && r.PerSecond == nil:
				got = "reset"
			case r.PerSecond != nil && *r.PerSecond >= 0 && *r.PerSecond <= 7*8:
				got = "rate"
			case r.PerSecond != nil:
				t.Errorf("%s: %s %s: %v a second", name, r.Where, r.Name, *r.PerSecond)
			}
			if r.Where != "xdp" && r.Where != "ike" {
				continue
			}
			if was, there := places[r.Where]; there && was != got {
				t.Errorf("%s: %s %s is %s, others are %s", name, r.Where, r.Name, got, was)
			}
			places[r.Where] = got
		}
		if len(places) != len(c.want) || places["xdp"] != c.want["xdp"] || places["ike"] != c.want["ike"] {
			t.Errorf("%s: %v, want %v", name, places, c.want)
		}
	}
}

// TestPace: rates are by the time that has passed, not by the one that was
// asked for; a repetition ends well, the rest does not when it is interrupted.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		began, n := time.Now(), uint64(0)
		// Each reading is slower than the one before.
		read := func() (r reading, err error) {
			r.began = time.Now()
			time.Sleep(time.Duration(n) * 200 * time.Millisecond)
			r.ended = time.Now()
			x := xdp()
			x.LoadedMS, x.Counters[0].Frames = r.moment().Sub(began).Milliseconds(), 1000*n
			n++
			return reading{r.began, r.ended, &gateway.Status{XDP: x}}, nil
		}
		first, _ := read()
		var intervals []int64
		show := func(rates []rated, _ reading) error {
			r := rates[0]
			if gained := *r.PerSecond * float64(r.IntervalMS) / 1000; gained < 999.99 || gained > 1000.01 {
				t.Errorf("%v a second in %v ms", *r.PerSecond, r.IntervalMS)
			}
			if intervals = append(intervals, r.IntervalMS); len(intervals) == 3 {
				interrupt()
			}
			return nil
		}
		if err := (pace{time.Second, true}).follow(ctx, first, read, show); err != nil || !slices.Equal(intervals, []int64{1100, 1100, 1100}) {
			t.Errorf("%v, intervals of %v ms", err, intervals)
		}
		if err := (pace{time.Second, false}).follow(ctx, first, read, show); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: %v", err)
		}
		n = 0
		if err := (pace{time.Second, false}).follow(t.Context(), first, read, func([]rated, reading) error { n += 100; return nil }); err != nil || n != 101 {
			t.Errorf("once: %v, %d readings and shows", err, n)
		}
	})
}
