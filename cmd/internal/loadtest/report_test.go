package loadtest

import (
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
	got := refusals(map[string]int{"b": 2, "c": 7, "a": 2})
	if want := []Refusal{{"c", 7}, {"a", 2}, {"b", 2}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := refusals(nil); got == nil || len(got) != 0 {
		t.Errorf("none: %#v, which is no list in JSON", got)
	}
}

// TestScores: each peer is counted once, by how his handshake ended.
func TestScores(t *testing.T) {
	s := newScores()
	events := make(chan ike.Event, 3)
	events <- ike.Event{Kind: "connecting", Connection: name(2)}
	events <- ike.Event{Kind: "complaint", Connection: name(3), Notify: "NO_PROPOSAL_CHOSEN"}
	close(events)
	s.hear(events)
	s.ended(time.Second, "")
	s.ended(time.Second, s.late(3, 2*time.Second))
	s.ended(time.Second, s.late(4, 2*time.Second))
	s.ended(time.Second, noAnswer)
	s.ended(time.Second, noAnswer)
	want := map[string]int{"NO_PROPOSAL_CHOSEN": 1, "not up within 2s": 1, noAnswer: 2}
	if len(s.up) != 1 || !reflect.DeepEqual(s.failed, want) {
		t.Errorf("%d up, %v; want %v", len(s.up), s.failed, want)
	}
	r := run{Config: Config{Peers: 9}, scores: s}
	p := r.progress(time.Now())
	if p.Peers != 9 || p.Up != 1 || p.Failed != 4 || p.Complaint != "" {
		t.Errorf("%+v", p)
	}
}
