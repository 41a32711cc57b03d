// Package dpd decides what to do about a peer that may be dead: wait until
// some instant, send a probe, or give it up. It is pure policy: evidence and
// the time go in, a verdict comes out, and the caller does the rest.
//
// RFC 7296 §2.4 lets only fresh, cryptographically protected messages prove
// life, so the evidence has levels:
//
//   - IKE, fresh and authenticated, and ESP that passed the ICV and the replay
//     window, re-arm the deadline.
//   - The hint, which is a packet seen on the wire before anybody verified it,
//     never moves a deadline: anyone who can read an SPI can forge it. It only
//     gives a due probe its name. Where authenticated stamps lag behind (a
//     kernel without the evidence program), the caller uses the hint to know
//     whose counters to read before it asks for a verdict; that reading, not
//     the hint, then postpones the probe.
//   - A round trip over IKE is the only proof that the path works both ways.
//     ESP may stand in for it for MaxSuppress at most.
//
// So a peer that has died is found out after Delay and the retransmissions,
// whatever an attacker sends in its name, and after MaxSuppress and the
// retransmissions if its own ESP still arrives.
package dpd

import (
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// Mode is when a peer is probed for lack of evidence.
type Mode uint8

const (
	Idle     Mode = iota // when nothing authenticated arrived for Delay
	OnDemand             // the same, but only if we have sent since
	Periodic             // each Delay, whatever the ESP
	Off                  // never
)

// Config is the policy of one connection.
type Config struct {
	Mode Mode
	// Delay is how old the evidence may grow; 0 is Off.
	Delay time.Duration
	// MaxSuppress is how long authenticated ESP may stand in for an IKE round
	// trip, in every mode but Off; 0 sets no limit.
	MaxSuppress time.Duration
}

// Evidence is what is known of an IKE SA and all its Child SAs, each the
// newest of its kind. The zero instant means never.
type Evidence struct {
	Seen      mono.Time // hint: an inbound packet, not verified
	Auth      mono.Time // inbound ESP that passed ICV and replay window
	IKE       mono.Time // fresh authenticated IKE message, request or answer
	RoundTrip mono.Time // proof that IKE passes both ways: the answer to a request of ours
	Sent      mono.Time // outbound ESP

	Outstanding bool // a request of ours, of whatever kind, waits for its answer
	Exhausted   bool // all of its retransmissions went unanswered
}

// Action is what to do.
type Action uint8

const (
	Wait  Action = iota // nothing, and judge again at Until
	Probe               // send a request that must be answered
	Dead                // give the peer up
)

// Reason is why.
type Reason uint8

const (
	Alive           Reason = iota // Wait: the evidence is young enough
	Disabled                      // Wait: the mode is Off
	InProgress                    // Wait: the outstanding request is the probe
	NothingSent                   // Wait: silent, but so are we
	Silent                        // Probe: nothing arrived for Delay
	Unauthenticated               // Probe: the same, though packets kept arriving until late in it
	PeriodPassed                  // Probe: the mode is Periodic
	Suppressed                    // Probe: MaxSuppress without an IKE round trip
	Unanswered                    // Dead: no answer to any try
	Elsewhere                     // Probe: packets came from another place
	TooSoon                       // Wait: they did so a while ago, too
)

// Verdict is the answer of Judge.
type Verdict struct {
	Action Action
	// Until is when to judge again (Wait; zero: not before something
	// happens), or when the probe fell due (Probe).
	Until mono.Time
	Why   Reason
}

// Judge weighs the evidence at an instant.
//
// Only Exhausted makes a peer dead, in every mode: with a window of one an
// unanswered request leaves the IKE SA unusable, so ESP that still arrives
// does not save it. RFC 7296 §2.4
func Judge(now mono.Time, c Config, e Evidence) Verdict {
	switch {
	case e.Exhausted:
		return Verdict{Action: Dead, Why: Unanswered}
	case e.Outstanding:
		return Verdict{Why: InProgress}
	case c.Mode == Off || c.Delay <= 0:
		return Verdict{Why: Disabled}
	}
	due, why := c.due(now, e)
	meanwhile := Alive
	if why == NothingSent {
		meanwhile = NothingSent
	}
	if limit := min(e.RoundTrip, now).Add(c.MaxSuppress); c.MaxSuppress > 0 && limit < due {
		due, why = limit, Suppressed
	}
	if due > now {
		return Verdict{Until: due, Why: meanwhile}
	}
	return Verdict{Action: Probe, Until: due, Why: why}
}

// due is when the mode wants a probe, or to look again, and why. Evidence from
// the future counts as of now, so that a stamp gone wrong re-arms the deadline
// once and not for years.
func (c Config) due(now mono.Time, e Evidence) (mono.Time, Reason) {
	if c.Mode == Periodic {
		return min(e.RoundTrip, now).Add(c.Delay), PeriodPassed
	}
	proof := min(max(e.Auth, e.IKE, e.RoundTrip), now)
	due := proof.Add(c.Delay)
	switch {
	case c.Mode == OnDemand && due <= now && e.Sent <= proof:
		return now.Add(c.Delay), NothingSent // nothing wakes us when we send
	case e.Seen > due.Add(-c.Delay/2):
		return due, Unauthenticated
	}
	return due, Silent
}
