package loader

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
)

// Reattach puts the program back on every interface that has lost it and is
// there: one that was deleted and came back, or that somebody took the program
// off by force. One that was moved to another network namespace loses it when
// another interface here has its name. What Detach has taken off stays off: no
// pin of it is left. failed has the interfaces that refuse, by name.
func (i *Instance) Reattach() (done []Attachment, failed map[string]error, err error) {
	failed = map[string]error{}
	err = i.locked(func(links []attached) error {
		for _, l := range links {
			dev := l.returned()
			if dev == nil {
				continue
			}
			if slices.ContainsFunc(links, func(other attached) bool { return other.on(dev) }) {
				delete(i.links, l.name) // another of ours has its name now: it does not come back
				if err := l.leave(); err != nil {
					failed[l.name] = err
				}
				continue
			}
			a, err := i.put(dev, links)
			if err != nil {
				failed[l.name] = fmt.Errorf("attaching to %s again: %w", l.name, err)
				continue
			}
			done = append(done, a)
		}
		return nil
	})
	return done, failed, err
}

// returned is the interface that a link without one here was on, if there is
// one of that name.
func (a attached) returned() netlink.Link {
	if a.dev != nil {
		return nil
	}
	dev, err := netlink.LinkByName(a.name)
	if err != nil {
		return nil
	}
	return dev
}

// Intact returns nil while what is pinned are this instance's own maps and
// program, or nothing is pinned: pins may be removed, and made anew by another
// process, and then nothing that this one writes is read.
func (i *Instance) Intact() error {
	return i.locked(func([]attached) error {
		_, release, err := i.present()
		if err != nil {
			return err
		}
		release()
		return nil
	})
}
