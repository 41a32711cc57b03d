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

// keepTime calibrates the maps' clock each minute, and at once after a suspend.
func (d *daemon) keepTime(ctx context.Context) error {
	clock := d.xdp.Maps().Clock
	check := time.NewTicker(wakeCheck)
	defer check.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-check.C:
		}
		if time.Since(last) < calibrateEvery && !clock.Suspended() {
			continue
		}
		last = time.Now()
		if err := clock.Calibrate(); err != nil {
			d.clockError.Store(&err)
			continue
		}
		d.clockError.Store(nil)
	}
}
