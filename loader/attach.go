package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
)

// Modes of an attachment: in the driver, or after it for drivers that cannot.
const (
	native  = "native"
	generic = "generic"
)

// Attach puts the program on an interface: natively, else in generic mode with
// the reason in the attachment's note. Where it is already, it becomes the
// present program. Another's program is a [*ForeignError] and stays. Where
// keepalives are answered and an answer would go astray, it is refused. On some
// drivers attaching resets the link.
func (i *Instance) Attach(ifname string) (Attachment, error) {
	var done Attachment
	err := i.locked(func(links []attached) error {
		dev, err := device(ifname)
		if err != nil {
			return err
		}
		done, err = i.put(dev, links)
		return err
	})
	if err != nil {
		return Attachment{}, fmt.Errorf("attaching to %s: %w", ifname, err)
	}
	return done, nil
}

// put makes the interface run the present program.
func (i *Instance) put(dev netlink.Link, links []attached) (Attachment, error) {
	undo, err := i.suit(dev, pinnedName(dev, links))
	if err != nil {
		return Attachment{}, err
	}
	a, err := i.place(dev, links)
	if err != nil {
		return Attachment{}, errors.Join(err, undo())
	}
	return a, nil
}

// pinnedName is the name by which the interface was attached, or will be.
func pinnedName(dev netlink.Link, links []attached) string {
	for _, l := range links {
		if l.on(dev) {
			return l.name
		}
	}
	return dev.Attrs().Name
}

func (i *Instance) place(dev netlink.Link, links []attached) (Attachment, error) {
	prog, release, err := i.present()
	if err != nil {
		return Attachment{}, err
	}
	defer release()
	for _, l := range links {
		if l.on(dev) {
			return l.update(prog)
		}
	}
	return i.attach(dev, prog, links)
}

// Attachments returns where the program is, sorted by name, also interfaces
// that are gone and whose links wait for Detach.
func (i *Instance) Attachments() (all []Attachment, err error) {
	err = i.locked(func(links []attached) error {
		for _, l := range links {
			all = append(all, l.attachment())
		}
		return nil
	})
	return all, err
}

// Detach takes the program off the interface of that name, present or former,
// also while a daemon runs, and switches on again what attaching has switched
// off. What has the name goes before what had it. [ErrNotAttached] if it is on
// none.
func (i *Instance) Detach(ifname string) error {
	return i.locked(func(links []attached) error {
		present := func(l attached) bool { return l.dev != nil && l.dev.Attrs().Name == ifname }
		former := func(l attached) bool { return l.name == ifname }
		for _, is := range []func(attached) bool{present, former} {
			if n := slices.IndexFunc(links, is); n >= 0 {
				delete(i.links, links[n].name)
				return links[n].leave()
			}
		}
		return fmt.Errorf("detaching %s: %w", ifname, ErrNotAttached)
	})
}

// DetachAll takes the program off every interface. Pins of maps and program
// stay.
func (i *Instance) DetachAll() error {
	return i.locked(func(links []attached) error {
		var errs []error
		for _, l := range links {
			delete(i.links, l.name)
			errs = append(errs, l.leave())
		}
		return errors.Join(errs...)
	})
}

// Remove detaches from every interface and removes every pin. The maps stay
// usable in this process, until Close.
func (i *Instance) Remove() error {
	if i.dir == "" {
		return i.DetachAll()
	}
	return Purge(i.dir)
}

// locked calls f with the links as they are now, while nobody else changes
// them; f may keep none.
func (i *Instance) locked(f func([]attached) error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.dir == "" {
		links, err := i.held()
		if err != nil {
			return err
		}
		return f(links)
	}
	unlock, err := lock(i.dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return f(nil) // its pins were removed, and so were its links
	}
	if err != nil {
		return err
	}
	defer unlock()
	links, err := pinnedLinks(i.dir)
	if err != nil {
		return err
	}
	defer closeLinks(links)
	return f(links)
}

// held describes the links of an instance without pins.
func (i *Instance) held() (links []attached, err error) {
	for name, l := range i.links {
		a, err := describe(l, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		links = append(links, a)
	}
	sortLinks(links)
	locate(links)
	return links, nil
}

// present returns the program that is to be attached: the pinned one, which
// another process may have renewed since this one opened it. It must still
// write into this instance's maps.
func (i *Instance) present() (prog *ebpf.Program, release func(), err error) {
	if i.dir == "" {
		return i.program, func() {}, nil
	}
	hot, err := ebpf.LoadPinnedMap(filepath.Join(i.dir, bpf.MapHot), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s: %w", i.dir, ErrNotLoaded)
	}
	if err != nil {
		return nil, nil, explain(err)
	}
	defer hot.Close()
	if id, err := mapID(hot); err != nil || id != i.hot {
		return nil, nil, errors.Join(err, fmt.Errorf("%s was replaced by another process: open it again", i.dir))
	}
	prog, err = ebpf.LoadPinnedProgram(programPin(i.dir), nil)
	if err != nil {
		return nil, nil, explain(err)
	}
	return prog, func() { _ = prog.Close() }, nil
}

func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	id, _ := info.ID()
	return id, nil
}

// update makes the interface run prog.
func (a attached) update(prog *ebpf.Program) (Attachment, error) {
	if err := a.link.Update(prog); err != nil {
		return Attachment{}, explain(err)
	}
	after, err := describe(a.link, a.name)
	if err != nil {
		return Attachment{}, err
	}
	after.pin, after.since, after.dev = a.pin, a.since, after.device()
	return after.attachment(), nil
}

func (i *Instance) attach(dev netlink.Link, prog *ebpf.Program, links []attached) (Attachment, error) {
	name := dev.Attrs().Name
	former, ok := linkOf(name, links)
	if ok && former.dev != nil {
		return Attachment{}, fmt.Errorf("the interface that had this name is attached as %s: detach that first", former.attachment().Interface)
	}
	l, note, err := attachTo(dev, prog)
	if err != nil {
		return Attachment{}, err // and what was to be here is still on record
	}
	if err := i.stillFit(dev); err != nil {
		return Attachment{}, errors.Join(err, l.Close())
	}
	if ok {
		delete(i.links, name)
		err = former.detach()
	}
	var a attached
	if err == nil {
		a, err = i.keep(l, name)
	}
	if err != nil {
		return Attachment{}, errors.Join(err, l.Close()) // which takes it off again
	}
	done := a.attachment()
	done.Note = note
	return done, nil
}

// linkOf returns the link to the interface that had that name.
func linkOf(name string, links []attached) (attached, bool) {
	for _, l := range links {
		if l.name == name {
			return l, true
		}
	}
	return attached{}, false
}

// keep pins the link, whose descriptor then goes, or holds it.
func (i *Instance) keep(l link.Link, name string) (attached, error) {
	a, err := describe(l, name)
	if err != nil {
		return attached{}, err
	}
	a.dev = a.device()
	if i.dir == "" {
		i.links[name] = l
		return a, nil
	}
	a.pin = linkPin(i.dir, name)
	if err := l.Pin(a.pin); err != nil {
		return attached{}, fmt.Errorf("pinning the link: %w", explain(err))
	}
	if stat, err := os.Stat(a.pin); err == nil {
		a.since = stat.ModTime()
	}
	return a, l.Close()
}

// attachTo makes the link, which is on the interface as long as it is open. A
// new link never takes the place of a program, in no mode: nobody needs to
// look first, and so nobody comes between the look and the link.
func attachTo(dev netlink.Link, prog *ebpf.Program) (l link.Link, note string, err error) {
	options := link.XDPOptions{Program: prog, Interface: dev.Attrs().Index, Flags: link.XDPDriverMode}
	l, err = link.AttachXDP(options)
	if err == nil {
		return l, "", nil
	}
	if final(err) {
		return nil, "", refused(dev, err)
	}
	note = "not native: " + whyNotNative(err, dev.Attrs().MTU)
	options.Flags = link.XDPGenericMode
	if l, err = link.AttachXDP(options); err != nil {
		return nil, "", fmt.Errorf("%w; %s", refused(dev, err), note)
	}
	return l, note, nil
}

// final errors have nothing to do with the mode.
func final(err error) bool {
	for _, errno := range []error{unix.EPERM, unix.EACCES, unix.ENODEV, unix.EBUSY, unix.EEXIST} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// refused names whose program it is that the kernel would not replace.
func refused(dev netlink.Link, err error) error {
	if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
		return explain(err)
	}
	again, errDev := netlink.LinkByIndex(dev.Attrs().Index)
	if errDev != nil {
		return err
	}
	if xdp := again.Attrs().Xdp; xdp != nil && xdp.Attached {
		return &ForeignError{Interface: again.Attrs().Name, Name: programName(xdp.ProgId), ID: xdp.ProgId}
	}
	if master, errMaster := netlink.LinkByIndex(again.Attrs().MasterIndex); errMaster == nil && errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("it is a port of %s, whose XDP program is on it already", master.Attrs().Name)
	}
	return err // it went away meanwhile
}

// whyNotNative reads a driver's answer: they differ, and the kernel does not
// hand out its words.
func whyNotNative(err error, mtu int) string {
	switch {
	case errors.Is(err, unix.ERANGE):
		return fmt.Sprintf("the MTU of %d is too large for the driver's XDP buffers", mtu)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Sprintf("the driver cannot, or not with an MTU of %d and its present LRO and queues", mtu)
	case errors.Is(err, unix.EINVAL):
		return fmt.Sprintf("the driver refuses its present MTU of %d, LRO or queues", mtu)
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOSPC):
		return "the driver has no queues or memory left for it"
	}
	return err.Error()
}

func device(ifname string) (netlink.Link, error) {
	dev, err := netlink.LinkByName(ifname)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, errors.New("no such interface in this network namespace")
	}
	return dev, err
}

func programName(id uint32) string {
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return "unknown"
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil || info.Name == "" {
		return "unnamed"
	}
	return info.Name
}
