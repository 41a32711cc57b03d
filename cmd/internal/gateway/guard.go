package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/tun"
	"github.com/ikepulse/ikepulse/loader"
)

// Barriers are what keeps covered packets from leaving and entering in the clear.
type Barriers struct {
	Unprotected string   `json:"unprotected"`       // "block" or "pass"
	Kinds       []string `json:"kinds"`             // those that there are to be; none with "pass"
	Networks    int      `json:"networks"`          // that tunnels cover
	Missing     []string `json:"missing,omitempty"` // what somebody has taken away
	Hidden      []string `json:"hidden,omitempty"`  // attached networks that a tunnel covers
}

// problems says what is not as it should be.
func (b *Barriers) problems() (all []string) {
	for _, what := range b.Missing {
		all = append(all, "a barrier against packets in the clear is gone: "+what)
	}
	return append(all, b.Hidden...)
}

// guard keeps the barriers up: it follows what changes on the host, and puts back
// what somebody takes away. Its fields belong to one goroutine, but for what mu
// guards.
type guard struct {
	names  Names
	log    *slog.Logger
	covers barrier.Config
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
	g := &guard{names: n, log: log, covers: covers(c), handle: h}
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

// HiddenNetworks says which networks that this host is on lie in what a tunnel
// covers. It is not asked on a host that has none of the listen addresses: the
// configuration is for another.
func HiddenNetworks(c *config.Config) (all []string) {
	names := NamesOf(loader.DefaultInstance)
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil
	}
	defer h.Close()
	host, err := barrier.Look(h, names.TUN, names.Table)
	here := func(a barrier.Attached) bool { return slices.Contains(c.Listen.Addresses, a.Address) }
	if err != nil || !slices.ContainsFunc(host.Attached, here) {
		return nil
	}
	config := covers(c)
	for _, hidden := range config.Plan(host).Hidden {
		all = append(all, hiddenText(hidden))
	}
	return all
}

// covers is what a configuration says of barriers.
func covers(c *config.Config) barrier.Config {
	out := barrier.Config{Bypass: c.Bypass, Listen: c.Listen.Addresses, Pass: c.Unprotected == "pass"}
	for _, p := range c.Pools {
		out.Pools = append(out.Pools, p.Addresses)
	}
	for i := range c.Connections {
		conn := &c.Connections[i]
		out.Peers = append(out.Peers, conn.Remote.Literal()...)
		for _, ch := range conn.Children {
			out.Tunnels = append(out.Tunnels, barrier.Tunnel{Name: conn.Name, Local: fixed(ch.LocalTS), Remote: fixed(ch.RemoteTS)})
		}
	}
	return out
}

// fixed are the prefixes that do not depend on a peer's address.
func fixed(selectors []config.Selector) (out []netip.Prefix) {
	for _, s := range selectors {
		if !s.Dynamic {
			out = append(out, s.Prefix.Masked())
		}
	}
	return out
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

// survey takes down for status how things are.
func (g *guard) survey() {
	b := Barriers{Unprotected: "block", Networks: g.plan.Networks()}
	if g.covers.Pass {
		b.Unprotected = "pass"
	}
	for _, p := range g.posts {
		b.Kinds = append(b.Kinds, p.kind)
		if p.gone != "" {
			b.Missing = append(b.Missing, p.gone)
		}
	}
	for _, h := range g.plan.Hidden {
		b.Hidden = append(b.Hidden, hiddenText(h))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = b
}

// status is as of the last look.
func (g *guard) status() Barriers {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

func hiddenText(h barrier.Hidden) string {
	return fmt.Sprintf("the network %v of %s lies in %v, which the tunnel of %s covers: its hosts cannot be reached; give it as local_ts, or as bypass",
		h.Network, h.Interface, h.Remote, h.Tunnel)
}
