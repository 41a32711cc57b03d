package loadtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike"
)

// TestHandshakeBusy: a handshake that this process has no time for is tried
// again in its place, and nobody's refusal; the engine counts those that it has
// taken before.
func TestHandshakeBusy(t *testing.T) {
	answers := []error{ike.ErrBusy, fmt.Errorf("local failure: %w", ike.ErrBusy), ike.ErrBusy, nil}
	r := run{wire: &wire{calling: make(chan struct{}, 9)}, scores: newScores(), initiate: func(_ context.Context, name string) error {
		if name != "7" {
			t.Errorf("%s is called", name)
		}
		err := answers[0]
		answers = answers[1:]
		return err
	}}
	r.wire.enter(t.Context())
	r.handshake(t.Context(), 7)
	if len(r.up) != 1 || len(r.failed) != 0 || r.retries != 1 || len(answers) != 0 || len(r.wire.calling) != 1 {
		t.Errorf("%d up, failed %v, %d retries, %d places", len(r.up), r.failed, r.retries, len(r.wire.calling))
	}
}

// TestHandshakeTimeout: it ends a handshake, and the place of one that the engine
// has never taken.
func TestHandshakeTimeout(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(context.Context) error
		places int
	}{
		{"waiting", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 1},
		{"busy", func(context.Context) error { return ike.ErrBusy }, 0},
	} {
		r := run{Config: Config{Timeout: 3 * time.Millisecond}, wire: &wire{calling: make(chan struct{}, 9)}, scores: newScores(),
			initiate: func(ctx context.Context, _ string) error { return c.answer(ctx) }}
		r.wire.enter(t.Context())
		r.handshake(t.Context(), 0)
		if r.failed["not up within 3ms"] != 1 || len(r.wire.calling) != c.places {
			t.Errorf("%s: failed %v, %d places", c.name, r.failed, len(r.wire.calling))
		}
	}
}

// TestCallEnds: who is told to stop begins no other handshake, whatever it waits
// for.
func TestCallEnds(t *testing.T) {
	w := &wire{calling: make(chan struct{}, 1)}
	if !w.enter(t.Context()) {
		t.Error("there is no place")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if w.enter(ended) {
		t.Error("there is a place where all are taken")
	}
}

// TestSilent: that nothing could be sent is said instead of that nobody answers.
func TestSilent(t *testing.T) {
	gateway := netip.MustParseAddr("198.51.100.1")
	r := run{Config: Config{Gateway: gateway, Sources: []netip.Addr{gateway}}, wire: &wire{}}
	if err := r.silent(16); !strings.HasPrefix(err.Error(), "198.51.100.1 has answered none of the first 16 peers") {
		t.Error(err)
	}
	r.wire.failed = errBroken
	if err := r.silent(16); !errors.Is(err, errBroken) {
		t.Error(err)
	}
}
