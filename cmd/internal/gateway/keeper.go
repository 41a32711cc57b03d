package gateway

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/loader"
)

// keeper keeps the program on its interfaces while the daemon runs. What is
// pinned says which they are: an interface that somebody attached meanwhile is
// looked after too, one that he detached is left alone, and one that is gone,
// or has lost the program, gets it back.
type keeper struct {
	xdp   *loader.Instance
	log   *slog.Logger
	every time.Duration // how soon a loss is noticed that no event of a link tells of

	known map[string]string // what was last said of each interface

	passing sync.Mutex // held by a pass, from its first look at pending to its last
	pending []string   // to be attached for the first time

	suited  time.Time    // when it was last looked whether it belongs where it is
	indices map[int]bool // of the interfaces that it is on

	mu      sync.Mutex
	wants   []string         // interfaces, as they are configured
	refused map[string]error // by interface, as of the last pass
	unfit   map[string]error // those that it is on, and should not be as it is
	seen    view
}

// suitEvery is how soon it is noticed that the program does not belong where
// it is, by another way than the event of a link: it takes a list of all links.
const suitEvery = 10 * time.Second

func newKeeper(xdp *loader.Instance, interfaces []string, log *slog.Logger) *keeper {
	return &keeper{xdp: xdp, log: log, every: time.Second, wants: interfaces, pending: slices.Clone(interfaces), known: map[string]string{}}
}

// keepAttached runs the keeper until ctx ends.
func (d *daemon) keepAttached(ctx context.Context) error {
	for d.keeper != nil && ctx.Err() == nil {
		d.keeper.follow(ctx)
	}
	return nil
}

// follow makes a pass now and then, and at once when a link changes, for as
// long as its events are heard.
func (k *keeper) follow(ctx context.Context) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	poll := time.NewTicker(k.every)
	defer poll.Stop()
	links := eventsOf(ctx, netlink.LinkSubscribe)
	k.pass(true) // what happened while nobody listened
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			k.pass(false)
			if links == nil {
				return // to listen again
			}
		case event, ok := <-links:
			if !ok {
				links = nil // its socket took no more
			} else if k.concerns(event) {
				k.pass(true)
			}
		}
	}
}

// eventsOf are those of a subscription of netlink, until ctx ends or an event is
// lost; nil if there is no way to hear of them.
func eventsOf[T any](ctx context.Context, subscribe func(chan<- T, <-chan struct{}) error) <-chan T {
	const room = 64
	events := make(chan T, room)
	if err := subscribe(events, ctx.Done()); err != nil {
		return nil
	}
	context.AfterFunc(ctx, func() {
		for range events { // its sender may wait for us, and closes it
		}
	})
	return events
}

// concerns tells whether an event is about an interface of ours, or a VLAN on
// it: others may come and go by the thousand.
func (k *keeper) concerns(event netlink.LinkUpdate) bool {
	_, ours := k.known[event.Attrs().Name]
	return ours || k.indices[event.Attrs().ParentIndex]
}

// pass attaches what is to be attached, and takes note of what has changed;
// something about links has, if changed says so.
func (k *keeper) pass(changed bool) {
	k.passing.Lock()
	defer k.passing.Unlock()
	refused := map[string]error{}
	var waiting []string
	for _, name := range k.pending {
		a, err := k.xdp.Attach(name)
		if err != nil {
			refused[name] = err
			waiting = append(waiting, name)
			continue
		}
		k.attached(a)
	}
	k.pending = waiting
	again, failed, _ := k.xdp.Reattach() // what else is wrong with the pins, status finds
	for _, a := range again {
		k.attached(a)
	}
	maps.Copy(refused, failed)
	if changed || time.Since(k.suited) >= suitEvery {
		k.suited = time.Now()
		k.suit()
	}
	k.notice(refused)
	k.mu.Lock()
	k.refused = refused
	k.mu.Unlock()
}

// giveUp no longer tries an interface that has never been attached, and tells
// whether it was being tried. It waits for a pass under way: what that attaches
// is there to be detached afterwards.
func (k *keeper) giveUp(name string) bool {
	k.passing.Lock()
	defer k.passing.Unlock()
	at := slices.Index(k.pending, name)
	if at < 0 {
		return false
	}
	k.pending = slices.Delete(k.pending, at, at+1)
	k.mu.Lock()
	defer k.mu.Unlock()
	rest := maps.Clone(k.refused) // others may be reading it
	delete(rest, name)
	k.refused = rest
	return true
}

// want says which interfaces the configuration means; those that are new are
// attached by the next pass. If they are all, whole is set, and XDP leaves what
// else an earlier configuration had it on.
func (k *keeper) want(names []string, whole bool) {
	k.passing.Lock()
	defer k.passing.Unlock()
	k.mu.Lock()
	wants := slices.Clone(k.wants)
	for _, name := range names {
		if !slices.Contains(wants, name) {
			wants, k.pending = append(wants, name), append(k.pending, name)
		}
	}
	if whole {
		wants = slices.Clone(names)
		k.pending = slices.DeleteFunc(k.pending, func(name string) bool { return !slices.Contains(names, name) })
	}
	k.wants = wants
	k.mu.Unlock()
	if whole {
		k.leaveOthers(names)
	}
}

func (k *keeper) leaveOthers(names []string) {
	left, err := k.xdp.LeaveOthers(names)
	if err != nil {
		k.log.Warn("XDP stays on an interface that is not configured", "error", err)
	}
	for _, a := range left {
		k.log.Info("XDP has left an interface that is not configured any more", "interface", a.Interface, "gone", a.Gone)
		delete(k.known, a.Interface)
	}
}

// wanted are the interfaces that the configuration means.
func (k *keeper) wanted() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.wants
}

// refusals are why interfaces have no program, by name.
func (k *keeper) refusals() map[string]error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refused
}

// misfits are why interfaces that have it should not, by name.
func (k *keeper) misfits() map[string]error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.unfit
}

// suit looks whether the program still belongs where it is. It stays, for what
// it stamps, and what attaching anew puts right is put right.
func (k *keeper) suit() {
	unfit, err := k.xdp.Unfit()
	if err != nil {
		return // as in notice
	}
	for name, why := range unfit {
		if a, err := k.xdp.Attach(name); err == nil {
			k.attached(a)
			delete(unfit, name)
		} else if before := k.unfit[name]; before == nil || before.Error() != why.Error() {
			k.log.Warn("XDP is on an interface where it answers wrongly", "interface", name, "why", why)
		}
	}
	for name := range k.unfit {
		if unfit[name] == nil {
			k.log.Info("XDP is where it should be again", "interface", name)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unfit = unfit
}

// What is known of an interface, beside why it is refused.
const (
	isOn  = ""
	isOff = "detached"
)

func (k *keeper) attached(a loader.Attachment) {
	log := k.log.With("interface", a.Interface, "mode", a.Mode, "program", a.ProgramID)
	if a.KeepsTags {
		log = log.With("vlan_offload", "off")
	}
	if a.Note != "" {
		log = log.With("note", a.Note)
	}
	log.Info("XDP attached")
	k.known[a.Interface] = isOn
}

// notice logs what has become of interfaces since the last pass, once each.
func (k *keeper) notice(refused map[string]error) {
	now := map[string]string{}
	attachments, err := k.xdp.Attachments()
	k.survey(attachments, refused, err)
	if err != nil {
		return // the next pass sees more, and status says what is wrong
	}
	for name := range k.known {
		now[name] = isOff
	}
	for _, a := range attachments {
		if now[a.Interface] = isOn; a.Gone {
			now[a.Interface] = a.Note
		}
	}
	for name, err := range refused {
		now[name] = oneLine(err)
	}
	for name, state := range now {
		before, seen := k.known[name]
		switch {
		case seen && before == state:
		case state == isOn:
			k.log.Info("XDP is on an interface again, or was attached to one", "interface", name)
		default:
			k.log.Warn("XDP is off an interface", "interface", name, "why", state)
		}
	}
	k.known = now
}

// survey takes down by what XDP is attached.
func (k *keeper) survey(attachments []loader.Attachment, refused map[string]error, err error) {
	v := view{whole: err == nil && len(refused) == 0}
	on := map[string]bool{}
	k.indices = map[int]bool{}
	for _, a := range attachments {
		v.links = append(v.links, a.LinkID)
		if !a.Gone {
			k.indices[a.Index] = true
		}
		on[a.Interface] = !a.Gone
		v.whole = v.whole && !a.Gone
	}
	for _, name := range k.wanted() {
		v.whole = v.whole && on[name]
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = v
}

// view is as of the last pass.
func (k *keeper) view() view {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen
}

// giveUp is for whoever detaches an interface that XDP is not on yet.
func (d *daemon) giveUp(_ context.Context, name string) (int, error) {
	if d.keeper == nil || !d.keeper.giveUp(name) {
		return 0, nil
	}
	return 1, nil
}
