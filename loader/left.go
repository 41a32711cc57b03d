package loader

import (
	"errors"
	"io/fs"
	"os"

	"github.com/vishvananda/netlink"
)

// Left returns where the pins of an instance keep its program, for a process
// that the kernel does not let use them: that process must know what goes on
// beside it. Where even the links cannot be opened, the names of their pins and
// the interfaces of these names tell.
func Left(instance string) (all []Attachment, err error) {
	dir, err := Dir(instance)
	if err != nil {
		return nil, err
	}
	unlock, err := lock(dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	links, err := pinnedLinks(dir)
	if err != nil {
		return leftByName(dir)
	}
	defer closeLinks(links)
	for _, l := range links {
		if a := l.attachment(); !a.Gone && runs(a.Interface, a.ProgramID) {
			all = append(all, a)
		}
	}
	return all, nil
}

// leftByName makes no bpf system call.
func leftByName(dir string) (all []Attachment, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name, ok := linkedInterface(entry.Name())
		if !ok {
			continue
		}
		dev, err := netlink.LinkByName(name)
		if err != nil || dev.Attrs().Xdp == nil || !dev.Attrs().Xdp.Attached {
			continue // it is not here any more
		}
		all = append(all, Attachment{Interface: name, Index: dev.Attrs().Index, Mode: modeOf(dev), ProgramID: dev.Attrs().Xdp.ProgId})
	}
	return all, nil
}

// runs tells whether an interface runs a program: a link of another network
// namespace may have the number of an interface of this one.
func runs(ifname string, program uint32) bool {
	dev, err := netlink.LinkByName(ifname)
	return err == nil && dev.Attrs().Xdp != nil && dev.Attrs().Xdp.ProgId == program
}
