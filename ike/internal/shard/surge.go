package shard

import (
	"context"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// Surge is a time in which everybody is asked for a cookie. It is told twice:
// when it begins, and when it is over.
type Surge struct {
	Over     bool
	HalfOpen int           // at its beginning; at its peak
	Lasted   time.Duration // of one that is over
	Counters map[string]uint64
}

// surgeCounters are those that a surge is told with: what they grew by.
var surgeCounters = []counter{cEstablished, cAuthFailed, cCookies, cEvicted, cHalfOpenFull, cSourceFull, cShedLate, cShedFull, cShedUnproven}

// surges notices when one begins and when it is over. Its fields stand behind
// the gate's lock.
type surges struct {
	on    bool
	since mono.Time
	peak  int
	read  *tally        // what is counted where messages are read
	start counters      // and what that was when the surge began
	began chan struct{} // holds one: look after it
}

// see takes note of what there is. It is called whenever something has come.
func (s *surges) see(now mono.Time, p *halfopen.Places) {
	if !p.Pressed(now) {
		return
	}
	taken := p.Taken(now)
	if s.on {
		s.peak = max(s.peak, taken)
		return
	}
	s.on, s.since, s.peak, s.start = true, now, taken, counters{}
	s.read.addTo(&s.start)
	select {
	case s.began <- struct{}{}:
	default:
	}
}

// surgeLook is how often a surge is looked after while it lasts.
const surgeLook = time.Second

// watch tells of surges until ctx ends. Without one it sleeps.
func (g *Group) watch(ctx context.Context) {
	for {
		select {
		case <-g.gate.surges.began:
		case <-ctx.Done():
			return
		}
		before := g.tallied(ctx)
		g.gate.mu.Lock()
		begin, read := Surge{HalfOpen: g.gate.surges.peak}, g.gate.surges.start
		g.gate.mu.Unlock()
		before.add(read)
		g.conf.Surge(begin)
		for over := false; !over; {
			select {
			case <-g.conf.After(surgeLook):
			case <-ctx.Done():
				return
			}
			var end Surge
			if end, over = g.gate.over(g.conf.Clock()); over {
				after := g.tallied(ctx)
				g.tally.addTo(&after)
				if ctx.Err() != nil {
					return
				}
				end.Counters = map[string]uint64{}
				for _, c := range surgeCounters {
					end.Counters[counterNames[c]] = after[c] - before[c]
				}
				g.conf.Surge(end)
			}
		}
	}
}

// over ends a surge in which nobody is asked for a cookie any more.
func (g *gate) over(now mono.Time) (Surge, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.surges
	if g.places.Pressed(now) {
		return Surge{}, false
	}
	s.on = false
	return Surge{Over: true, HalfOpen: s.peak, Lasted: now.Sub(s.since)}, true
}

// tallied sums up what the shards have counted, once all have answered.
func (g *Group) tallied(ctx context.Context) (sum counters) {
	answers := make(chan counters, len(g.shards))
	for _, s := range g.shards {
		s.post(func(mono.Time) { answers <- s.counted() })
	}
	for range g.shards {
		select {
		case one := <-answers:
			sum.add(one)
		case <-ctx.Done():
		}
	}
	return sum
}
