package loader

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// Reattach puts the program back on every interface that has lost it and is
// there: one that was deleted and came back, or that somebody took the program
// off by force. What Detach has taken off stays off: no pin of it is left.
func (i *Instance) Reattach() (done []Attachment, err error) {
	err = i.locked(func(links []attached) error {
		var errs []error
		for _, l := range links {
			dev := l.returned()
			if dev == nil {
				continue
			}
			a, err := i.put(dev, links)
			if err != nil {
				errs = append(errs, fmt.Errorf("attaching to %s again: %w", l.name, err))
				continue
			}
			done = append(done, a)
		}
		return errors.Join(errs...)
	})
	return done, err
}

// returned is the interface that a link without one was on, if it is there.
func (a attached) returned() netlink.Link {
	if a.index != 0 {
		return nil
	}
	dev, err := netlink.LinkByName(a.name)
	if err != nil {
		return nil
	}
	return dev
}
