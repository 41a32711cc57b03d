package dpd

import (
	"math"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// sec is an instant s seconds after the boot of these tests' machine.
func sec(s int64) mono.Time { return mono.Time(s) * mono.Time(time.Second) }

// policy is the product's default: idle, 30 s, 10 min.
func policy(m Mode) Config {
	return Config{Mode: m, Delay: 30 * time.Second, MaxSuppress: 10 * time.Minute}
}

func TestJudge(t *testing.T) {
	wait := func(until mono.Time, why Reason) Verdict { return Verdict{Wait, until, why} }
	probe := func(due mono.Time, why Reason) Verdict { return Verdict{Probe, due, why} }
	fresh := Evidence{IKE: sec(1000), RoundTrip: sec(1000)} // just established
	with := func(change func(*Evidence)) Evidence { e := fresh; change(&e); return e }

	for _, c := range []struct {
		name string
		mode Mode
		now  mono.Time
		e    Evidence
		want Verdict
	}{
		{"young", Idle, sec(1029), fresh, wait(sec(1030), Alive)},
		{"a nanosecond before it is due", Idle, sec(1030) - 1, fresh, wait(sec(1030), Alive)},
		{"due", Idle, sec(1030), fresh, probe(sec(1030), Silent)},
		{"overdue: since when is told", Idle, sec(1100), fresh, probe(sec(1030), Silent)},
		{"ESP re-arms", Idle, sec(1030), with(func(e *Evidence) { e.Auth = sec(1010) }), wait(sec(1040), Alive)},
		{"IKE re-arms", Idle, sec(1030), with(func(e *Evidence) { e.IKE = sec(1020) }), wait(sec(1050), Alive)},
		{"a round trip is IKE", Idle, sec(1030), with(func(e *Evidence) { e.RoundTrip = sec(1020) }), wait(sec(1050), Alive)},
		{"the newest counts", Idle, sec(1045), with(func(e *Evidence) { e.Auth, e.IKE = sec(1020), sec(1015) }), wait(sec(1050), Alive)},
		{"what we send does not re-arm", Idle, sec(1030), with(func(e *Evidence) { e.Sent = sec(1030) }), probe(sec(1030), Silent)},
		{"a hint does not re-arm", Idle, sec(1030), with(func(e *Evidence) { e.Seen = sec(1030) }), probe(sec(1030), Unauthenticated)},
		{"a hint just after the last proof is its echo", Idle, sec(1030), with(func(e *Evidence) { e.Seen = sec(1015) }), probe(sec(1030), Silent)},
		{"a hint changes no waiting", Idle, sec(1010), with(func(e *Evidence) { e.Seen = sec(1010) }), wait(sec(1030), Alive)},
		{"never heard of", Idle, sec(1030), Evidence{}, probe(sec(30), Silent)},

		{"max_suppress with live ESP", Idle, sec(1600), with(func(e *Evidence) { e.Auth = sec(1600) }), probe(sec(1600), Suppressed)},
		{"max_suppress announces itself", Idle, sec(1590), with(func(e *Evidence) { e.Auth = sec(1590) }), wait(sec(1600), Alive)},
		{"max_suppress and a request of the peer", Idle, sec(1600), with(func(e *Evidence) { e.IKE = sec(1600) }), probe(sec(1600), Suppressed)},
		{"max_suppress after idle", Idle, sec(2000), with(func(e *Evidence) { e.Auth = sec(1560) }), probe(sec(1590), Silent)},

		{"on demand: sent since", OnDemand, sec(1030), with(func(e *Evidence) { e.Sent = sec(1001) }), probe(sec(1030), Silent)},
		{"on demand: sent before the last proof", OnDemand, sec(1030), with(func(e *Evidence) { e.Sent = sec(1000) }), wait(sec(1060), NothingSent)},
		{"on demand: nothing sent, looks again", OnDemand, sec(1090), fresh, wait(sec(1120), NothingSent)},
		{"on demand: young", OnDemand, sec(1029), fresh, wait(sec(1030), Alive)},
		{"on demand: answered", OnDemand, sec(1030), with(func(e *Evidence) { e.Sent, e.Auth = sec(1001), sec(1002) }), wait(sec(1032), Alive)},
		{"on demand: a hint is no reason", OnDemand, sec(1030), with(func(e *Evidence) { e.Seen = sec(1030) }), wait(sec(1060), NothingSent)},
		{"on demand: sent, and hints", OnDemand, sec(1030), with(func(e *Evidence) { e.Sent, e.Seen = sec(1030), sec(1030) }), probe(sec(1030), Unauthenticated)},
		{"on demand: max_suppress though nothing was sent", OnDemand, sec(1600), fresh, probe(sec(1600), Suppressed)},
		{"on demand: looks again at max_suppress", OnDemand, sec(1595), fresh, wait(sec(1600), NothingSent)},

		{"periodic: whatever the ESP", Periodic, sec(1030), with(func(e *Evidence) { e.Auth = sec(1030) }), probe(sec(1030), PeriodPassed)},
		{"periodic: not yet", Periodic, sec(1029), with(func(e *Evidence) { e.Auth = sec(1029) }), wait(sec(1030), Alive)},
		{"periodic: after an exchange of ours", Periodic, sec(1030), with(func(e *Evidence) { e.RoundTrip = sec(1005) }), wait(sec(1035), Alive)},

		{"off", Off, sec(99999), fresh, wait(0, Disabled)},

		{"any request is the probe", Idle, sec(1030), with(func(e *Evidence) { e.Outstanding = true }), wait(0, InProgress)},
		{"also for max_suppress", Idle, sec(1700), with(func(e *Evidence) { e.Outstanding = true }), wait(0, InProgress)},
		{"also in periodic mode", Periodic, sec(1700), with(func(e *Evidence) { e.Outstanding = true }), wait(0, InProgress)},
		{"exhausted", Idle, sec(1200), with(func(e *Evidence) { e.Outstanding, e.Exhausted = true, true }), Verdict{Dead, 0, Unanswered}},
		{"exhausted, whatever the mode", Off, sec(1200), with(func(e *Evidence) { e.Exhausted = true }), Verdict{Dead, 0, Unanswered}},
		{"exhausted, whatever the ESP", Idle, sec(1200), with(func(e *Evidence) { e.Exhausted, e.Auth = true, sec(1200) }), Verdict{Dead, 0, Unanswered}},

		{"stamp from the future", Idle, sec(1010), with(func(e *Evidence) { e.Auth = math.MaxInt64 }), wait(sec(1040), Alive)},
		{"round trip from the future", Periodic, sec(1010), with(func(e *Evidence) { e.RoundTrip = math.MaxInt64 }), wait(sec(1040), Alive)},
		{"round trip from the future, ESP alive", Idle, sec(1010), with(func(e *Evidence) { e.RoundTrip = math.MaxInt64 }), wait(sec(1040), Alive)},
	} {
		if got := Judge(c.now, policy(c.mode), c.e); got != c.want {
			t.Errorf("%s: %v %v until %d, want %v %v until %d", c.name,
				got.Action, got.Why, got.Until, c.want.Action, c.want.Why, c.want.Until)
		}
	}
}

func TestNoLimits(t *testing.T) {
	e := Evidence{Auth: sec(5000), IKE: sec(1000), RoundTrip: sec(1000)}
	if got, want := Judge(sec(5000), Config{Delay: time.Minute}, e), (Verdict{Wait, sec(5060), Alive}); got != want {
		t.Errorf("without max_suppress: %v, want %v", got, want)
	}
	if got, want := Judge(sec(9000), Config{MaxSuppress: time.Minute}, e), (Verdict{Wait, 0, Disabled}); got != want {
		t.Errorf("without delay: %v, want %v", got, want)
	}
	// Where both fall due at once the probe goes by the name of the mode.
	if got, want := Judge(sec(1030), Config{Delay: 30 * time.Second, MaxSuppress: 30 * time.Second}, Evidence{IKE: sec(1000), RoundTrip: sec(1000)}),
		(Verdict{Probe, sec(1030), Silent}); got != want {
		t.Errorf("max_suppress as long as the delay: %v, want %v", got, want)
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Off.String(), "off"}, {TooSoon.String(), "too_soon"}, {Dead.String(), "dead"}, {Unanswered.String(), "unanswered"}, {Suppressed.String(), "max_suppress"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
