package dpd

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// tunnel plays an IKE SA and its peer in virtual time, from one event to the
// next: packets of the peer and of an attacker, probes with their
// retransmissions, and the verdicts between them.
type tunnel struct {
	conf  Config
	waits []time.Duration // between the tries of a request, and to its end
	rtt   time.Duration   // 0: the peer answers nothing

	esp, spoof, send time.Duration // authenticated, forged and our own packets come this often
	espEnds          mono.Time     // and the peer's end here

	now   mono.Time
	e     Evidence
	tries []mono.Time // of the outstanding request: when it is sent again, and given up
	reply mono.Time
	log   []string
}

// charon's retransmissions with its defaults: 4 s × 1.8^n, 5 tries, 165.06112 s.
var charonWaits = []time.Duration{4e9, 7.2e9, 12.96e9, 23.328e9, 41.9904e9, 75.58272e9}

const start = mono.Time(1000 * time.Second)

func (s *tunnel) run(until mono.Time) {
	s.now = start
	s.e = Evidence{IKE: start, RoundTrip: start}
	for s.now < until && !s.e.Exhausted {
		v := Judge(s.now, s.conf, s.e)
		if v.Action == Probe {
			s.probe(v.Why)
			continue
		}
		s.step(mono.Earliest(v.Until, until))
	}
	if v := Judge(s.now, s.conf, s.e); v.Action == Dead {
		s.note("dead " + v.Why.String())
	}
}

// step goes to the next event, at most to limit.
func (s *tunnel) step(limit mono.Time) {
	next := mono.Earliest(limit, s.reply, after(s.now, s.esp, s.espEnds), after(s.now, s.spoof, 0), after(s.now, s.send, 0))
	if s.e.Outstanding {
		next = mono.Earliest(next, s.tries[0])
	}
	s.now = next
	if next == after(next-1, s.esp, s.espEnds) {
		s.e.Auth, s.e.Seen = next, next
	}
	if next == after(next-1, s.spoof, 0) {
		s.e.Seen = next
	}
	if next == after(next-1, s.send, 0) {
		s.e.Sent = next
	}
	if next == s.reply {
		s.e.Outstanding, s.reply, s.tries = false, 0, nil
		s.e.IKE, s.e.RoundTrip = next, next
	}
	if s.e.Outstanding && next == s.tries[0] {
		s.tries = s.tries[1:]
		s.e.Exhausted = len(s.tries) == 0
	}
}

// after is the next packet of a stream that has one each interval.
func after(now mono.Time, every time.Duration, end mono.Time) mono.Time {
	if every == 0 {
		return 0
	}
	next := now - (now-start)%mono.Time(every) + mono.Time(every)
	if end != 0 && next > end {
		return 0
	}
	return next
}

func (s *tunnel) probe(why Reason) {
	s.note("probe " + why.String())
	s.e.Outstanding = true
	at := s.now
	for _, w := range s.waits {
		at = at.Add(w)
		s.tries = append(s.tries, at)
	}
	if s.rtt != 0 {
		s.reply = s.now.Add(s.rtt)
	}
}

func (s *tunnel) note(what string) {
	s.log = append(s.log, fmt.Sprintf("%v %s", s.now.Sub(start), what))
}

func TestSimulation(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name string
		s    tunnel
		runs time.Duration
		want []string
	}{
		{"dead peer", tunnel{}, time.Hour,
			[]string{"30s probe idle", "3m15.06112s dead unanswered"}},
		// An attacker repeats the SPI each 100 ms, for hours: no instant moves.
		{"dead peer, spoofed ESP", tunnel{spoof: 100 * ms}, 10 * time.Hour,
			[]string{"30s probe unauthenticated", "3m15.06112s dead unanswered"}},
		{"peer dies in traffic, spoofed ESP goes on", tunnel{esp: time.Second, espEnds: sec(1290), spoof: 7 * ms}, 10 * time.Hour,
			[]string{"5m20s probe unauthenticated", "8m5.06112s dead unanswered"}},
		{"on demand, dead peer, we send, spoofed ESP", tunnel{conf: policy(OnDemand), send: time.Second, spoof: time.Second}, time.Hour,
			[]string{"30s probe unauthenticated", "3m15.06112s dead unanswered"}},
		{"on demand, dead peer, nobody sends", tunnel{conf: policy(OnDemand)}, time.Hour,
			[]string{"10m0s probe max_suppress", "12m45.06112s dead unanswered"}},

		{"live traffic", tunnel{esp: time.Second, rtt: 250 * ms}, 31 * time.Minute,
			[]string{"10m0s probe max_suppress", "20m0.25s probe max_suppress", "30m0.5s probe max_suppress"}},
		// ESP still arrives, our packets do not reach the peer.
		{"one-way traffic", tunnel{esp: time.Second}, time.Hour,
			[]string{"10m0s probe max_suppress", "12m45.06112s dead unanswered"}},
		{"live and silent", tunnel{rtt: 500 * ms}, 100 * time.Second,
			[]string{"30s probe idle", "1m0.5s probe idle", "1m31s probe idle"}},
		{"late answer: no second probe meanwhile", tunnel{rtt: 45 * time.Second}, 100 * time.Second,
			[]string{"30s probe idle"}},
		{"periodic, with traffic", tunnel{conf: policy(Periodic), esp: time.Second, rtt: time.Second}, 95 * time.Second,
			[]string{"30s probe periodic", "1m1s probe periodic", "1m32s probe periodic"}},
		{"off", tunnel{conf: policy(Off), spoof: time.Second}, time.Hour, nil},
	} {
		if c.s.conf == (Config{}) {
			c.s.conf = policy(Idle)
		}
		c.s.waits = charonWaits
		c.s.run(start.Add(c.runs))
		if !slices.Equal(c.s.log, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, c.s.log, c.want)
		}
	}
}

// FuzzHintsAreWeightless: over random evidence no hint changes what is done,
// nor when.
func FuzzHintsAreWeightless(f *testing.F) {
	f.Add(uint8(0), int64(1030e9), int64(1000e9), int64(1010e9), int64(990e9), int64(1025e9), int64(1030e9), false)
	f.Fuzz(func(t *testing.T, mode uint8, now, auth, ike, trip, sent, seen int64, outstanding bool) {
		e := Evidence{Auth: mono.Time(auth), IKE: mono.Time(ike), RoundTrip: mono.Time(trip), Sent: mono.Time(sent), Outstanding: outstanding}
		hinted := e
		hinted.Seen = mono.Time(seen)
		a, b := Judge(mono.Time(now), policy(Mode(mode%4)), e), Judge(mono.Time(now), policy(Mode(mode%4)), hinted)
		if a.Action != b.Action || a.Until != b.Until {
			t.Errorf("without hint %+v, with it %+v", a, b)
		}
		if a.Action == Wait && a.Until != 0 && a.Until <= mono.Time(now) && now < 1<<62 {
			t.Errorf("told to wait until %d at %d", a.Until, now)
		}
	})
}
