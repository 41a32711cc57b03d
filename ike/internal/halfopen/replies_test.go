package halfopen

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// TestReplies compares with the definition: an answer may go out if fewer than
// the limit did in the last second, and none to the same source.
func TestReplies(t *testing.T) {
	type sent struct {
		at mono.Time
		to netip.Addr
	}
	for _, limit := range []int{1, 3, 100} {
		rng := rand.New(rand.NewPCG(1, uint64(limit)))
		r := NewReplies(limit)
		var log []sent
		now := minute(1)
		allowed := 0
		for range 20000 {
			now += mono.Time(rng.Int64N(int64(time.Second) / int64(limit)))
			if rng.IntN(200) == 0 {
				now += mono.Time(time.Second)
			}
			to := v4(rng.Uint32N(uint32(2 * limit)))
			for len(log) > 0 && now-log[0].at >= mono.Time(time.Second) {
				log = log[1:]
			}
			want := len(log) < limit
			for _, s := range log {
				want = want && s.to != to
			}
			if got := r.Allow(now, to); got != want {
				t.Fatalf("limit %d at %d: %v, want %v with %d in the last second", limit, now, got, want, len(log))
			}
			if want {
				log = append(log, sent{now, to})
				allowed++
			}
		}
		if allowed < 1000 || allowed > 19000 {
			t.Errorf("limit %d: %d of 20000 allowed shows little", limit, allowed)
		}
	}
}

func TestRepliesOff(t *testing.T) {
	if NewReplies(0).Allow(minute(1), v4(1)) {
		t.Error("a limit of none let one through")
	}
}

// Who has said nothing yet has not said it just after boot.
func TestRepliesAfterBoot(t *testing.T) {
	r := NewReplies(2)
	for n := range uint32(3) {
		if got, want := r.Allow(minute(0)+1+mono.Time(n), v4(n)), n < 2; got != want {
			t.Errorf("answer %d after boot: %v, want %v", n, got, want)
		}
	}
}

func BenchmarkRepliesFlood(b *testing.B) {
	r := NewReplies(RepliesPerSecond)
	for n := uint32(0); b.Loop(); n++ {
		r.Allow(minute(1)+mono.Time(n)*100, v4(n))
	}
}

func TestReplyWindowIsExact(t *testing.T) {
	r := NewReplies(2)
	r.Allow(minute(1), v4(1))
	if r.Allow(minute(1)+mono.Time(time.Second)-1, v4(1)) {
		t.Error("a second answer to one source within a second")
	}
	if !r.Allow(minute(1)+mono.Time(time.Second), v4(1)) {
		t.Error("none a second later")
	}
}
