package loader

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/test/lab"
)

// only returns the one attachment that there must be.
func only(t *testing.T, i *Instance) Attachment {
	t.Helper()
	all, err := i.Attachments()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Fatalf("attachments: %+v", all)
	}
	return all[0]
}

func attach(t *testing.T, i *Instance, ifname string) Attachment {
	t.Helper()
	a, err := i.Attach(ifname)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAttachAndDetach(t *testing.T) {
	privileged(t)
	for _, name := range []string{"vat", "vat.100", "v.1.2"} { // a VLAN's name has a dot, which bpffs refuses
		t.Run(name, func(t *testing.T) {
			dev := veth(t, name, 0)
			i := ensure(t, small())
			defer remove(t, i)
			a := attach(t, i, name)
			if a.Interface != name || a.Index != dev.Attrs().Index || a.Mode != "native" || a.Note != "" || a.Gone {
				t.Errorf("%+v", a)
			}
			if on := programOn(t, name); on == 0 || on != a.ProgramID || on != uint32(kernelObjects(t, i.Dir()).programs[0]) {
				t.Errorf("program %d is on the interface, the attachment says %d", on, a.ProgramID)
			}
			if age := time.Since(a.Since); age < -time.Second || age > time.Minute {
				t.Errorf("attached %v ago", age)
			}
			if listed := only(t, i); listed != a {
				t.Errorf("listed as %+v, was %+v", listed, a)
			}
			if again := attach(t, i, name); again != a {
				t.Errorf("attached again: %+v, was %+v", again, a)
			}
			objects := kernelObjects(t, i.Dir())
			if err := i.Detach(name); err != nil {
				t.Fatal(err)
			}
			if on := programOn(t, name); on != 0 {
				t.Errorf("program %d is still there", on)
			}
			ids{links: objects.links}.wantGone(t)
			if len(objects.links) != 1 {
				t.Errorf("links %v", objects.links)
			}
			if err := i.Detach(name); !errors.Is(err, ErrNotAttached) {
				t.Errorf("detached twice: %v", err)
			}
		})
	}
}

func TestAttachNothing(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	defer remove(t, i)
	if _, err := i.Attach("nobody"); err == nil || !strings.Contains(err.Error(), "nobody") || !strings.Contains(err.Error(), "no such interface") {
		t.Errorf("err = %v", err)
	}
	if err := i.Detach("nobody"); !errors.Is(err, ErrNotAttached) {
		t.Errorf("err = %v", err)
	}
	if all, err := i.Attachments(); len(all) != 0 || err != nil {
		t.Errorf("%+v, %v", all, err)
	}
}

// multiBuffer reports whether the program may be in the driver of an interface
// whose frames do not fit into one buffer.
func multiBuffer(t *testing.T) bool {
	t.Helper()
	spec, err := bpf.Load()
	if err != nil {
		t.Fatal(err)
	}
	return spec.Programs[bpf.ProgXDP].Flags&unix.BPF_F_XDP_HAS_FRAGS != 0
}

// At any MTU it is on: natively where the driver can, else generic, and says
// why.
func TestMTU(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	defer remove(t, i)
	for _, c := range []struct {
		mtu    int
		native bool
	}{{1500, true}, {3400, true}, {3600, multiBuffer(t)}, {9000, multiBuffer(t)}} {
		name := fmt.Sprintf("vm%d", c.mtu)
		veth(t, name, c.mtu)
		peer, err := netlink.LinkByName(fmt.Sprintf("pm%d", c.mtu))
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetMTU(peer, c.mtu); err != nil { // whose frames they would be
			t.Fatal(err)
		}
		a := attach(t, i, name)
		why := fmt.Sprintf("not native: the MTU of %d is too large", c.mtu)
		if c.native && (a.Mode != "native" || a.Note != "") || !c.native && (a.Mode != "generic" || !strings.Contains(a.Note, why)) {
			t.Errorf("MTU %d: %+v", c.mtu, a)
		}
		if on := programOn(t, name); on != a.ProgramID {
			t.Errorf("MTU %d: program %d", c.mtu, on)
		}
	}
}

func TestGenericFallback(t *testing.T) {
	privileged(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "vbridge"
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(&netlink.Bridge{LinkAttrs: attrs}) })
	i := ensure(t, small())
	defer remove(t, i)
	for name, want := range map[string]string{
		"vbridge": "the driver cannot",
		"lo":      "the driver cannot",
	} {
		a := attach(t, i, name)
		if a.Mode != "generic" || !strings.Contains(a.Note, "not native") || !strings.Contains(a.Note, want) {
			t.Errorf("%s: %+v, want a note on %q", name, a, want)
		}
	}
	all, err := i.Attachments()
	if err != nil || len(all) != 2 || all[0].Interface != "lo" || all[1].Interface != "vbridge" {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, a := range all {
		if a.Mode != "generic" {
			t.Errorf("%s is listed as %s", a.Interface, a.Mode)
		}
	}
	if err := i.DetachAll(); err != nil {
		t.Fatal(err)
	}
	if programOn(t, "lo") != 0 || programOn(t, "vbridge") != 0 {
		t.Error("DetachAll left one")
	}
}

// somebodys loads an XDP program that is not ours.
func somebodys(t *testing.T) (prog *ebpf.Program, id uint32) {
	t.Helper()
	return program(t, "somebody")
}

func program(t *testing.T, name string) (prog *ebpf.Program, id uint32) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.XDP, License: "GPL", Instructions: passAll,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = prog.Close() })
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	number, _ := info.ID()
	return prog, uint32(number)
}

func TestForeignProgramStays(t *testing.T) {
	byLink := func(flags link.XDPAttachFlags) func(*testing.T, netlink.Link, *ebpf.Program) {
		return func(t *testing.T, dev netlink.Link, prog *ebpf.Program) {
			l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: dev.Attrs().Index, Flags: flags})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}
	}
	byNetlink := func(flags int) func(*testing.T, netlink.Link, *ebpf.Program) {
		return func(t *testing.T, dev netlink.Link, prog *ebpf.Program) {
			if err := netlink.LinkSetXdpFdWithFlags(dev, prog.FD(), flags); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, put := range map[string]func(*testing.T, netlink.Link, *ebpf.Program){
		"native link":        byLink(link.XDPDriverMode),
		"generic link":       byLink(link.XDPGenericMode),
		"native by netlink":  byNetlink(unix.XDP_FLAGS_DRV_MODE),
		"generic by netlink": byNetlink(unix.XDP_FLAGS_SKB_MODE),
	} {
		t.Run(name, func(t *testing.T) {
			privileged(t)
			dev := veth(t, "vfor", 0)
			prog, id := somebodys(t)
			put(t, dev, prog)
			i := ensure(t, small())
			defer remove(t, i)
			_, err := i.Attach("vfor")
			var other *ForeignError
			if !errors.As(err, &other) || *other != (ForeignError{"vfor", "somebody", id}) {
				t.Errorf("err = %v, want one of somebody, id %d", err, id)
			}
			if err != nil && strings.Contains(err.Error(), "not native") {
				t.Errorf("%v: the mode has nothing to do with it", err)
			}
			if on := programOn(t, "vfor"); on != id {
				t.Errorf("program %d is on the interface, somebody's is %d", on, id)
			}
			if all, err := i.Attachments(); len(all) != 0 || err != nil {
				t.Errorf("%+v, %v", all, err)
			}
			if err := i.Detach("vfor"); !errors.Is(err, ErrNotAttached) {
				t.Errorf("Detach = %v", err)
			}
			if on := programOn(t, "vfor"); on != id {
				t.Error("Detach took somebody's program away")
			}
		})
	}
}

func TestAnotherInstanceIsForeign(t *testing.T) {
	privileged(t)
	veth(t, "vtwo", 0)
	a, b := ensure(t, Options{Instance: "a", Capacity: 10}), ensure(t, Options{Instance: "b", Capacity: 10})
	defer remove(t, a)
	defer remove(t, b)
	first := attach(t, a, "vtwo")
	_, err := b.Attach("vtwo")
	var other *ForeignError
	if !errors.As(err, &other) || other.Name != "ikepulse_xdp" || other.ID != first.ProgramID {
		t.Errorf("err = %v", err)
	}
	if got := only(t, a); got != first {
		t.Errorf("%+v, was %+v", got, first)
	}
}

// A bpf_link is not taken off by ip link set … xdp off.
func TestNetlinkCannotDetach(t *testing.T) {
	privileged(t)
	dev := veth(t, "voff", 0)
	i := ensure(t, small())
	defer remove(t, i)
	a := attach(t, i, "voff")
	if err := netlink.LinkSetXdpFdWithFlags(dev, -1, unix.XDP_FLAGS_DRV_MODE); err == nil {
		t.Error("ip link set xdp off took it away")
	}
	if on := programOn(t, "voff"); on != a.ProgramID {
		t.Errorf("program %d is on the interface", on)
	}
}

func TestInterfaceGoesAndComesBack(t *testing.T) {
	privileged(t)
	dev := veth(t, "vgone", 0)
	i := ensure(t, small())
	defer remove(t, i)
	before := attach(t, i, "vgone")
	if err := netlink.LinkDel(dev); err != nil {
		t.Fatal(err)
	}
	a := only(t, i)
	if !a.Gone || a.Interface != "vgone" || a.Mode != "" || a.Note == "" {
		t.Errorf("%+v", a)
	}
	veth(t, "vgone", 0)
	if again := attach(t, i, "vgone"); again.Gone || again.LinkID == before.LinkID || programOn(t, "vgone") != again.ProgramID {
		t.Errorf("%+v", again)
	}
	if a := only(t, i); a.Gone || a.Mode != "native" {
		t.Errorf("%+v", a)
	}
	back, err := netlink.LinkByName("vgone")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(back); err != nil {
		t.Fatal(err)
	}
	if err := i.Detach("vgone"); err != nil {
		t.Errorf("cleaning up after an interface that is gone: %v", err)
	}
	if all, err := i.Attachments(); len(all) != 0 || err != nil {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestInterfaceIsRenamed(t *testing.T) {
	privileged(t)
	dev := veth(t, "vold", 0)
	i := ensure(t, small())
	defer remove(t, i)
	attach(t, i, "vold")
	if err := netlink.LinkSetName(dev, "vnew"); err != nil {
		t.Fatal(err)
	}
	if a := only(t, i); a.Interface != "vnew" || a.Gone {
		t.Errorf("%+v", a)
	}
	if a := attach(t, i, "vnew"); a.Interface != "vnew" {
		t.Errorf("attached again by its new name: %+v", a)
	}
	peer, err := netlink.LinkByName("pold")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetName(peer, "pnew"); err != nil {
		t.Fatal(err)
	}
	veth(t, "vold", 0) // another one by the old name
	if _, err := i.Attach("vold"); err == nil || !strings.Contains(err.Error(), "vnew") {
		t.Errorf("the old name's pin is taken, but: %v", err)
	}
	if err := i.Detach("vnew"); err != nil {
		t.Fatal(err)
	}
	if on := programOn(t, "vnew"); on != 0 {
		t.Errorf("program %d is still there", on)
	}
	if a := attach(t, i, "vold"); a.Interface != "vold" {
		t.Errorf("%+v", a)
	}
}

func TestInterfaceMovesAway(t *testing.T) {
	privileged(t)
	dev := veth(t, "vmove", 0)
	i := ensure(t, small())
	defer remove(t, i)
	attach(t, i, "vmove")
	l := lab.New()
	defer l.Close()
	other, err := l.Namespace("other")
	if err != nil {
		t.Fatal(err)
	}
	if err := moveTo(other, dev); err != nil {
		t.Fatal(err)
	}
	if a := only(t, i); !a.Gone || a.Note == "" {
		t.Errorf("%+v", a)
	}
	if err := i.Detach("vmove"); err != nil {
		t.Fatal(err)
	}
	if err := other.Do(func() error {
		if on := programOn(t, "vmove"); on != 0 {
			t.Errorf("program %d went along and stays", on)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Of two that have changed names, the one that is named now is detached.
func TestInterfacesChangeNames(t *testing.T) {
	privileged(t)
	one, two := veth(t, "vone", 0), veth(t, "vtwo", 0)
	i := ensure(t, small())
	defer remove(t, i)
	attach(t, i, "vone")
	attach(t, i, "vtwo")
	if err := errors.Join(netlink.LinkSetName(one, "vtemp"), netlink.LinkSetName(two, "vone"), netlink.LinkSetName(one, "vtwo")); err != nil {
		t.Fatal(err)
	}
	if err := i.Detach("vone"); err != nil {
		t.Fatal(err)
	}
	if a := only(t, i); a.Interface != "vtwo" || a.Gone || programOn(t, "vone") != 0 || programOn(t, "vtwo") == 0 {
		t.Errorf("vone was detached, this is left: %+v", a)
	}
}

// numbered makes interfaces until one has that number.
func numbered(number int) (name string, err error) {
	for n := range 100 {
		if dev, err := netlink.LinkByIndex(number); err == nil {
			return dev.Attrs().Name, nil
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprint("vnumber", n)
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprint("pnumber", n)}); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("no interface gets the number %d", number)
}

// unnumbered removes what numbered has made.
func unnumbered() {
	for n := range 100 {
		if dev, err := netlink.LinkByName(fmt.Sprint("vnumber", n)); err == nil {
			_ = netlink.LinkDel(dev)
		}
	}
}

// movedAway moves an interface to another network namespace where its number is
// taken, and returns the one that it has there.
func movedAway(t *testing.T, dev netlink.Link) (other *lab.Namespace, number int) {
	t.Helper()
	l := lab.New()
	t.Cleanup(func() { _ = l.Close() })
	other, err := l.Namespace("other")
	if err != nil {
		t.Fatal(err)
	}
	err = other.Do(func() error {
		if _, err := numbered(dev.Attrs().Index); err != nil {
			return fmt.Errorf("taking the number %d: %w", dev.Attrs().Index, err)
		}
		return nil
	})
	if err == nil {
		err = moveTo(other, dev)
	}
	if err == nil {
		err = other.Do(func() error {
			there, err := netlink.LinkByName(dev.Attrs().Name)
			if err == nil {
				number = there.Attrs().Index
			}
			return err
		})
	}
	if err != nil || number == dev.Attrs().Index {
		t.Fatalf("number %d as before, or %v", number, err)
	}
	return other, number
}

// An interface here that has the number of one in another namespace is not that.
func TestInterfaceMovesAwayToANumberOfOurs(t *testing.T) {
	privileged(t)
	dev := veth(t, "vnum", 0)
	i := ensure(t, small())
	defer remove(t, i)
	attach(t, i, "vnum")
	_, number := movedAway(t, dev)
	t.Cleanup(unnumbered)
	name, err := numbered(number)
	if err != nil {
		t.Fatal(err)
	}
	if a := only(t, i); !a.Gone || a.Interface != "vnum" {
		t.Errorf("%+v", a)
	}
	if err := i.Detach(name); !errors.Is(err, ErrNotAttached) {
		t.Errorf("detached what it was not attached to: %v", err)
	}
	if a := attach(t, i, name); a.Interface != name || a.ProgramID != programOn(t, name) || a.ProgramID == 0 {
		t.Errorf("%+v", a)
	}
	all, err := i.Attachments() // two links have the number, and the program
	slices.SortFunc(all, func(a, b Attachment) int { return a.Index - b.Index })
	if err != nil || len(all) != 2 || !all[0].Gone || all[1].Gone || all[1].Interface != name {
		t.Errorf("%+v, %v", all, err)
	}
	reattach(t, i)
	if err := i.Detach(name); err != nil || programOn(t, name) != 0 {
		t.Errorf("program %d is on it, %v", programOn(t, name), err)
	}
	if a := only(t, i); !a.Gone || a.Interface != "vnum" {
		t.Errorf("%+v", a)
	}
}

// One that comes by the name of an interface that was moved away takes its place.
func TestAnotherComesForOneThatMovedAway(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	defer remove(t, i)
	for name, again := range map[string]func(){
		"vauto": func() { reattach(t, i, "vauto") },
		"vhand": func() { attach(t, i, "vhand") },
	} {
		dev := veth(t, name, 0)
		attach(t, i, name)
		other, _ := movedAway(t, dev)
		if a := only(t, i); !a.Gone {
			t.Errorf("%+v", a)
		}
		peer, err := netlink.LinkByName("p" + name[1:])
		if err == nil {
			err = netlink.LinkSetName(peer, "q"+name[1:])
		}
		if err != nil {
			t.Fatal(err)
		}
		veth(t, name, 0)
		again()
		if a := only(t, i); a.Gone || a.Interface != name || a.ProgramID != programOn(t, name) {
			t.Errorf("%+v", a)
		}
		if err := other.Do(func() error {
			if on := programOn(t, name); on != 0 {
				t.Errorf("program %d stays where %s has gone", on, name)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := i.Detach(name); err != nil {
			t.Error(err)
		}
	}
}

// An operator's detach must work while a daemon has the link open.
func TestDetachThoughHeld(t *testing.T) {
	privileged(t)
	veth(t, "vheld", 0)
	i := ensure(t, small())
	defer remove(t, i)
	attach(t, i, "vheld")
	held, err := link.LoadPinnedLink(linkPin(i.Dir(), "vheld"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := i.Detach("vheld"); err != nil {
		t.Fatal(err)
	}
	if on := programOn(t, "vheld"); on != 0 {
		t.Errorf("program %d is still there", on)
	}
}

// A link that was taken off by force leaves its pin: Attach makes a new one.
func TestForcedOff(t *testing.T) {
	privileged(t)
	veth(t, "vforce", 0)
	i := ensure(t, small())
	defer remove(t, i)
	attach(t, i, "vforce")
	held, err := link.LoadPinnedLink(linkPin(i.Dir(), "vforce"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(held.Detach(), held.Close()); err != nil {
		t.Fatal(err)
	}
	if a := only(t, i); !a.Gone {
		t.Errorf("%+v", a)
	}
	if a := attach(t, i, "vforce"); a.Gone || programOn(t, "vforce") != a.ProgramID {
		t.Errorf("%+v", a)
	}
}

// When the link cannot be pinned, the program must not stay on the interface.
func TestPinningTheLinkFails(t *testing.T) {
	privileged(t)
	dev := veth(t, "vpin", 0)
	i := ensure(t, small())
	defer remove(t, i)
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", bpffs, "", unix.MS_REMOUNT|flags, "mode=700"); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	_, err := i.attach(dev, i.program, nil)
	remount(0)
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("err = %v", err)
	}
	if on := programOn(t, "vpin"); on != 0 {
		t.Errorf("program %d is on the interface, without a pin", on)
	}
	attach(t, i, "vpin")
}

func TestWithoutPins(t *testing.T) {
	privileged(t)
	for _, name := range []string{"vnpa", "vnpb"} {
		veth(t, name, 0)
	}
	i := ensure(t, Options{NoPin: true, Capacity: 100})
	a := attach(t, i, "vnpa")
	b := attach(t, i, "vnpb")
	if again := attach(t, i, "vnpa"); again != a || !a.Since.IsZero() {
		t.Errorf("%+v, then %+v", a, again)
	}
	all, err := i.Attachments()
	if err != nil || !slices.Equal(all, []Attachment{a, b}) {
		t.Errorf("%+v, %v", all, err)
	}
	if err := i.Detach("vnpa"); err != nil {
		t.Fatal(err)
	}
	if only(t, i) != b || programOn(t, "vnpa") != 0 || programOn(t, "vnpb") != b.ProgramID {
		t.Error("detaching one")
	}
	if err := i.Remove(); err != nil {
		t.Fatal(err)
	}
	if programOn(t, "vnpb") != 0 {
		t.Error("removed, but attached")
	}
	attach(t, i, "vnpb")
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	if programOn(t, "vnpb") != 0 {
		t.Error("closed, but attached")
	}
}

// What was removed or made anew by somebody else is not attached blindly: its
// maps would not be the ones that this process tracks in.
func TestAttachAfterRemoval(t *testing.T) {
	privileged(t)
	veth(t, "vrem", 0)
	i := ensure(t, small())
	defer i.Close()
	if err := Purge(i.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Attach("vrem"); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("removed: %v", err)
	}
	if all, err := i.Attachments(); len(all) != 0 || err != nil {
		t.Errorf("removed: %+v, %v", all, err)
	}
	if err := i.Remove(); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	successor := ensure(t, small())
	defer remove(t, successor)
	if _, err := i.Attach("vrem"); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("made anew: %v", err)
	}
	if on := programOn(t, "vrem"); on != 0 {
		t.Errorf("program %d is on the interface", on)
	}
}

func TestBridgePort(t *testing.T) {
	privileged(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	defer netlink.LinkDel(bridge)
	port := veth(t, "vport", 0)
	if err := netlink.LinkSetMaster(port, bridge); err != nil {
		t.Fatal(err)
	}
	i := ensure(t, small())
	if _, err := i.Attach("vport"); err == nil || !strings.Contains(err.Error(), "attach to br0") {
		t.Errorf("err = %v", err)
	}
	defer i.Close()
	absorbs := ensure(t, Options{Capacity: 100, Keepalive: "absorb"})
	defer remove(t, absorbs)
	attach(t, absorbs, "vport")
	if unfit, err := i.Unfit(); len(unfit) > 0 || err != nil { // as a daemon looks that had answers
		t.Errorf("unfit: %v, %v", unfit, err)
	}
}
