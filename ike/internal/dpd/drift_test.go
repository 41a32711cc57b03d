package dpd

import (
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

func TestDrifted(t *testing.T) {
	probe := Verdict{Probe, sec(1000), Elsewhere}
	wait := func(why Reason) Verdict { return Verdict{Wait, 0, why} }
	alive := Evidence{Auth: sec(1000), IKE: sec(999), RoundTrip: sec(999)}
	out := Evidence{Outstanding: true}
	for _, c := range []struct {
		name string
		c    Config
		e    Evidence
		last mono.Time
		want Verdict
	}{
		{"the first, of one who lives", policy(Idle), alive, 0, probe},
		{"of one who is silent", policy(Idle), Evidence{}, 0, probe},
		{"on demand, though nothing was sent", policy(OnDemand), alive, 0, probe},
		{"periodic", policy(Periodic), alive, 0, probe},
		{"off", policy(Off), alive, 0, wait(Disabled)},
		{"without delay", Config{Mode: Idle}, alive, 0, wait(Disabled)},
		{"any request is the probe", policy(Idle), out, 0, wait(InProgress)},
		{"also when all tries are used up", policy(Idle), Evidence{Outstanding: true, Exhausted: true}, 0, wait(InProgress)},
		{"at the same moment", policy(Idle), alive, sec(1000), wait(TooSoon)},
		{"a nanosecond before the pause is over", policy(Idle), alive, sec(1000).Add(-DriftPause) + 1, wait(TooSoon)},
		{"when it is over", policy(Idle), alive, sec(1000).Add(-DriftPause), probe},
		{"too soon, whatever else", policy(Off), out, sec(999), wait(TooSoon)},
	} {
		if got := Drifted(sec(1000), c.c, c.e, c.last); got != c.want {
			t.Errorf("%s: %v %v until %d, want %v %v until %d", c.name,
				got.Action, got.Why, got.Until, c.want.Action, c.want.Why, c.want.Until)
		}
	}
}

// However often somebody forges, a peer is asked once a pause.
func TestDriftsArePaced(t *testing.T) {
	var last mono.Time
	var asked []mono.Time
	for now := sec(1); now <= sec(1).Add(3*DriftPause); now = now.Add(10 * time.Millisecond) {
		v := Drifted(now, policy(Idle), Evidence{}, last)
		if v.Why == TooSoon {
			continue
		}
		if last = now; v.Action == Probe {
			asked = append(asked, now)
		}
	}
	for i, at := range asked {
		if want := sec(1).Add(time.Duration(i) * DriftPause); at != want {
			t.Errorf("asked at %d, want %d", at, want)
		}
	}
	if len(asked) != 4 {
		t.Errorf("asked %d times", len(asked))
	}
}
