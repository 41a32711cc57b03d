package loadtest

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike"
)

func TestPercentiles(t *testing.T) {
	times := func(n int) (out []time.Duration) {
		for i := n; i > 0; i-- { // not in their order
			out = append(out, time.Duration(i)*time.Millisecond)
		}
		return out
	}
	for _, c := range []struct {
		n             int
		p50, p99, max float64
	}{{1, 1, 1, 1}, {2, 1, 2, 2}, {3, 2, 3, 3}, {100, 50, 99, 100}, {101, 51, 100, 101}, {1000, 500, 990, 1000}} {
		var r Report
		r.setup(times(c.n))
		if *r.SetupP50MS != c.p50 || *r.SetupP99MS != c.p99 || *r.SetupMaxMS != c.max {
			t.Errorf("1 to %d ms: %v, %v, %v; want %+v", c.n, *r.SetupP50MS, *r.SetupP99MS, *r.SetupMaxMS, c)
		}
	}
	var r Report
	if r.setup(nil); r.SetupP50MS != nil || r.SetupMaxMS != nil {
		t.Error("nobody is up, and took a time for it")
	}
	if got := *percentile([]time.Duration{1234567}, 50); got != 1.2 {
		t.Errorf("1.234567 ms: %v", got)
	}
}

func TestRefusals(t *testing.T) {
	sum, got := refusals(map[string]int{"b": 2, "c": 7, "a": 2})
	if want := []Refusal{{"c", 7}, {"a", 2}, {"b", 2}}; sum != 11 || !reflect.DeepEqual(got, want) {
		t.Errorf("%d: %v, want %v", sum, got, want)
	}
	if sum, got := refusals(nil); sum != 0 || got == nil || len(got) != 0 {
		t.Errorf("none: %d, %#v, which is no list in JSON", sum, got)
	}
}

// TestReport: nobody is counted twice, and every time is in milliseconds.
func TestReport(t *testing.T) {
	began := time.Now()
	r := run{Config: Config{Gateway: netip.MustParseAddr("198.51.100.1"), Peers: 100, Rate: 7, Sources: make([]netip.Addr, 30)},
		wire: &wire{called: began.Add(1200 * time.Millisecond)}, pace: pace{late: 3, lateBy: 45 * time.Millisecond}, scores: newScores()}
	r.began, r.end, r.begun, r.retries = began, began.Add(2500*time.Millisecond), 60, 4
	r.up = []time.Duration{20 * time.Millisecond, 10 * time.Millisecond}
	r.failed = map[string]int{"a": 40, "b": 8}
	r.unfinished = map[string]int{"": 9, "c": 1}
	got := r.report(map[string]uint64{"retransmissions": 5, "key_exchanges_refused": 6, "ike_dropped": 70, "established": 1000})
	p50, most := 10.0, 20.0
	want := Report{Gateway: r.Gateway, Peers: 100, PerSecond: 7, Sources: 30, Up: 2, Refused: 48, Refusals: []Refusal{{"a", 40}, {"b", 8}},
		Unfinished: 10, Complaints: []Refusal{{"c", 1}}, NotCalled: 40, SetupP50MS: &p50, SetupP99MS: &most, SetupMaxMS: &most,
		WallMS: 2500, Retransmissions: 5, CallingMS: 1200, LateFirst: 3, LateMaxMS: 45, DroppedHere: 72}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	r.Peers, r.wire = 7, &wire{}
	if got := r.report(nil); got.Sources != 7 || got.CallingMS != 0 {
		t.Errorf("7 peers, none called: from %d addresses, within %d ms", got.Sources, got.CallingMS)
	}
}

// TestEnded: each peer is counted once, by how his handshake ended.
func TestEnded(t *testing.T) {
	r := run{Config: Config{Peers: 20, Timeout: 2 * time.Second}, scores: newScores()}
	events := make(chan ike.Event, 4)
	events <- ike.Event{Kind: "connecting", Connection: name(1), Notify: "none of these"}
	events <- ike.Event{Kind: "refused", Connection: name(2), Notify: "INVALID_SYNTAX", Refusal: &ike.Refusal{Unauthenticated: true}}
	events <- ike.Event{Kind: "refused", Connection: name(3), Notify: "NO_PROPOSAL_CHOSEN", Refusal: &ike.Refusal{Unauthenticated: true}}
	close(events)
	r.hear(events)
	silent, stop := context.WithCancelCause(t.Context())
	stop(errSilent)
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		peer int
		err  error
	}{
		{t.Context(), 1, context.DeadlineExceeded},
		{t.Context(), 2, context.DeadlineExceeded},
		{t.Context(), 4, ike.ErrBusy},
		{t.Context(), 5, errors.New("refused: the peer says TS_UNACCEPTABLE")},
		{silent, 6, context.Canceled},
		{silent, 7, context.Canceled},
		{interrupted, 3, context.Canceled},
		{interrupted, 8, ike.ErrBusy},
	} {
		r.ended(c.ctx, c.peer, time.Second, c.err)
	}
	if p := r.progress(time.Now()); p.Peers != 20 || p.Up != 0 || p.Failed != 6 || p.Complaint != "NO_PROPOSAL_CHOSEN" {
		t.Errorf("%+v", p)
	}
	r.ended(interrupted, 9, time.Second, nil)
	failed := map[string]int{"not up within 2s": 2, "INVALID_SYNTAX": 1, "TS_UNACCEPTABLE": 1, noAnswer: 2}
	unfinished := map[string]int{"NO_PROPOSAL_CHOSEN": 1, "": 1}
	if len(r.up) != 1 || !reflect.DeepEqual(r.failed, failed) || !reflect.DeepEqual(r.unfinished, unfinished) {
		t.Errorf("%d up, failed %v, unfinished %v", len(r.up), r.failed, r.unfinished)
	}
	if p := r.progress(time.Now()); p.Up != 1 || p.Complaint != "" {
		t.Errorf("%+v", p)
	}
}
