package loader

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func reattach(t *testing.T, i *Instance, want ...string) {
	t.Helper()
	done, failed, err := i.Reattach()
	var names []string
	for _, a := range done {
		names = append(names, a.Interface)
		if a.Gone || programOn(t, a.Interface) != a.ProgramID {
			t.Errorf("%+v", a)
		}
	}
	if err != nil || len(failed) > 0 || strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("attached to %q again, want %q; %v, %v", names, want, failed, err)
	}
}

// forceOff takes the program off without a word to anybody.
func forceOff(t *testing.T, i *Instance, ifname string) {
	t.Helper()
	held, err := link.LoadPinnedLink(linkPin(i.Dir(), ifname), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(held.Detach(), held.Close()); err != nil {
		t.Fatal(err)
	}
}

// What was lost comes back, what was detached does not.
func TestReattach(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	defer remove(t, i)
	devices := map[string]netlink.Link{}
	for _, name := range []string{"vforced", "vdeleted", "vstays", "vdown", "voff"} {
		devices[name] = veth(t, name, 0)
		attach(t, i, name)
	}
	forceOff(t, i, "vforced")
	if err := errors.Join(netlink.LinkDel(devices["vdeleted"]), i.Detach("voff"),
		netlink.LinkSetUp(devices["vdown"]), netlink.LinkSetDown(devices["vdown"])); err != nil {
		t.Fatal(err)
	}
	all, err := i.Attachments()
	if err != nil || len(all) != 4 || all[0].Note != "the interface is gone" || !strings.Contains(all[2].Note, "by force") {
		t.Errorf("%+v, %v", all, err)
	}
	reattach(t, i, "vforced")
	reattach(t, i)
	veth(t, "vdeleted", 0)
	reattach(t, i, "vdeleted")
	reattach(t, i)
	if on := programOn(t, "voff"); on != 0 {
		t.Errorf("detached, and program %d is on it again", on)
	}
	if all, err := i.Attachments(); err != nil || len(all) != 4 || all[0].Gone || all[1].Gone || all[2].Gone || all[3].Gone {
		t.Errorf("%+v, %v", all, err)
	}
}

// Without pins it is this process that knows what was lost.
func TestReattachWithoutPins(t *testing.T) {
	privileged(t)
	dev := veth(t, "vheld", 0)
	i := ensure(t, Options{NoPin: true, Capacity: 10})
	attach(t, i, "vheld")
	if err := netlink.LinkDel(dev); err != nil {
		t.Fatal(err)
	}
	veth(t, "vheld", 0)
	reattach(t, i, "vheld")
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	if on := programOn(t, "vheld"); on != 0 {
		t.Errorf("program %d is left", on)
	}
}

// An interface that somebody else took meanwhile is his, and is taken back
// when he leaves it.
func TestReattachAfterSomebody(t *testing.T) {
	privileged(t)
	dev := veth(t, "vtaken", 0)
	i := ensure(t, small())
	defer remove(t, i)
	attach(t, i, "vtaken")
	forceOff(t, i, "vtaken")
	prog, id := somebodys(t)
	if err := netlink.LinkSetXdpFdWithFlags(dev, prog.FD(), unix.XDP_FLAGS_DRV_MODE); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		done, failed, err := i.Reattach()
		var other *ForeignError
		if err != nil || !errors.As(failed["vtaken"], &other) || other.ID != id || len(done) != 0 {
			t.Errorf("%+v, %v, %v", done, failed, err)
		}
	}
	if on := programOn(t, "vtaken"); on != id {
		t.Errorf("program %d, somebody's is %d", on, id)
	}
	if a := only(t, i); !a.Gone {
		t.Errorf("%+v", a)
	}
	if err := netlink.LinkSetXdpFdWithFlags(dev, -1, unix.XDP_FLAGS_DRV_MODE); err != nil {
		t.Fatal(err)
	}
	reattach(t, i, "vtaken")
}

// What xdp-loader puts there is named, and so is what to do about it.
func TestDispatcher(t *testing.T) {
	privileged(t)
	dev := veth(t, "vdisp", 0)
	prog, id := program(t, "xdp_dispatcher")
	if err := netlink.LinkSetXdpFdWithFlags(dev, prog.FD(), unix.XDP_FLAGS_DRV_MODE); err != nil {
		t.Fatal(err)
	}
	i := ensure(t, small())
	defer remove(t, i)
	_, err := i.Attach("vdisp")
	if err == nil || !strings.Contains(err.Error(), "libxdp's dispatcher") || !strings.Contains(err.Error(), "xdp-loader unload vdisp --all") {
		t.Errorf("err = %v", err)
	}
	if on := programOn(t, "vdisp"); on != id {
		t.Errorf("program %d is on the interface, the dispatcher is %d", on, id)
	}
}

// Pins that were removed, or made anew, are told from our own.
func TestIntact(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	if err := i.Intact(); err != nil {
		t.Error(err)
	}
	if err := i.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := i.Intact(); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("removed: %v", err)
	}
	another := ensure(t, small())
	if err := i.Intact(); err == nil || !strings.Contains(err.Error(), "replaced by another process") {
		t.Errorf("made anew: %v", err)
	}
	remove(t, another)
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	held := ensure(t, Options{NoPin: true, Capacity: 10})
	if err := errors.Join(held.Intact(), held.Close()); err != nil {
		t.Error(err)
	}
}

// An interface that has the name of one that is gone, and has the program
// already, is not attached again and again.
func TestReattachUnderAnotherName(t *testing.T) {
	privileged(t)
	first, second := veth(t, "vfirst", 0), veth(t, "vsecond", 0)
	i := ensure(t, small())
	defer remove(t, i)
	attach(t, i, "vfirst")
	kept := attach(t, i, "vsecond")
	if err := errors.Join(netlink.LinkDel(first), netlink.LinkSetName(second, "vfirst")); err != nil {
		t.Fatal(err)
	}
	reattach(t, i)
	reattach(t, i)
	if a := only(t, i); a.Interface != "vfirst" || a.Gone || a.LinkID != kept.LinkID {
		t.Errorf("%+v", a)
	}
}
