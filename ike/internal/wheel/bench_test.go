package wheel

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

const (
	million = 1 << 20
	delay   = mono.Time(30 * time.Second)
)

// full is a wheel with a million deadlines spread over the next delay.
func full(rng *rand.Rand) *Wheel {
	w := New(10 * time.Millisecond)
	for id := range uint32(million) {
		w.Set(id, 1+mono.Time(rng.Int64N(int64(delay))))
	}
	return w
}

func BenchmarkSet(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var w *Wheel
	for i := 0; b.Loop(); i++ {
		if i%million == 0 {
			w = New(10 * time.Millisecond)
		}
		w.Set(uint32(i%million), 1+mono.Time(rng.Int64N(int64(delay))))
	}
	w = full(rng)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/million, "B/entry")
	runtime.KeepAlive(w)
}

// BenchmarkMove re-arms random ones of a million, as a message for an SA does.
func BenchmarkMove(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	w := full(rng)
	for b.Loop() {
		w.Set(rng.Uint32N(million), 1+mono.Time(rng.Int64N(int64(delay))))
	}
}

// BenchmarkFire is the steady state: a million that each fire every delay and
// are set again. One operation is one entry's whole round.
func BenchmarkFire(b *testing.B) {
	w := full(rand.New(rand.NewPCG(1, 2)))
	now, n := mono.Time(0), 0
	for b.Loop() {
		for ; n == 0; now += 1e7 {
			w.Advance(now, func(id uint32) { n++; w.Set(id, now+delay) })
		}
		n--
	}
}

// BenchmarkNext is what the shard asks before it sleeps.
func BenchmarkNext(b *testing.B) {
	w := full(rand.New(rand.NewPCG(1, 2)))
	for b.Loop() {
		w.Next()
	}
}
