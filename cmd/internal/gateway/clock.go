package gateway

import (
	"context"
	"time"
)

const (
	// calibrateEvery keeps the conversion from ticks to time exact to a tick.
	calibrateEvery = time.Minute
	// wakeCheck is how soon a suspend is found out.
	wakeCheck = time.Second
)

// keepTime keeps the maps' clock right.
func (d *daemon) keepTime(ctx context.Context) error {
	recalibrate(ctx, d.clock.Suspended, func() {
		if err := d.clock.Calibrate(); err != nil {
			d.clockError.Store(&err)
			return
		}
		d.clockError.Store(nil)
	})
	return nil
}

// recalibrate calls calibrate each minute, and soon after a suspend, until ctx
// ends.
func recalibrate(ctx context.Context, suspended func() bool, calibrate func()) {
	check := time.NewTicker(wakeCheck)
	defer check.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-check.C:
		}
		if time.Since(last) >= calibrateEvery || suspended() {
			calibrate()
			last = time.Now()
		}
	}
}
