package gateway

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	// missesEvery is how soon an address that comes is noticed when no event
	// tells of it.
	missesEvery = time.Second
	// presentEvery is the same for one that goes, while events are heard.
	presentEvery = 10 * time.Second
)

// presence is where our addresses are, as of the last look.
type presence struct {
	mu  sync.Mutex
	now whereabouts
}

func (p *presence) last() whereabouts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// findInterfaces says where XDP goes before anything is changed. An interface
// that is named need not be there yet, nor an address: they are waited for.
func (d *daemon) findInterfaces(context.Context) error {
	w, err := locate(d.Config.Listen.Addresses)
	if err != nil {
		return err
	}
	if d.interfaces = RealNames(d.Config.Listen.Interfaces); len(d.interfaces) == 0 {
		if w.astray != nil {
			return w.astray
		}
		d.interfaces = w.carriers
	}
	d.sayAddresses(w)
	return nil
}

// sayAddresses takes down where our addresses are, and logs what has changed.
func (d *daemon) sayAddresses(w whereabouts) (changed bool) {
	before := d.presence.last()
	for _, a := range d.Config.Listen.Addresses {
		was, is := before.absent[a], w.absent[a]
		switch {
		case was == is:
			continue
		case is == "":
			d.Log.Info("a listen address can be used", "address", a)
		default:
			d.Log.Warn("a listen address cannot be used", "address", a, "why", is)
		}
		changed = true
	}
	d.presence.mu.Lock()
	defer d.presence.mu.Unlock()
	d.presence.now = w
	return changed || !slices.Equal(before.carriers, w.carriers)
}

// useAddresses has the parts do without the addresses that are not here.
func (d *daemon) useAddresses(context.Context) error {
	absent := slices.Collect(maps.Keys(d.presence.last().absent))
	d.endpoints.SetAbsent(absent)
	d.gateway.SetAbsent(absent)
	return nil
}

// lookForAddresses acts on what has changed. What cannot be read now, for lack
// of a descriptor, say, changes nothing.
func (d *daemon) lookForAddresses(ctx context.Context) {
	w, err := locate(d.Config.Listen.Addresses)
	if err != nil || !d.sayAddresses(w) {
		return
	}
	_ = d.useAddresses(ctx) // it never fails
	if d.keeper != nil && len(d.Config.Listen.Interfaces) == 0 {
		d.keeper.want(w.carriers, w.whole())
	}
}

// whole tells that every address has an interface, so that no other is ours.
func (w whereabouts) whole() bool { return len(w.missing) == 0 && w.astray == nil }

// watchAddresses follows our addresses until ctx ends.
func (d *daemon) watchAddresses(ctx context.Context) error {
	for ctx.Err() == nil {
		d.followAddresses(ctx)
	}
	return nil
}

// followAddresses looks whenever one of ours changes, and now and then, for as
// long as events are heard.
func (d *daemon) followAddresses(ctx context.Context) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	events := eventsOf(ctx, netlink.AddrSubscribe)
	for {
		d.lookForAddresses(ctx)
		pause := presentEvery
		if events == nil || len(d.presence.last().absent) > 0 {
			pause = missesEvery
		}
		if !d.awaitAddress(ctx, events, pause) {
			return
		}
		if events == nil {
			return // to listen again
		}
	}
}

// awaitAddress waits for a change of one of ours; false is that no events are
// heard any more, or that ctx has ended.
func (d *daemon) awaitAddress(ctx context.Context, events <-chan netlink.AddrUpdate, pause time.Duration) bool {
	poll := time.NewTimer(pause)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-poll.C:
			return true
		case e, ok := <-events:
			if !ok {
				return false // its socket took no more
			}
			if a, _ := netip.AddrFromSlice(e.LinkAddress.IP); slices.Contains(d.Config.Listen.Addresses, a.Unmap()) {
				return true
			}
		}
	}
}

// problems says which of our addresses nobody reaches.
func (w whereabouts) problems() (all []string) {
	for _, a := range slices.SortedFunc(maps.Keys(w.absent), netip.Addr.Compare) {
		all = append(all, fmt.Sprintf("the listen address %v cannot be used: %s; it is as soon as it can be, and no peer is called dead meanwhile", a, w.absent[a]))
	}
	return all
}
