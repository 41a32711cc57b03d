package loader

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/lab"
)

// own asks as the one whose instance it is.
func own(o Options) Options {
	o.Own = true
	return o
}

// otherLayout makes what is pinned another version's: with a map that this one
// does not know, and without one that it has.
func otherLayout(t *testing.T, dir string) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Pin(filepath.Join(dir, "ikepulse_other")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, bpf.MapNear)); err != nil {
		t.Fatal(err)
	}
	h, err := maps.LoadPinned(dir, false)
	if err == nil {
		_ = h.Close()
		t.Fatal("it has all maps of this version still")
	}
	meta, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.MapMeta), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer meta.Close()
	m2, err := maps.ReadMeta(meta)
	if err != nil {
		t.Fatal(err)
	}
	if m2.Layout++; m2.Write(meta) != nil {
		t.Fatal("cannot write meta")
	}
}

// Whose instance it is gets what he asks for, up and down the versions and
// whatever is attached: in the same links, so that not one frame goes past the
// program, and without a map of the other layout being read.
func TestOwnerTakesOver(t *testing.T) {
	privileged(t)
	l := lab.New()
	defer l.Close()
	i := ensure(t, small())
	t.Cleanup(func() { _ = Purge(i.Dir()) })
	local, peer := netip.MustParseAddrPort("198.51.100.1:4500"), netip.MustParseAddrPort("198.51.100.7:61201")
	sender := keepalives(t, l, "vown", peer, local)
	before := attach(t, i, "vown")
	sees(t, i)

	var all []*Instance // their maps count what they saw, pinned or not
	programs := map[uint32]bool{before.ProgramID: true}
	settle := sender.sent.Load()
	for round := range 12 {
		all = append(all, i)
		o := small()
		switch round % 3 {
		case 0:
			otherLayout(t, i.Dir())
		case 1:
			o.Capacity = 5000
		}
		next, err := Ensure(own(o))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		now := only(t, next)
		if now.LinkID != before.LinkID || now.Gone {
			t.Fatalf("round %d: link %d became %d: attached anew", round, before.LinkID, now.LinkID)
		}
		programs[now.ProgramID] = true
		if want := maps.Entries(max(o.Capacity, 100)); round%3 != 2 && next.Maps().Hot.Slots() != want {
			t.Fatalf("round %d: %d slots, want %d", round, next.Maps().Hot.Slots(), want)
		}
		sees(t, next)
		i = next
	}
	all = append(all, i)
	if len(programs) < 9 {
		t.Errorf("%d programs in turn", len(programs))
	}
	sender.stop()
	var counted uint64
	seen := map[ebpf.MapID]bool{}
	for _, i := range all {
		c, err := i.Maps().Stats.Read()
		if err != nil {
			t.Fatal(err)
		}
		if !seen[i.hot] { // two rounds with the same maps
			counted += c.NotLocal
		}
		seen[i.hot] = true
	}
	// What came before the program, or while this looked, was not counted.
	if sent := sender.sent.Load() - settle; counted < sent {
		t.Errorf("%d of %d keepalives met no program", sent-counted, sent)
	}
	for _, i := range all[:len(all)-1] {
		_ = i.Close()
	}
	remove(t, i)
}

// sees waits until the program has counted a frame.
func sees(t *testing.T, i *Instance) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := i.Maps().Stats.Read()
		if err != nil {
			t.Fatal(err)
		}
		if c.NotLocal > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no frame is counted")
		}
	}
}

// What cannot take over, or serves another purpose, leaves everything as it was,
// with its links.
func TestOwnerRefused(t *testing.T) {
	privileged(t)
	veth(t, "vownr", 0)
	i := ensure(t, small())
	defer func() { _ = Purge(i.Dir()) }()
	before := attach(t, i, "vownr")
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	pins := pinsBelow(t, i.Dir())
	o := own(Options{Capacity: 5000})
	o.alter = unverifiable
	if _, err := Ensure(o); err == nil {
		t.Error("an unverifiable program took over")
	}
	var mismatch *MismatchError
	if _, err := Ensure(own(Options{Follow: true})); !errors.As(err, &mismatch) {
		t.Errorf("beside another daemon: %v", err)
	}
	// Something stands where the pin of the link goes.
	o.alter = func(*ebpf.CollectionSpec) {
		_ = os.Mkdir(linkPin(underConstruction(i.Dir()), "vownr"), 0o700) // once there is something to build in
	}
	if _, err := Ensure(o); err == nil || !strings.Contains(err.Error(), "link_vownr") {
		t.Errorf("it took over where it could not: %v", err)
	}
	if _, err := os.Stat(underConstruction(i.Dir())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was built: %v", err)
	}
	if now := pinsBelow(t, i.Dir()); len(now) != len(pins) {
		t.Errorf("pins were %q, are %q", pins, now)
	}
	again, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	if now := only(t, again); now != before || programOn(t, "vownr") != before.ProgramID {
		t.Errorf("%+v, was %+v", now, before)
	}
	remove(t, again)
}
