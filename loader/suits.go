package loader

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// suit makes an interface fit for the program, or says why it is not. What it
// changes undo changes back, and is on record under name.
func (i *Instance) suit(dev netlink.Link, name string) (undo func() error, err error) {
	undo = func() error { return nil }
	v, err := i.unfit(dev)
	if v == nil || err == nil {
		return undo, err
	}
	asked := i.keepTags || i.dir != "" && keepsTags(i.dir, name)
	if len(v.by) == 0 || !asked {
		return undo, err
	}
	if i.dir == "" {
		return undo, fmt.Errorf("%w; it is not switched off, since nothing is pinned that would have it switched on again", err)
	}
	before := keepsTags(i.dir, name)
	undo = func() error {
		if before {
			return nil // it was so, and stays
		}
		return restoreTags(i.dir, name)
	}
	if err := errors.Join(recordTags(i.dir, name, v.by), v.lift()); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// stillFit is for when the program is on an interface: now it is known in
// which mode.
func (i *Instance) stillFit(dev netlink.Link) error {
	now, err := netlink.LinkByIndex(dev.Attrs().Index)
	if err == nil {
		_, err = i.unfit(now)
	}
	return err
}

// unfit is Unfit for an interface, with what hides VLAN tags, if that is it.
func (i *Instance) unfit(dev netlink.Link) (*veil, error) {
	if err := framed(dev); err != nil {
		return nil, err
	}
	now, err := i.set.Settings()
	if err != nil || now.Keepalive != DefaultKeepalive {
		return nil, err
	}
	return answersGoAstray(dev)
}

// AnswersGoAstray says why no keepalive can be answered on an interface as it
// is, or as Attach would make it with [Options.KeepTags]; nil is that it can.
func AnswersGoAstray(ifname string, keepTags bool) error {
	dev, err := device(ifname)
	if err != nil {
		return err
	}
	v, err := answersGoAstray(dev)
	if v != nil && len(v.by) > 0 && keepTags {
		return nil
	}
	return err
}

func answersGoAstray(dev netlink.Link) (*veil, error) {
	if err := notPort(dev); err != nil {
		return nil, err
	}
	v, err := veilOf(dev)
	if v == nil || err != nil {
		return nil, err
	}
	return v, v.refusal()
}

// notPort refuses interfaces on which an answer would leave beside their master:
// what a bridge's port or a bond's member sends is the master's to decide.
func notPort(dev netlink.Link) error {
	index := dev.Attrs().MasterIndex
	if index == 0 {
		return nil
	}
	master, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	if master.Type() == "vrf" { // a routing table, through which nothing passes
		return nil
	}
	name := master.Attrs().Name
	return fmt.Errorf("it is a port of the %s %s, and keepalives are answered: attach to %s, or load with keepalive absorb", master.Type(), name, name)
}

// Unfit says of interfaces that have the program why it should not be there as
// it is, by name: they have become a port, or have got a VLAN, since.
func (i *Instance) Unfit() (why map[string]error, err error) {
	why = map[string]error{}
	err = i.locked(func(links []attached) error {
		for _, l := range links {
			if l.dev == nil {
				continue // Attachments says so
			}
			if _, err := i.unfit(l.dev); err != nil {
				why[l.dev.Attrs().Name] = err
			}
		}
		return nil
	})
	return why, err
}
