package dpd

import (
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// DriftPause is how often, at most, packets from elsewhere cause a probe: who
// forges them makes us ask a peer no oftener than a silent one is asked at the
// usual delay.
const DriftPause = 30 * time.Second

// Drifted weighs a hint that is not about silence: a packet with the peer's SPI,
// which nobody has verified, came from another place than the peer's packets so
// far. A NAT may have given him another mapping, so that what we send is lost;
// or somebody forges. The peer's answer tells, so he is asked at once, whatever
// else proves that he lives; but not where DPD is off. last is the last time
// that it was not too soon; zero: never.
//
// The verdict of Wait has no Until: such packets go on coming as long as there
// is something to find out.
func Drifted(now mono.Time, c Config, e Evidence, last mono.Time) Verdict {
	switch {
	case last != 0 && now < last.Add(DriftPause):
		return Verdict{Why: TooSoon}
	case e.Outstanding:
		return Verdict{Why: InProgress}
	case c.Mode == Off || c.Delay <= 0:
		return Verdict{Why: Disabled}
	}
	return Verdict{Action: Probe, Until: now, Why: Elsewhere}
}
