package loadtest

import (
	"context"
	"sync"
	"time"

	"github.com/ikepulse/ikepulse/ike"
)

// scores are what has become of the peers so far. Any goroutine may touch them.
type scores struct {
	mu         sync.Mutex
	stage      string // what is done now, "" while the peers call
	began, end time.Time
	begun      int
	retries    uint64 // key exchanges of a handshake that were refused before its first message
	up         []time.Duration
	failed     map[string]int    // by reason
	unfinished map[string]int    // under way when the test was ended, by the last complaint
	complaints map[string]string // by connection, what an answer said that proves nothing
	complaint  string            // the last of them
}

func newScores() *scores {
	return &scores{failed: map[string]int{}, unfinished: map[string]int{}, complaints: map[string]string{}}
}

// note changes the scores.
func (s *scores) note(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// hear takes note of answers that refuse without proof. The engine goes on
// waiting for better ones, since anybody could have sent these.
func (s *scores) hear(events <-chan ike.Event) {
	for ev := range events {
		if ev.Refusal != nil && ev.Refusal.Unauthenticated {
			s.note(func() { s.complaints[ev.Connection], s.complaint = ev.Notify, ev.Notify })
		}
	}
}

// Progress is how a test goes.
type Progress struct {
	Peers, Begun, Up, Failed int
	Elapsed                  time.Duration
	// Stage is what is done now, "" while the peers call.
	Stage string
	// Complaint is what the gateway has last refused without proof, so that
	// the peers still wait.
	Complaint string
}

// progressEvery is how often Progress is told.
const progressEvery = 250 * time.Millisecond

// watch tells the progress until ctx ends.
func (r *run) watch(ctx context.Context) {
	for r.Progress != nil && sleep(ctx, progressEvery) {
		r.Progress(r.progress(time.Now()))
	}
}

func (r *run) progress(now time.Time) (p Progress) {
	r.note(func() {
		p = Progress{Peers: r.Peers, Begun: r.begun, Up: len(r.up), Elapsed: now.Sub(r.began), Stage: r.stage}
		for _, n := range r.failed {
			p.Failed += n
		}
		if p.Up == 0 {
			p.Complaint = r.complaint
		}
	})
	return p
}
