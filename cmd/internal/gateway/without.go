package gateway

import (
	"errors"
	"fmt"
	stdmaps "maps"
	"slices"

	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/maps"
)

// ledger is where inbound SPIs are known and stamped: the maps, or where the
// kernel refuses them our own memory.
type ledger interface {
	ike.Tracker
	Stamp(spi uint32, now int64)
	Untracked() int
}

// dispensable tells whether a gateway can do without what err keeps it from.
// What is loaded for something else is for a person to decide about: XDP would
// go on beside us by another configuration.
func dispensable(err error) bool {
	var otherwise *loader.MismatchError
	var elsewhere *loader.NamespaceError
	return !errors.As(err, &otherwise) && !errors.As(err, &elsewhere)
}

// goWithoutXDP keeps the evidence in our own memory: who is alive is decided
// as ever, from what we have authenticated ourselves.
func (d *daemon) goWithoutXDP(why error) error {
	memory, err := maps.NewMemory(d.Config.XDP.Capacity)
	if err != nil {
		return errors.Join(why, err)
	}
	d.noXDP, d.ledger, d.clock = why, memory, memory.Clock
	d.Log.Warn("going on without XDP: no keepalive is answered, tunnels are as ever", "error", why)
	for _, a := range d.left() {
		d.Log.Warn("an earlier run's XDP program goes on by itself", "interface", a.Interface, "program", a.ProgramID)
	}
	return nil
}

// left is where an earlier run has left its program, as far as it can be seen.
func (d *daemon) left() (out []Attachment) {
	all, err := loader.Left(d.Names.Instance)
	if err != nil {
		return nil // there is a reason already why XDP is off
	}
	for _, a := range all {
		out = append(out, attachment(a))
	}
	return out
}

func leftProblems(left []Attachment) (all []string) {
	for _, a := range left {
		all = append(all, fmt.Sprintf("an earlier run's XDP program is still on %s: it may answer keepalives of tunnels that are gone, and knows none of the present ones; ikepulse detach %s",
			a.Interface, a.Interface))
	}
	return all
}

func (d *daemon) describeXDP() (*XDP, error) {
	if d.xdp == nil {
		return nil, nil
	}
	x, err := DescribeXDP(d.xdp)
	if err == nil && d.keeper != nil {
		x.Waiting, x.Blind = slices.Sorted(stdmaps.Keys(d.keeper.refusals())), int(d.sight.blind.Load())
	}
	return x, err
}

// xdpProblems says where XDP is not as it should be.
func (d *daemon) xdpProblems(x *XDP) (all []string) {
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if x == nil {
		add("XDP is off: %s; no keepalive is answered and SPIs are stamped by our own decryption alone; put it right and restart the daemon", oneLine(d.noXDP))
		return all
	}
	var refused map[string]error
	wanted := d.interfaces
	if d.keeper != nil {
		if err := d.keeper.xdp.Intact(); err != nil {
			add("what is pinned is no longer this daemon's (%s): XDP does nothing for these tunnels; restart the daemon", oneLine(err))
			return all
		}
		if err := d.keeper.xdp.Older(); err != nil {
			add("XDP runs another version's program, since the kernel refuses this one's: %s", oneLine(err))
		}
		refused, wanted = d.keeper.refusals(), d.keeper.wanted()
		all = append(all, Misfits(d.keeper.misfits())...)
	}
	interfaces := interfaceProblems(x, wanted, refused)
	if p := sightProblem(x); p != "" && len(interfaces) == 0 {
		add("%s", p)
	}
	return append(all, interfaces...)
}

// Misfits says where XDP is and should not be as it is.
func Misfits(misfits map[string]error) (all []string) {
	for _, name := range slices.Sorted(stdmaps.Keys(misfits)) {
		all = append(all, fmt.Sprintf("XDP on %s answers wrongly: %s", name, oneLine(misfits[name])))
	}
	return all
}

// interfaceProblems says which interfaces lack the program, each with one
// reason; refused are those of the keeper.
func interfaceProblems(x *XDP, configured []string, refused map[string]error) (all []string) {
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for _, name := range slices.Sorted(stdmaps.Keys(refused)) {
		add("XDP is not on %s: %s", name, oneLine(refused[name]))
	}
	on := map[string]bool{}
	for _, a := range x.Attachments {
		if on[a.Interface] = true; a.Gone && refused[a.Interface] == nil {
			add("XDP is not on %s: %s; it is attached again as soon as it can be", a.Interface, a.Note)
		}
	}
	for _, name := range configured {
		if !on[name] && refused[name] == nil {
			add("XDP is not attached to %s: nothing answers keepalives there; ikepulse attach %s", name, name)
		}
	}
	return all
}

// FollowProblems says where the program should be and is not, while it runs
// beside another daemon.
func FollowProblems(x *XDP) (all []string) {
	if len(x.Attachments) == 0 {
		return []string{"XDP is attached to no interface, so nothing is seen: ikepulse attach IFACE"}
	}
	return interfaceProblems(x, nil, nil)
}
