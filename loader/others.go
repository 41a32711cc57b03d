package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What a person has attached beside the configuration is on record beside the
// pin of the link, as what was switched off is: see tagsPrefix.
const handPrefix = "hand_"

func handPin(dir, ifname string) string {
	return filepath.Join(dir, handPrefix+strings.ReplaceAll(ifname, ".", dot))
}

func dropHand(dir, ifname string) error {
	if err := os.Remove(handPin(dir, ifname)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ByHand records that a person wants the program on an interface, so that
// LeaveOthers spares it.
func (i *Instance) ByHand(ifname string) error {
	return i.locked(func(links []attached) error {
		for _, l := range links {
			if l.dev == nil || l.dev.Attrs().Name != ifname || l.pin == "" {
				continue
			}
			if err := os.Symlink("attached by hand", handPin(i.dir, l.name)); !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		return nil
	})
}

// LeaveOthers detaches from the interfaces that are not among the configured
// ones, those that are gone with them, and returns what it has left. One that a
// person has attached stays as long as it is there. Those that are configured
// are no longer anybody's own doing.
func (i *Instance) LeaveOthers(configured []string) (left []Attachment, err error) {
	err = i.locked(func(links []attached) error {
		var errs []error
		for _, l := range links {
			a := l.attachment()
			switch {
			case slices.Contains(configured, a.Interface):
				if l.pin != "" {
					errs = append(errs, dropHand(i.dir, l.name))
				}
				continue
			case !a.Gone && l.pin != "" && byHand(i.dir, l.name):
				continue
			}
			delete(i.links, l.name)
			if err := l.leave(); err != nil {
				errs = append(errs, fmt.Errorf("leaving %s: %w", a.Interface, err))
				continue
			}
			left = append(left, a)
		}
		return errors.Join(errs...)
	})
	return left, err
}

func byHand(dir, ifname string) bool {
	_, err := os.Lstat(handPin(dir, ifname))
	return err == nil
}
