package loader

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// TestLeft: where the program is by its pins, is found with the links and, by
// their names alone, without; where it is not any more, it is not.
func TestLeft(t *testing.T) {
	privileged(t)
	want := func(when string, names ...string) {
		t.Helper()
		dir, err := Dir("")
		if err != nil {
			t.Fatal(err)
		}
		opened, err := Left("")
		if err != nil {
			t.Errorf("%s: %v", when, err)
		}
		ways := map[string][]Attachment{"by links": opened}
		if len(names) > 0 {
			if ways["by names"], err = leftByName(dir); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		for way, got := range ways {
			ok := len(got) == len(names)
			for n := range min(len(got), len(names)) {
				ok = ok && got[n].Interface == names[n] && got[n].ProgramID == programOn(t, names[n]) && got[n].ProgramID != 0 && got[n].Mode == native
			}
			if !ok {
				t.Errorf("%s, %s: %+v, want %q", when, way, got, names)
			}
		}
	}
	want("nothing is loaded")
	i := ensure(t, small())
	defer remove(t, i)
	want("nothing is attached")
	first := veth(t, "vl0", 0)
	veth(t, "vl1.5", 0)
	attach(t, i, "vl0")
	attach(t, i, "vl1.5")
	want("attached to two", "vl0", "vl1.5")
	if err := netlink.LinkDel(first); err != nil {
		t.Fatal(err)
	}
	want("one is deleted", "vl1.5")
	veth(t, "vl0", 0)
	want("one came back without", "vl1.5")
	if err := i.Detach("vl0"); err != nil {
		t.Fatal(err)
	}
	want("one is detached", "vl1.5")
	if err := i.Detach("vl1.5"); err != nil {
		t.Fatal(err)
	}
	want("both are detached")
}
