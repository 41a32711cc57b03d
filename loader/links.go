package loader

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// Attachment is the program on one interface.
type Attachment struct {
	Interface string // its present name; the one that it was attached by, if it is gone
	Index     int    // 0: gone
	Mode      string // native or generic; "" if it is gone
	ProgramID uint32
	LinkID    uint32
	Since     time.Time // zero when not pinned
	KeepsTags bool      // Attach has switched off what hides VLAN tags, and Detach switches it on again
	Gone      bool      // the interface is deleted, in another namespace, or lost the program; Reattach or Detach
	Note      string    // why not native, or what became of the interface
}

// attached is one link of the instance, pinned or held.
type attached struct {
	link  link.Link
	pin   string       // "": held by this process
	name  string       // the interface's name when it was attached
	index int          // 0: the device is gone, or the link was detached by force
	dev   netlink.Link // nil: gone, or in another network namespace; see locate
	prog  uint32
	id    uint32
	since time.Time
}

// pinnedLinks opens the links pinned in dir, sorted by name; the caller closes
// them. A directory that is not there has none.
func pinnedLinks(dir string) (links []attached, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name, ok := linkedInterface(entry.Name())
		if !ok {
			continue
		}
		l, err := openLink(filepath.Join(dir, entry.Name()), name)
		if err != nil {
			closeLinks(links)
			return nil, err
		}
		links = append(links, l)
	}
	sortLinks(links)
	locate(links)
	return links, nil
}

// locate finds the interfaces of the links. The kernel tells an interface's
// number, but not in which network namespace: after one has been moved away it
// may be that of another interface here, which then runs something else or,
// where the instance is on that one too, is the one of another link.
func locate(links []attached) {
	here := map[int]int{} // index to the place of its link
	for n, l := range links {
		dev := l.device()
		if dev == nil {
			continue
		}
		before, twice := here[l.index]
		if twice && (links[before].name == dev.Attrs().Name || l.name != dev.Attrs().Name && l.id < links[before].id) {
			continue
		}
		if twice {
			links[before].dev = nil
		}
		here[l.index], links[n].dev = n, dev
	}
}

// device is the interface that has the number of the link's and runs its program.
func (a attached) device() netlink.Link {
	if a.index == 0 {
		return nil
	}
	dev, err := netlink.LinkByIndex(a.index)
	if err != nil || dev.Attrs().Xdp == nil {
		return nil
	}
	if xdp := dev.Attrs().Xdp; xdp.ProgId == a.prog || xdp.AttachMode == attachedMulti {
		return dev
	}
	return nil
}

// on tells whether the link is on that interface.
func (a attached) on(dev netlink.Link) bool { return a.dev != nil && a.index == dev.Attrs().Index }

func sortLinks(links []attached) {
	slices.SortFunc(links, func(a, b attached) int { return cmp.Compare(a.name, b.name) })
}

func openLink(pin, name string) (attached, error) {
	stat, err := os.Stat(pin)
	if err != nil {
		return attached{}, err
	}
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return attached{}, fmt.Errorf("opening %s: %w", pin, explain(err))
	}
	a, err := describe(l, name)
	if err != nil {
		return attached{}, errors.Join(fmt.Errorf("%s: %w", pin, err), l.Close())
	}
	a.pin, a.since = pin, stat.ModTime()
	return a, nil
}

func describe(l link.Link, name string) (attached, error) {
	info, err := l.Info()
	if err != nil {
		return attached{}, err
	}
	xdp := info.XDP()
	if xdp == nil {
		return attached{}, errors.New("not a link of an XDP program")
	}
	return attached{
		link: l, name: name, index: int(xdp.Ifindex),
		prog: uint32(info.Program), id: uint32(info.ID),
	}, nil
}

// detach takes the program off the interface, also where another process holds
// the link, and removes the pin.
func (a attached) detach() error {
	err := a.link.Detach()
	if a.index == 0 {
		err = nil // it was off already, which some kernels call an error
	}
	if a.pin != "" {
		err = errors.Join(err, os.Remove(a.pin))
	}
	if err = errors.Join(err, a.link.Close()); err != nil {
		return fmt.Errorf("detaching %s: %w", a.name, explain(err))
	}
	return nil
}

// leave is detach for good: what attaching has switched off comes on again.
func (a attached) leave() error {
	err := a.detach()
	if a.pin != "" {
		err = errors.Join(err, restoreTags(filepath.Dir(a.pin), a.name), dropHand(filepath.Dir(a.pin), a.name))
	}
	return err
}

func closeLinks(links []attached) {
	for _, a := range links {
		if a.pin != "" {
			_ = a.link.Close() // the pin holds it
		}
	}
}

// attachment describes the link to a person, by what the interface says now.
func (a attached) attachment() Attachment {
	out := Attachment{
		Interface: a.name, ProgramID: a.prog, LinkID: a.id, Since: a.since,
		Gone: true, Note: "the interface is gone",
	}
	if a.index == 0 {
		if a.returned() != nil {
			out.Note = "the program was taken off by force, or the interface came back without it"
		}
		return out
	}
	if a.dev == nil {
		out.Note = "the interface is not in this network namespace"
		return out
	}
	out.Interface, out.Index, out.Gone, out.Note = a.dev.Attrs().Name, a.index, false, ""
	out.Mode = modeOf(a.dev)
	out.KeepsTags = a.pin != "" && keepsTags(filepath.Dir(a.pin), a.name)
	return out
}

// What IFLA_XDP_ATTACHED says (uapi/linux/if_link.h). Hardware offload beside
// ours shows as "multi", with no program's id: the kernel allows it only beside
// a native program.
const (
	attachedGeneric = 2
	attachedMulti   = 4
)

func modeOf(dev netlink.Link) string {
	if xdp := dev.Attrs().Xdp; xdp != nil && xdp.AttachMode == attachedGeneric {
		return generic
	}
	return native
}
