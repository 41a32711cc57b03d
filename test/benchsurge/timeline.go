package main

import (
	"sync"
	"time"

	"github.com/ikepulse/ikepulse/test/measure"
)

// sample is what was read at one moment of a surge.
type sample struct {
	at               time.Time
	gateway, clients time.Duration // CPU time so far
	own, idle        time.Duration // how long the gateway's CPU, and the clients', were idle so far
	sent             uint64        // packets by the clients' link, until there is one
}

// timeline is read while the clients are there: their own account comes only at
// their end, when the gateway has long done more.
type timeline struct {
	samples []sample
	err     error
	reader  sync.WaitGroup
}

const (
	samplePause = 10 * time.Millisecond
	userTick    = 10 * time.Millisecond // of /proc/stat
)

// follow reads until the clients have ended.
func follow(c config, s *site, g *gateway, cl *clients) *timeline {
	t := new(timeline)
	t.reader.Go(func() {
		for t.err == nil {
			select {
			case <-cl.Done():
				return
			case <-time.After(samplePause):
				t.err = t.take(c, s, g.PID(), cl.PID())
			}
		}
	})
	return t
}

func (t *timeline) take(c config, s *site, gateway, callers int) error {
	one := sample{at: time.Now()}
	if _, _, ok := t.began(); !ok {
		link, err := traffic(s.clients, "c0")
		if err != nil {
			return err
		}
		one.sent = link.TxPackets
	}
	ticks, err := measure.AllTicks()
	if err != nil {
		return err
	}
	one.own, one.idle = time.Duration(ticks[c.gatewayCPU].Idle)*userTick, time.Duration(ticks[c.clientCPU].Idle)*userTick
	if one.gateway, err = cpuOf(gateway); err != nil {
		return err
	}
	// They may just have ended.
	if one.clients, err = cpuOf(callers); err == nil {
		t.samples = append(t.samples, one)
	}
	return nil
}

// at interpolates between the samples around a moment.
func (t *timeline) at(when time.Time) sample {
	after := len(t.samples) - 1
	for i, s := range t.samples {
		if !s.at.Before(when) {
			after = i
			break
		}
	}
	if after == 0 || !t.samples[after].at.After(when) {
		return t.samples[after]
	}
	a, b := t.samples[after-1], t.samples[after]
	part := float64(when.Sub(a.at)) / float64(b.at.Sub(a.at))
	between := func(x, y time.Duration) time.Duration { return x + time.Duration(part*float64(y-x)) }
	return sample{at: when, gateway: between(a.gateway, b.gateway), clients: between(a.clients, b.clients),
		own: between(a.own, b.own), idle: between(a.idle, b.idle)}
}

// began tells between which moments the first message has left.
func (t *timeline) began() (after, before time.Time, ok bool) {
	for i, s := range t.samples {
		if i > 0 && s.sent > t.samples[0].sent {
			return t.samples[i-1].at, s.at, true
		}
	}
	return after, before, false
}

// waits are parts of the time from the first message to the last handshake's end.
type waits struct {
	Idle      float64 `json:"gateway_idle"`
	Others    float64 `json:"gateway_cpu_others"` // had the gateway's CPU, which is to have it alone
	Initiator float64 `json:"clients_busy"`       // their process
	OtherBusy float64 `json:"clients_cpu_busy"`   // its CPU, with all that shares it
	// BothIdle is the time in which the gateway could have worked, and nobody who
	// calls it did: what it keeps clients waiting without need.
	BothIdle float64 `json:"both_idle"`
}

// grid is how finely it is seen who waits for whom: ticks are coarse.
const grid = 100 * time.Millisecond

func (t *timeline) waits(from, to time.Time) (w waits) {
	wall := float64(to.Sub(from))
	a, b := t.at(from), t.at(to)
	w.Idle = 1 - float64(b.gateway-a.gateway)/wall
	w.Others = max(0, w.Idle-float64(b.own-a.own)/wall)
	w.Initiator = float64(b.clients-a.clients) / wall
	w.OtherBusy = max(0, 1-float64(b.idle-a.idle)/wall)
	for now := from; now.Before(to); now = now.Add(grid) {
		until := now.Add(grid)
		if until.After(to) {
			until = to
		}
		x, y := t.at(now), t.at(until)
		step := until.Sub(now)
		both := min(step-(y.gateway-x.gateway), y.idle-x.idle, step)
		w.BothIdle += float64(max(both, 0)) / wall
	}
	return w
}
