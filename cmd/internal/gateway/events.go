package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/ikepulse/ikepulse/maps"
)

const (
	// strangerLines is how many lines of the log strangers may cause in a
	// strangerSpan.
	strangerLines = 3
	strangerSpan  = time.Minute
	// lossEvery is how often a loss is looked for, and told.
	lossEvery = time.Minute
)

// Events is how much of what XDP tells of has been read since the daemon's
// start.
type Events struct {
	Drift    uint64 `json:"drift"`    // a known SPI came from elsewhere
	Stranger uint64 `json:"stranger"` // a keepalive came from the address of no tunnel; XDP tells of some of them
	Old      uint64 `json:"old"`      // was told before the start, and is not acted upon
}

// events reads what XDP tells of. Everything but the counters belongs to one
// goroutine.
type events struct {
	ring    *maps.Events // nil: it cannot be opened
	since   int64        // CLOCK_BOOTTIME; what is older was for a daemon before this one
	drifted func(spi uint32, from netip.AddrPort)
	log     *slog.Logger

	drifts, strangers, old atomic.Uint64
	failed                 atomic.Pointer[error] // why nothing is read

	span            time.Time // lines are counted since then
	lines, withheld int
}

// openEvents comes before the first tunnel: what has gathered in the ring by
// then is about those of an earlier daemon. A ring that cannot be read is no
// reason to have no tunnels: status says so.
func (d *daemon) openEvents(context.Context) (err error) {
	if d.xdp == nil {
		return nil
	}
	d.events = &events{since: bootTime(), drifted: d.gateway.Drifted, log: d.Log}
	if d.events.ring, err = d.xdp.Maps().Events(); err != nil {
		d.events.fail(err)
		return nil
	}
	d.own(d.events.ring.Close)
	return nil
}

// readEvents reads until ctx ends.
func (d *daemon) readEvents(ctx context.Context) error {
	if d.events == nil || d.events.ring == nil {
		return nil
	}
	closed := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { closed <- d.events.ring.Close() })
	d.events.read()
	if stop() {
		return nil // it has failed before
	}
	return <-closed
}

func (e *events) read() {
	for {
		ev, err := e.ring.Read()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			e.fail(err)
			return
		}
		e.take(ev, time.Now())
	}
}

func (e *events) fail(err error) {
	e.failed.Store(&err)
	e.log.Warn("what XDP tells of cannot be read", "error", err)
}

func (e *events) take(ev maps.Event, now time.Time) {
	switch {
	case ev.At < e.since:
		e.old.Add(1)
	case ev.SPI != 0:
		e.drifts.Add(1)
		e.drifted(ev.SPI, ev.From.Peer)
	default:
		e.strangers.Add(1)
		e.logStranger(ev.From, now)
	}
}

// logStranger names a few of them: XDP may drop what they send, so that nothing
// else shows who they are.
func (e *events) logStranger(from maps.Tuple, now time.Time) {
	if now.Sub(e.span) >= strangerSpan {
		if e.withheld > 0 {
			e.log.Info("more keepalives came from addresses of no tunnel", "not_logged", e.withheld)
		}
		e.span, e.lines, e.withheld = now, 0, 0
	}
	if e.lines == strangerLines {
		e.withheld++
		return
	}
	e.lines++
	e.log.Info("a keepalive came from the address of no tunnel", "from", from.Peer, "to", from.Local)
}

// count is nil where nothing is read.
func (e *events) count() *Events {
	if e == nil {
		return nil
	}
	return &Events{Drift: e.drifts.Load(), Stranger: e.strangers.Load(), Old: e.old.Load()}
}

// problem is why nothing is read.
func (e *events) problem() error {
	if e == nil || e.failed.Load() == nil {
		return nil
	}
	return *e.failed.Load()
}

// watchLoss says when XDP had more to tell than the ring could hold.
func (d *daemon) watchLoss(ctx context.Context) error {
	if d.xdp == nil {
		return nil
	}
	lost := func() (uint64, error) {
		c, err := d.xdp.Maps().Stats.Read()
		return c.EventsLost, err
	}
	tellGrowth(ctx, lost, func(n uint64) {
		d.Log.Warn("XDP had more to tell than was read in time: peers that have moved are noticed by their next packets", "events_lost", n)
	})
	return nil
}

// tellGrowth tells by how much a counter has grown, as often as it looks and
// finds so: now and then, and when ctx ends.
func tellGrowth(ctx context.Context, read func() (uint64, error), tell func(uint64)) {
	look := time.NewTicker(lossEvery)
	defer look.Stop()
	last, err := read()
	known := err == nil
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-look.C:
		}
		now, err := read()
		if err != nil {
			continue
		}
		if known && now > last {
			tell(now - last)
		}
		last, known = now, true
	}
}
