package loadtest

import (
	"context"
	"time"
)

// tolerance is how late a handshake may begin and still be in time.
const tolerance = 10 * time.Millisecond

// pace says when each handshake is to begin. What came late moves none of those
// behind it: a gateway that slows its clients down gets no fewer of them.
type pace struct {
	rate   int // a second; 0: at once
	from   time.Time
	n      int // planned since then
	late   int
	lateBy time.Duration // at most
}

// begin starts the plan anew.
func (p *pace) begin(now time.Time) { p.from, p.n = now, 0 }

// next is when the next handshake is due.
func (p *pace) next() time.Time {
	if p.rate == 0 {
		return p.from
	}
	return p.from.Add(time.Duration(p.n) * time.Second / time.Duration(p.rate))
}

// wait waits until the next handshake is due; false if ctx ends before.
func (p *pace) wait(ctx context.Context) bool {
	d := time.Until(p.next())
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// begun takes note that the handshake that was due begins now.
func (p *pace) begun(now time.Time) {
	if late := now.Sub(p.next()); p.rate > 0 && late > tolerance {
		p.late++
		p.lateBy = max(p.lateBy, late)
	}
	p.n++
}
