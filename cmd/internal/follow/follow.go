// Package follow fills the maps beside another IKE daemon: the inbound SAs that
// strongSwan or libreswan have installed in the kernel become known to XDP, so
// that keepalives end there, and idle times and packets that nobody can
// authenticate become visible. It speaks no IKE and changes no state.
package follow

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/ike/xfrm"
	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/maps"
)

// Options say whom to follow, and where.
type Options struct {
	Names      gateway.Names
	XDP        loader.Options // Follow is set by Run
	Interfaces []string
	Look       time.Duration // how often XDP and the kernel are compared; 0: 5 s
	Report     time.Duration // how often everything is told; 0: never
	Tell       func(Fact) error
}

const (
	defaultLook = 5 * time.Second
	// clockEvery keeps the conversion from ticks to time exact to a tick.
	clockEvery = time.Minute
)

// Run follows in the network namespace of the calling thread until ctx is done,
// which is no error. Program and maps stay where they are then. Facts come one
// at a time; an error of Tell ends it.
func Run(ctx context.Context, o Options) (err error) {
	release, err := o.Names.Hold()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	o.XDP.Follow, o.XDP.Own = true, true
	i, fresh, err := gateway.Load(o.XDP)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && fresh {
			err = errors.Join(err, i.Remove())
		}
		err = errors.Join(err, i.Close())
	}()
	f, err := newFollower(i, o)
	if err != nil {
		return err
	}
	defer f.close()
	return f.run(ctx)
}

// follower is one run.
type follower struct {
	Options
	instance *loader.Instance
	watcher  *xfrm.Watcher
	reader   *xfrm.Reader
	states   *states
	places   map[string]place // interfaces, from when XDP was first attached
}

func newFollower(i *loader.Instance, o Options) (f *follower, err error) {
	f = &follower{Options: o, instance: i}
	if f.Look == 0 {
		f.Look = defaultLook
	}
	followed, err := i.Maps().Follow(rand.Reader)
	if err != nil {
		return nil, err
	}
	tell := func(fact Fact) error {
		fact.Time = time.Now()
		return o.Tell(fact)
	}
	f.states = newStates(i.Maps(), followed, tell)
	if err := f.addresses(); err != nil {
		return nil, err
	}
	if f.watcher, err = xfrm.NewWatcher(); err != nil {
		return nil, noXFRM(err)
	}
	if f.reader, err = xfrm.NewReader(); err != nil {
		return nil, errors.Join(err, f.watcher.Close())
	}
	return f, nil
}

func newStates(set *maps.Set, followed *maps.Followed, tell func(Fact) error) *states {
	return &states{set: set, followed: followed, all: make(map[xfrm.Key]*state), tell: tell, began: set.Clock.Now()}
}

func noXFRM(err error) error {
	return fmt.Errorf("%w (this kernel has no XFRM netlink: modprobe xfrm_user)", err)
}

func (f *follower) close() {
	_ = f.watcher.Close() // nothing is lost with either
	_ = f.reader.Close()
}

// run is the goroutine that owns the states; the watcher's ends with it.
func (f *follower) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	batches, ended := make(chan xfrm.Batch), make(chan error, 1)
	go func() { // ends with ctx, or when the kernel's events end
		ended <- f.watcher.Run(ctx, func(b xfrm.Batch) error {
			select {
			case batches <- b:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	err := f.loop(ctx, batches, ended)
	cancel()
	<-ended
	return err
}

func (f *follower) loop(ctx context.Context, batches <-chan xfrm.Batch, ended chan error) error {
	look, report, clock := ticker(f.Look), ticker(f.Report), ticker(time.Second)
	defer look.Stop()
	defer report.Stop()
	defer clock.Stop()
	calibrated := time.Now()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case err = <-ended:
			ended <- nil // for run
			if ctx.Err() != nil {
				return nil
			}
			return err
		case b := <-batches:
			err = f.take(b)
		case <-clock.C:
			if c := f.instance.Maps().Clock; c.Suspended() || time.Since(calibrated) > clockEvery {
				calibrated, err = time.Now(), c.Calibrate()
			}
			if f.states.synced {
				err = errors.Join(err, f.keep())
			}
		case <-look.C:
			err = errors.Join(f.instance.Intact(), f.addresses(), f.states.look(readCounters(f.reader)))
		case <-report.C:
			err = f.states.report()
		}
		if err != nil {
			return err
		}
	}
}

// ticker never ticks for 0.
func ticker(d time.Duration) *time.Ticker {
	if d > 0 {
		return time.NewTicker(d)
	}
	t := time.NewTicker(time.Hour)
	t.Stop()
	return t
}

// take attaches after the first dump: what is known by then is never a
// stranger.
func (f *follower) take(b xfrm.Batch) error {
	first := !f.states.synced
	if err := f.states.take(b); err != nil || !first {
		return err
	}
	if _, err := gateway.AttachAll(f.instance, f.Interfaces); err != nil {
		return err
	}
	return f.keep()
}

// addresses keeps up with which addresses are ours.
func (f *follower) addresses() error {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if errors.Is(err, netlink.ErrDumpInterrupted) && f.states.locals != nil {
		return nil // addresses come and go just now: the next look sees them
	}
	if err != nil {
		return fmt.Errorf("listing addresses: %w", err)
	}
	ours := map[netip.Addr]bool{}
	var all []netip.Addr
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && usable(ip.Unmap()) && !ours[ip.Unmap()] {
			ours[ip.Unmap()] = true
			all = append(all, ip.Unmap())
		}
	}
	if err := f.instance.Maps().Locals.Set(all); err != nil {
		return err
	}
	return f.states.setLocals(ours)
}

// usable are addresses that a peer can send to.
func usable(a netip.Addr) bool { return !a.IsLoopback() && !a.IsUnspecified() && !a.IsMulticast() }
