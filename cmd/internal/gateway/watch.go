package gateway

import (
	"context"
	"time"

	"github.com/ikepulse/ikepulse/ike/barrier"
)

// keep runs the guard until ctx ends.
func (g *guard) keep(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := g.listen(ctx); err != nil {
			g.log.Warn("changes of the host cannot be heard: the barriers are looked at now and then", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

// listen follows events until ctx ends, or they can no longer be heard.
func (g *guard) listen(ctx context.Context) error {
	events, err := barrier.Listen()
	if err != nil {
		g.doubt()
		g.act(time.Now())
		return err
	}
	defer events.Close()
	ctx, end := context.WithCancel(ctx)
	defer end()
	heard, ended := make(chan barrier.Event), make(chan error, 1)
	// Stops with ctx.
	go func() {
		ended <- events.Serve(ctx, func(e barrier.Event) {
			select {
			case heard <- e:
			case <-ctx.Done():
			}
		})
	}()
	g.doubt() // what happened while nobody listened
	timer := time.NewTimer(0)
	defer timer.Stop()
	due, rested := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case e := <-heard:
			if !g.hear(e) {
				continue
			}
			now := time.Now()
			at := now.Add(settleTime)
			if e.What == barrier.FilterChanged || e.What == barrier.PolicyChanged {
				at = now // perhaps nothing else stops what comes in
			}
			if at = later(at, rested); at.Before(due) {
				due = at
				timer.Reset(at.Sub(now))
			}
		case <-timer.C:
			begun := time.Now()
			g.act(begun)
			now := time.Now()
			// A large filter takes long to look at, and tells of each of its parts.
			rested = now.Add(max(settleTime, 4*now.Sub(begun)))
			due = later(g.due(begun), now)
			timer.Reset(due.Sub(now))
		}
	}
}

// doubt has everything looked at.
func (g *guard) doubt() {
	g.stale = true
	for _, p := range g.posts {
		p.doubted = true
	}
	g.looked, g.doubted = time.Time{}, time.Now()
}

// hear takes note of an event, and reports whether it means anything.
func (g *guard) hear(e barrier.Event) (matters bool) {
	if g.device.Concerns(e) {
		g.posts[0].doubted, matters = true, true
	}
	for i, f := range g.filters {
		if f.Concerns(e) {
			g.posts[1+i].doubted, matters = true, true
		}
	}
	switch e.What {
	case barrier.Unknown:
		g.doubt()
		return true
	case barrier.LinkChanged, barrier.AddressChanged:
		g.stale, matters = true, true
	case barrier.RouteAdded, barrier.RouteGone:
		if e.Table != g.names.Table {
			g.stale, matters = true, true
		}
	}
	return matters
}

// due is when there will be something to do, as far as is known.
func (g *guard) due(now time.Time) time.Time {
	at := earlier(g.doubted.Add(doubtEvery), g.glanced.Add(glanceEvery))
	if g.stale {
		at = earlier(at, g.looked.Add(lookPause))
	}
	for _, p := range g.posts {
		if p.gone != "" {
			at = earlier(at, p.next)
		}
	}
	if at.Before(now.Add(settleTime)) {
		return now.Add(settleTime)
	}
	return at
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
