// Package gateway puts the parts together: a configuration, the XDP program
// and its maps, sockets, the data plane, the IKE side, and the control socket.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/cmd/internal/control"
	"github.com/ikepulse/ikepulse/cmd/internal/records"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/ike/tun"
	"github.com/ikepulse/ikepulse/ike/udp"
	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/maps"
)

// Options are what a daemon is started with.
type Options struct {
	Names   Names
	Config  *config.Config // its secrets are wiped once they are in use
	NoPin   bool           // the program goes with the daemon
	Version string
	Log     *slog.Logger
}

// daemon is one run. Its fields are set by open and not written after it.
type daemon struct {
	Options
	closers []func() error

	store      ike.Store        // nil: no records are kept
	records    *records.Store   // the same, or nil
	xdp        *loader.Instance // nil: the gateway goes without, and noXDP says why
	noXDP      error
	ledger     ledger      // of inbound SPIs, in the maps or in our own memory
	clock      *maps.Clock // the ledger's
	interfaces []string    // that XDP is to be on, as of the start
	presence   presence    // of our addresses
	ipv6Off    string      // why the data plane has no IPv6; "": it has
	keeper     *keeper     // nil without XDP
	sight      *sight      // nil without XDP
	sockets    []*udp.Socket
	endpoints  *udp.Endpoints
	plane      *tun.Plane
	guard      *guard
	gateway    *ike.Gateway
	events     *events // nil without XDP
	supply     *supply
	listener   *control.Listener
	up         bool // open has succeeded
	failed     bool // it ends by a fault, and not because it was told to

	clockError atomic.Pointer[error] // of the last calibration
}

// Run is the daemon: it returns nil when ctx has ended and the tunnels have been
// deleted, or else what keeps it from working. The XDP program and its maps
// stay, unless they were not to be pinned.
func Run(ctx context.Context, o Options) (err error) {
	d := &daemon{Options: o}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it had begun
		}
		return err
	}
	err = d.serve(ctx)
	d.failed = err != nil
	return err
}

// open makes everything ready. What is seen from outside comes last: what
// fails before it leaves no trace.
func (d *daemon) open(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.lock, d.findInterfaces, d.openStore, d.loadXDP, d.openSockets, d.openDataplane, d.newGateway, d.useAddresses, d.openEvents, d.listen, d.attach,
	} {
		if err := step(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	d.up = true
	return nil
}

// own leaves f for close to call.
func (d *daemon) own(f func() error) { d.closers = append(d.closers, f) }

// close gives up what open has got, the last first.
func (d *daemon) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	return errors.Join(errs...)
}

// loadXDP takes over what is loaded, or loads it. What a daemon before this
// one has left in the maps goes: its tunnels do not survive it yet.
func (d *daemon) loadXDP(context.Context) error {
	o := LoaderOptions(d.Names.Instance, d.Config)
	o.NoPin, o.Own = d.NoPin, true
	loaded, fresh, err := Load(o)
	if err != nil && dispensable(err) {
		return d.goWithoutXDP(err)
	}
	if err != nil {
		return err
	}
	d.xdp, d.ledger, d.clock = loaded, loaded.Maps(), loaded.Maps().Clock
	d.keeper, d.sight = newKeeper(loaded, d.interfaces, d.Log), newSight(loaded.Maps())
	d.own(func() error {
		if fresh && !d.up {
			return errors.Join(loaded.Remove(), loaded.Close())
		}
		return loaded.Close()
	})
	set := d.xdp.Maps()
	left := 0
	set.Hot.Each(func(_, _, _, _ uint32) { left++ })
	if left > 0 {
		d.Log.Warn("tunnels of an earlier run are gone: none survives a restart yet", "spis", left)
	}
	return errors.Join(set.Reset(), set.Locals.Set(d.Config.Listen.Addresses))
}

// The ports of IKE. RFC 7296 §2.23
const (
	ikePort  = 500
	nattPort = 4500
)

// socketBuffer holds what arrives while a reader is busy: some 10 ms of small
// packets at a million a second.
const socketBuffer = 4 << 20

func (d *daemon) openSockets(ctx context.Context) error {
	readers := min(d.Config.Shards, runtime.GOMAXPROCS(0))
	for _, a := range d.Config.Listen.Addresses {
		for _, port := range []uint16{ikePort, nattPort} {
			s, err := udp.Listen(ctx, udp.Config{Local: netip.AddrPortFrom(a, port), NATT: port == nattPort,
				Readers: readers, Mark: d.Names.mark(), Buffer: socketBuffer})
			switch {
			case errors.Is(err, unix.EAFNOSUPPORT):
				continue // and so the address is not here
			case errors.Is(err, unix.EADDRINUSE):
				return fmt.Errorf("listen: %w: another IKE daemon (charon, pluto, iked) or instance has it; ss -lunp \"sport = :%d\" names it", err, port)
			case err != nil:
				return fmt.Errorf("listen: %w", err)
			}
			d.own(s.Close)
			d.sockets = append(d.sockets, s)
			if err := s.Bypass(); err != nil {
				d.Log.Warn("a policy of this host may swallow our packets", "error", err)
			}
		}
	}
	d.endpoints = udp.NewEndpoints(d.sockets...)
	return nil
}

func (d *daemon) newGateway(context.Context) (err error) {
	conf := ikeConfig(d.Config)
	if d.ipv6Off != "" {
		conf = withoutIPv6(conf)
	}
	d.gateway, err = ike.New(conf, d.edges())
	for _, s := range d.Config.Secrets {
		clear(s.PSK.Bytes())
	}
	return err
}

// edges are where the IKE side meets the ledger, the data plane and the sockets.
func (d *daemon) edges() ike.Edges {
	d.supply = newSupply(d.Config.XDP.Capacity, d.Config.Shards, d.warnBeyond)
	return ike.Edges{
		Tracker: d.ledger, DataPlane: d.planeOf, Sender: d.endpoints, Store: d.store,
		AllocSPI: d.supply.alloc, FreeSPI: d.supply.free, ESPShard: d.supply.shardOf,
		Resolve: newResolver(d.Names.mark(), coversWorld(d.Config) && d.Config.Unprotected != "pass", d.Log).addresses, Logger: d.Log, Clock: bootTime,
		Advise: adviser(d.Config),
	}
}

// bootTime reads CLOCK_BOOTTIME, which every Linux has.
func bootTime() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return t.Nano()
}

func (d *daemon) listen(context.Context) (err error) {
	if d.listener, err = control.Listen(d.Names.Socket, d.Config.Control); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	d.listener.Log = d.Log
	d.own(func() error {
		_ = d.listener.Close() // Serve has closed it, where it ran
		return nil
	})
	return nil
}

// attach is the keeper's first pass. An interface that refuses keeps nobody
// from his tunnel: it is tried again, and status says so.
func (d *daemon) attach(context.Context) error {
	if d.keeper != nil {
		d.keeper.want(d.interfaces, len(d.Config.Listen.Interfaces) > 0 || d.presence.last().whole())
		d.keeper.pass(true)
	}
	return nil
}

// serve runs until ctx ends, or a part fails. Everything else goes on until
// the IKE side has said its goodbyes.
func (d *daemon) serve(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var parts sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{
		"sockets":        func(ctx context.Context) error { return d.endpoints.Serve(ctx, d.gateway.Deliver) },
		"data plane":     d.servePlane,
		"control socket": func(ctx context.Context) error { return control.Serve(ctx, d.listener, d.api()) },
		"addresses":      d.watchAddresses,
		"clock":          d.keepTime,
		"XDP":            d.keepAttached,
		"sight of XDP":   d.keepLooking,
		"events":         d.readEvents,
		"barriers":       d.guard.keep,
		"lost events":    d.watchLoss,
	} {
		parts.Go(func() { // stops when life ends
			if err := run(life); err != nil {
				fail(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	d.Log.Info("running", "pid", os.Getpid(), "addresses", d.Config.Listen.Addresses, "control", d.Names.Socket)
	said := context.AfterFunc(ctx, func() { d.Log.Info("stopping: the tunnels are deleted") })
	defer said()
	err := d.gateway.Run(ctx)
	end()
	parts.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(err, cause)
	}
	return err
}
