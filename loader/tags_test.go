package loader

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/loader/ethtool"
)

// stripped tells whether a veth has the offload on.
func stripped(t *testing.T, ifname string) bool {
	t.Helper()
	conn, err := ethtool.Open()
	if err != nil {
		t.Fatal(err)
	}
	on, err := conn.Features(ifname)
	if err != nil {
		t.Fatal(err)
	}
	return on[ethtool.StripsTags]
}

// lifted is an interface whose offload attaching has switched off. That it does
// so where VLANs are is for a kernel that has them: test/vm/inside.
func lifted(t *testing.T, i *Instance, ifname string) netlink.Link {
	t.Helper()
	dev := veth(t, ifname, 0)
	v := &veil{by: []offload{{dev.Attrs().Index, ifname, []string{ethtool.StripsTags}}}}
	if err := errors.Join(recordTags(i.dir, ifname, v.by), v.lift()); err != nil {
		t.Fatal(err)
	}
	if stripped(t, ifname) {
		t.Fatal("the offload is on")
	}
	return dev
}

// Whoever detaches switches on again what attaching switched off, by the record
// alone.
func TestTagsRestored(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	defer remove(t, i)
	for name, leave := range map[string]func(*Instance) error{
		"detach":                      func(i *Instance) error { return i.Detach("vtag.1") },
		"detach all":                  (*Instance).DetachAll,
		"by the name that it has now": func(i *Instance) error { return i.Detach("vnow") },
	} {
		dev := lifted(t, i, "vtag.1")
		if a := attach(t, i, "vtag.1"); !a.KeepsTags || only(t, i) != a || attach(t, i, "vtag.1") != a {
			t.Errorf("%+v, listed %+v", a, only(t, i))
		}
		now := "vtag.1"
		if strings.HasPrefix(name, "by the name") {
			now = "vnow"
			if err := netlink.LinkSetName(dev, now); err != nil {
				t.Fatal(err)
			}
		}
		other, err := Open("")
		if err == nil {
			err = errors.Join(leave(other), other.Close())
		}
		if err != nil || !stripped(t, now) || len(recorded(i.dir)) != 0 {
			t.Errorf("%s: %v, on again: %v, records of %q", name, err, stripped(t, now), recorded(i.dir))
		}
		if err := netlink.LinkDel(dev); err != nil {
			t.Fatal(err)
		}
	}
}

// A record without a link is of somebody who was killed in between.
func TestTagsRestoredWithoutALink(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	lifted(t, i, "vtag")
	remove(t, i)
	if !stripped(t, "vtag") {
		t.Error("the offload is off still")
	}
}

// A record goes with the pins when they are replaced, and is added to when
// something else is switched off.
func TestTagRecord(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	defer func() { remove(t, i) }()
	dev := lifted(t, i, "vtag")
	attach(t, i, "vtag")
	o := small()
	o.Capacity *= 100
	next, err := Ensure(own(o))
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	if i = next; !only(t, i).KeepsTags {
		t.Errorf("the record has not gone along: %+v", only(t, i))
	}
	if err := recordTags(i.dir, "vtag", []offload{{dev.Attrs().Index, "vtag", []string{ethtool.StripsServiceTags}}}); err != nil {
		t.Fatal(err)
	}
	r, err := readTags(i.dir, "vtag")
	want := []tagEntry{{dev.Attrs().Index, ethtool.StripsTags}, {dev.Attrs().Index, ethtool.StripsServiceTags}}
	if err != nil || len(r.entries) != 2 || r.entries[0] != want[0] || r.entries[1] != want[1] {
		t.Errorf("%+v, %v, want %+v", r, err, want)
	}
	if _, err := readTags(i.dir, "vnone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of another: %v", err)
	}
}

// Interfaces of another network namespace have the same numbers: they are left
// alone, and the record goes.
func TestTagsOfAnotherNamespace(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	lifted(t, i, "vtag")
	r, err := readTags(i.dir, "vtag")
	if err != nil {
		t.Fatal(err)
	}
	r.cookie++
	if err := errors.Join(os.Remove(tagsPin(i.dir, "vtag")), os.Symlink(r.String(), tagsPin(i.dir, "vtag"))); err != nil {
		t.Fatal(err)
	}
	remove(t, i)
	if stripped(t, "vtag") {
		t.Error("another namespace's setting was changed here")
	}
}

func TestParseTagRecord(t *testing.T) {
	r := tagRecord{1 << 63, []tagEntry{{7, "a-b"}, {8, "c"}}}
	again, err := parseTagRecord(r.String())
	if err != nil || again.String() != r.String() || len(again.entries) != 2 {
		t.Errorf("%v, %v, want %v", again, err, r)
	}
	for _, bad := range []string{"", "x", "1 a", "1 7", "1 :a"} {
		if r, err := parseTagRecord(bad); err == nil {
			t.Errorf("%q: %+v", bad, r)
		}
	}
}
