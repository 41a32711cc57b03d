package loadtest

import (
	"context"
	"testing"
	"time"
)

// TestPace: what began late is counted, and moves nothing behind it.
func TestPace(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	p := pace{rate: 100}
	p.begin(start)
	for n, began := range []int{0, 10, 45, 46, 47, 50} { // planned every 10 ms
		if want := at(10 * n); !p.next().Equal(want) {
			t.Errorf("handshake %d is due after %v", n, p.next().Sub(start))
		}
		p.begun(at(began))
	}
	if p.late != 2 || p.lateBy != 25*time.Millisecond {
		t.Errorf("%d late, by %v", p.late, p.lateBy)
	}
	p.begin(at(900))
	if !p.next().Equal(at(900)) {
		t.Error("a new plan begins elsewhere")
	}
}

// TestPaceAtOnce: everything is due at once, and nothing is late.
func TestPaceAtOnce(t *testing.T) {
	p := pace{}
	p.begin(time.Now().Add(-time.Hour))
	for range 3 {
		if !p.wait(t.Context()) {
			t.Fatal("not due")
		}
		p.begun(time.Now())
	}
	if p.late != 0 {
		t.Errorf("%d late", p.late)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if p.wait(ended) {
		t.Error("it goes on after its end")
	}
}
