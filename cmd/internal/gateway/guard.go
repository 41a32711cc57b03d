package gateway

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/tun"
)

// guard keeps the barriers up: it follows what changes on the host, and puts back
// what somebody takes away. Its fields belong to one goroutine, but for what mu
// guards.
type guard struct {
	names  Names
	log    *slog.Logger
	covers barrier.Config
	named  bool // some peer is called by a name
	plan   *barrier.Plan
	handle *netlink.Handle
	left   bool // a killed daemon has left barriers
	device *tun.Device
	// filters are those that the kernel has; none with unprotected: pass.
	filters []barrier.Filter
	posts   []*post // the device's barrier first

	stale                    bool // something of the host has changed
	looked, doubted, glanced time.Time

	mu  sync.Mutex
	now Barriers
}

const (
	// settleTime gathers what happens together.
	settleTime = 50 * time.Millisecond
	// doubtEvery is for what no event tells of, and glanceEvery for what of that
	// is cheap to see.
	doubtEvery  = 30 * time.Second
	glanceEvery = 500 * time.Millisecond
	// lookPause bounds what a host whose routes change all the time costs.
	lookPause = 500 * time.Millisecond
)

// newGuard looks at the host and makes the plan. It changes nothing.
func newGuard(n Names, c *config.Config, log *slog.Logger) (*guard, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	g := &guard{names: n, log: log, covers: covers(c), named: len(remoteNames(c)) > 0, handle: h}
	host, err := barrier.Look(h, n.TUN, n.Table)
	if err == nil {
		g.left, err = tun.Left(n.Table)
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	g.plan = g.covers.Plan(host)
	for _, hidden := range g.plan.Hidden {
		log.Warn(hiddenText(hidden))
	}
	return g, nil
}

// begin puts up the other barriers; the first is the device's, and stands. Where
// the kernel lacks one of them the others are enough; but policies do not see all
// of IPv6, and where both are missing nothing stops what comes in: then status
// says so.
func (g *guard) begin(d *tun.Device) error {
	g.device = d
	g.posts = []*post{{kind: "routes", stops: outward, missing: d.Missing, restore: d.Restore}}
	defer g.survey()
	if g.covers.Pass {
		return g.names.removeFilters()
	}
	nft, errNFT := barrier.NFTables(g.names.filterOptions(), g.covers.Listen)
	if errNFT == nil {
		g.keepUp(nft, inward|outward)
	}
	policies, errXFRM := barrier.XFRM(g.names.filterOptions())
	if errXFRM == nil {
		g.keepUp(policies, inward)
	}
	if err := errors.Join(errNFT, errXFRM); err != nil {
		g.log.Warn("a barrier against packets in the clear is missing on this host", "error", oneLine(err))
		if errNFT != nil && (errXFRM != nil || g.plan.Covers(false)) {
			g.posts = append(g.posts, &post{kind: "nftables", stops: inward | outward,
				missing: func() (string, error) { return oneLine(err), nil }, restore: func() error { return err }})
		}
	}
	for _, f := range g.filters {
		if err := f.Set(g.plan); err != nil {
			return err
		}
	}
	return nil
}

// keepUp takes a filter into care.
func (g *guard) keepUp(f barrier.Filter, stops way) {
	g.filters = append(g.filters, f)
	g.posts = append(g.posts, &post{kind: f.Kind(), stops: stops, missing: f.Missing, restore: func() error { return f.Set(g.plan) }})
}

// filterOptions are the same for all filters of an instance.
func (n Names) filterOptions() barrier.Options {
	return barrier.Options{Name: n.filterName(), TUN: n.TUN, Mark: n.mark()}
}

// filterName is that of the filter, in the kernel.
func (n Names) filterName() string { return "ikepulse-" + n.Instance }

// removeFilters takes away what a killed daemon has left, where the kernel has
// such filters.
func (n Names) removeFilters() error {
	return errors.Join(barrier.RemoveNFTables(n.filterOptions()), barrier.RemoveXFRM(n.filterOptions()))
}

// forgetBarriers takes away what a killed daemon has left.
func (n Names) forgetBarriers() error {
	return errors.Join(n.removeFilters(), tun.Forget(n.Table))
}

// BarriersLeft reports whether a daemon's barriers stand here.
func (n Names) BarriersLeft() bool {
	left, err := tun.Left(n.Table)
	return err == nil && left
}

// close ends the guard, and takes its filter away or leaves it where it is.
func (g *guard) close(leave bool) error {
	g.handle.Close()
	var errs []error
	for _, f := range g.filters {
		if leave {
			errs = append(errs, f.Close())
		} else {
			errs = append(errs, f.Remove())
		}
	}
	return errors.Join(errs...)
}

// act does what is due.
func (g *guard) act(now time.Time) {
	if now.Sub(g.doubted) >= doubtEvery {
		g.doubt()
	}
	if now.Sub(g.glanced) >= glanceEvery {
		g.glance(now)
	}
	looked := false
	if g.stale && now.Sub(g.looked) >= lookPause {
		g.replan(now)
		looked = true
	}
	for _, p := range g.posts {
		if p.doubted || p.gone != "" && !now.Before(p.next) {
			g.tend(p, now)
			looked = true
		}
	}
	if looked {
		g.survey()
	}
}

// glance doubts the filters of which something is missing that nobody tells of.
func (g *guard) glance(now time.Time) {
	g.glanced = now
	for i, f := range g.filters {
		if f.Silent() {
			g.posts[1+i].doubted = true
		}
	}
}

// replan follows what the host has.
func (g *guard) replan(now time.Time) {
	host, err := barrier.Look(g.handle, g.names.TUN, g.names.Table)
	g.looked, g.stale = now, err != nil
	if err != nil {
		g.log.Warn("the host's networks cannot be read", "error", err)
		return
	}
	plan := g.covers.Plan(host)
	if plan.Equal(g.plan) {
		return
	}
	for _, h := range plan.Hidden {
		if !slices.Contains(g.plan.Hidden, h) {
			g.log.Warn(hiddenText(h))
		}
	}
	g.plan = plan
	err = g.device.Follow(plan)
	for _, f := range g.filters {
		err = errors.Join(err, f.Set(plan))
	}
	if err != nil {
		g.log.Warn("the barriers do not follow the host's networks", "error", err)
		for _, p := range g.posts {
			p.doubted = true
		}
	}
}
