package bpf

import (
	"sync"
	"sync/atomic"
	"testing"
)

// racers run the same keepalive at the same moment; what they share must go to
// one of them. The window is some ten nanoseconds, hence the many rounds.
const (
	racers = 4
	rounds = 3000
)

// race runs one frame a racer, released together, and returns how many of them
// were answered.
func (r *rig) race(frames [racers][]byte) int {
	r.Helper()
	var answered atomic.Int32
	var ready, done sync.WaitGroup
	ready.Add(racers)
	for _, in := range frames {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			if verdict, _ := r.run(in); verdict == VerdictTX {
				answered.Add(1)
			}
		})
	}
	done.Wait()
	return int(answered.Load())
}

// Keepalives of one tuple on all CPUs: one is answered.
func TestOneAnswerOnManyCPUs(t *testing.T) {
	r := load(t, func(s *settings) { s.AnswerBudget = 1 << 30 })
	for round := range rounds {
		f := fromPort(uint16(1 + round%1000))
		r.peer(f, PeerEntry{Flags: PeerNATted})
		in := f.build()
		if n := r.race([racers][]byte{in, in, in, in}); n != 1 {
			t.Fatalf("round %d: %d answers to one tuple in one interval", round, n)
		}
	}
}

// Keepalives of different tuples on all CPUs when the budget has room for one.
func TestOneAnswerOfTheBudget(t *testing.T) {
	r := load(t, func(s *settings) { s.AnswerBudget = 1 })
	var frames [racers][]byte
	for i := range frames {
		frames[i] = fromPort(uint16(1 + i)).build()
	}
	for round := range rounds {
		for i := range frames {
			r.peer(fromPort(uint16(1+i)), PeerEntry{Flags: PeerNATted})
		}
		// Sometimes the tick has begun, sometimes this race begins it.
		r.put(r.IkepulseBudget, uint32(0), Budget{Tick: r.now - uint32(round%2)})
		if n := r.race(frames); n != 1 {
			t.Fatalf("round %d: %d answers of a budget of one", round, n)
		}
	}
}
