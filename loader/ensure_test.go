package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/lab"
)

func TestEnsureAndRemove(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	if want := base + "/default"; i.Dir() != want {
		t.Errorf("pinned at %s, want %s", i.Dir(), want)
	}
	for _, dir := range []string{base, i.Dir()} {
		stat, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if stat.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", dir, stat.Mode())
		}
	}
	for _, name := range allPins(t) {
		if _, err := os.Stat(filepath.Join(i.Dir(), name)); err != nil {
			t.Error(err)
		}
	}
	if pins := pinsBelow(t, base); len(pins) != 1+len(allPins(t)) {
		t.Errorf("pins: %q", pins)
	}
	if got := i.Maps().Hot.Slots(); got != 256 {
		t.Errorf("%d slots for 100 tunnels, want 256", got)
	}
	objects := kernelObjects(t, i.Dir())
	if left := objects.left(); len(left) != len(objects.maps)+len(objects.programs)+len(objects.tables) {
		t.Errorf("of %+v only %q are there: the check at the end proves nothing", objects, left)
	}
	remove(t, i)
	objects.wantGone(t)
}

func TestInstanceNames(t *testing.T) {
	for _, name := range []string{"_new", "-x", "a.b", "a/b", "..", "a b", "ä", strings.Repeat("x", 33)} {
		if dir, err := Dir(name); err == nil {
			t.Errorf("Dir(%q) = %s", name, dir)
		}
		if _, err := Ensure(Options{Instance: name}); err == nil {
			t.Errorf("Ensure took the instance name %q", name)
		}
		if _, err := Open(name); err == nil || errors.Is(err, ErrNotLoaded) {
			t.Errorf("Open(%q): %v", name, err)
		}
	}
	for name, want := range map[string]string{"": base + "/default", "a-B_9": base + "/a-B_9"} {
		if dir, err := Dir(name); dir != want || err != nil {
			t.Errorf("Dir(%q) = %s, %v", name, dir, err)
		}
	}
	for _, dir := range []string{"relative/x", bpffs + "/a.b", bpffs + "/_x", "/"} {
		if _, err := Ensure(Options{PinDir: dir}); err == nil {
			t.Errorf("pin directory %q was taken", dir)
		}
		if err := Purge(dir); err == nil {
			t.Errorf("Purge(%q) did not refuse", dir)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Capacity: -1}, "capacity"},
		{Options{Capacity: maps.MaxCapacity + 1}, "capacity"},
		{Options{Keepalive: "shout"}, "keepalive"},
		{Options{AnswerInterval: -1}, "interval"},
		{Options{AnswerInterval: 48 * time.Hour}, "interval"},
		{Options{AnswerBudget: -1}, "budget"},
	} {
		if _, err := Ensure(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want a word on %s", c.o, err, c.want)
		}
	}
}

// variable reads a constant of the pinned program.
func variable(t *testing.T, dir, name string) uint32 {
	t.Helper()
	prog, err := ebpf.LoadPinnedProgram(programPin(dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := bpf.Load()
	if err != nil {
		t.Fatal(err)
	}
	used, _ := info.MapIDs()
	for _, id := range used {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		about, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		rodata := strings.Contains(about.Name, "rodata")
		value, err := m.LookupBytes(uint32(0))
		_ = m.Close()
		if err != nil || !rodata {
			continue
		}
		v := spec.Variables[name]
		number := uint32(0)
		for n := range len(v.Value) {
			number |= uint32(value[int(v.Offset)+n]) << (8 * n)
		}
		return number
	}
	t.Fatalf("the program has no rodata among its maps %v", used)
	return 0
}

func TestSettingsReachTheProgram(t *testing.T) {
	privileged(t)
	i := ensure(t, Options{
		Instance: "set", Capacity: 3000, Keepalive: "absorb", AnswerInterval: 20 * time.Second,
		AnswerBudget: 500, StrangerPass: true, NATTPort: 4501, Account: true, PassEvery: 7,
	})
	defer remove(t, i)
	meta := i.Maps().Meta
	tick := meta.Tick()
	if tick < 250*time.Millisecond || tick > 1100*time.Millisecond {
		t.Fatalf("a tick of %v", tick)
	}
	if least := uint32(20 * time.Second / tick); meta.AnswerInterval < least || meta.AnswerInterval > least+1 {
		t.Errorf("an interval of %d ticks of %v for 20 s", meta.AnswerInterval, tick)
	}
	if least := uint32(driftInterval / tick); meta.DriftInterval < least || meta.DriftInterval > least+1 {
		t.Errorf("a drift interval of %d ticks of %v", meta.DriftInterval, tick)
	}
	if least := uint32(strangersASecond * tick.Seconds()); meta.StrangerBudget < least || meta.StrangerBudget > least+1 {
		t.Errorf("%d strangers in %v", meta.StrangerBudget, tick)
	}
	for name, want := range map[string]uint32{
		bpf.VarKeepaliveMode:      bpf.KeepaliveAbsorb,
		bpf.VarStrangerPass:       1,
		bpf.VarTickShift:          meta.TickShift,
		bpf.VarAnswerInterval:     meta.AnswerInterval,
		bpf.VarAnswerBudget:       uint32(500*tick.Seconds() + 0.9999),
		bpf.VarSlotMask:           8191,
		bpf.VarNATTPort:           4501,
		bpf.VarAccountEveryPacket: 1,
		bpf.VarPassEvery:          7,
		bpf.VarDriftInterval:      meta.DriftInterval,
		bpf.VarStrangerBudget:     meta.StrangerBudget,
		bpf.VarForeign:            0,
	} {
		if got := variable(t, i.Dir(), name); got != want {
			t.Errorf("%s = %d, want %d", name, got, want)
		}
	}
	if meta.Capacity != 3000 || meta.Keepalive != "absorb" || !meta.StrangerPass || !meta.Account || meta.NATTPort != 4501 || meta.PassEvery != 7 {
		t.Errorf("%+v", meta)
	}
}

func TestDefaults(t *testing.T) {
	privileged(t)
	i := ensure(t, Options{NoPin: true})
	defer remove(t, i)
	meta := i.Maps().Meta
	if meta.Capacity != 65536 || meta.Keepalive != "answer" || meta.NATTPort != 4500 || meta.StrangerPass || meta.Account {
		t.Errorf("%+v", meta)
	}
	if interval := time.Duration(meta.AnswerInterval) * meta.Tick(); interval < 10*time.Second || interval >= 10*time.Second+meta.Tick() {
		t.Errorf("an answer interval of %v", interval)
	}
	if need := uint32(meta.Capacity) / meta.AnswerInterval; meta.AnswerBudget < need {
		t.Errorf("%d answers a tick for %d tunnels every %d ticks", meta.AnswerBudget, meta.Capacity, meta.AnswerInterval)
	}
	if got := i.Maps().Clock.Now() - meta.Loaded; got < 0 || got > int64(time.Minute) {
		t.Errorf("loaded %v ago", time.Duration(got))
	}
	if pins := pinsBelow(t, bpffs); len(pins) > 0 {
		t.Errorf("pinned though told not to: %q", pins)
	}
}

var tuple = [2]netip.AddrPort{
	netip.MustParseAddrPort("198.51.100.1:4500"), netip.MustParseAddrPort("203.0.113.9:61201"),
}

const spi = uint32(77)<<maps.SlotBits | 3

func track(t *testing.T, i *Instance) {
	t.Helper()
	if err := i.Maps().Track(spi, tuple[0], tuple[1], true); err != nil {
		t.Fatal(err)
	}
	i.Maps().Stamp(spi, i.Maps().Clock.Now())
}

func stampKept(t *testing.T, i *Instance) {
	t.Helper()
	if _, auth := i.Maps().Evidence(spi); auth == 0 {
		t.Error("a stamp was lost")
	}
}

// The same again finds the same maps, whoever asks; zero options mean "as it is".
func TestEnsureTakesOver(t *testing.T) {
	privileged(t)
	first := ensure(t, Options{Capacity: 100, Keepalive: "absorb", AnswerInterval: 7 * time.Second, AnswerBudget: 300})
	track(t, first)
	objects := kernelObjects(t, first.Dir())
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"the same": {Capacity: 100, Keepalive: "absorb", AnswerInterval: 7 * time.Second, AnswerBudget: 300},
		"as it is": {},
	} {
		i := ensure(t, o)
		stampKept(t, i)
		if got := kernelObjects(t, i.Dir()); got.programs[0] != objects.programs[0] {
			t.Errorf("%s: program %d was replaced by %d", name, objects.programs[0], got.programs[0])
		}
		if err := i.Close(); err != nil {
			t.Fatal(err)
		}
	}
	opened, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	stampKept(t, opened)
	remove(t, opened)
	objects.wantGone(t)
}

func TestOpenNothing(t *testing.T) {
	privileged(t)
	if _, err := Open("nobody"); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("Open = %v", err)
	}
	i := ensure(t, small())
	defer remove(t, i)
	if _, err := Open("nobody"); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("Open beside another = %v", err)
	}
	if err := Purge(base + "/nobody"); err != nil {
		t.Errorf("purging nothing: %v", err)
	}
	if _, err := maps.OpenPinned(base + "/nobody"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenPinned = %v", err)
	}
}

// What is not attached gives way: settings alone keep the maps, another
// capacity makes them anew.
func TestMismatchUnattached(t *testing.T) {
	privileged(t)
	first := ensure(t, small())
	track(t, first)
	objects := kernelObjects(t, first.Dir())
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	second := ensure(t, Options{Capacity: 100, Keepalive: "pass"})
	stampKept(t, second)
	if got := variable(t, second.Dir(), bpf.VarKeepaliveMode); got != bpf.KeepalivePass || second.Maps().Meta.Keepalive != "pass" {
		t.Errorf("keepalive mode %d, meta says %s", got, second.Maps().Meta.Keepalive)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	ids{programs: objects.programs[:1]}.wantGone(t)
	objects = kernelObjects(t, second.Dir())

	third := ensure(t, Options{Capacity: 5000})
	if got := third.Maps().Hot.Slots(); got != 16384 {
		t.Errorf("%d slots for 5000 tunnels", got)
	}
	if _, _, ok := third.Maps().Hot.Read(spi); ok {
		t.Error("an SPI of the maps before is in the new ones")
	}
	objects.wantGone(t)
	remove(t, third)
}

// What is attached stays as it is, and the error says what differs and where
// to detach.
func TestMismatchAttached(t *testing.T) {
	privileged(t)
	veth(t, "vmm", 0)
	i := ensure(t, small())
	defer remove(t, i)
	if _, err := i.Attach("vmm"); err != nil {
		t.Fatal(err)
	}
	track(t, i)
	before := programOn(t, "vmm")
	for _, c := range []struct {
		o    Options
		want []string
	}{
		{Options{Capacity: 5000}, []string{"capacity is 100, 5000 is wanted", "ikepulse_hot has max entries 256, not 16384"}},
		{Options{Keepalive: "absorb"}, []string{"keepalive is answer, absorb is wanted"}},
		{Options{StrangerPass: true}, []string{"strangers"}},
		{Options{NATTPort: 9}, []string{"port is 4500, 9 is wanted"}},
		{Options{AnswerBudget: 1}, []string{"answer budget"}},
		{Options{AnswerInterval: time.Hour}, []string{"answer interval"}},
		{Options{Account: true}, []string{"accounting"}},
		{Options{Follow: true}, []string{"following another daemon is false, true is wanted", "keepalive is answer, absorb is wanted", "ikepulse_follow has max entries 1, not 256"}},
	} {
		_, err := Ensure(c.o)
		var mismatch *MismatchError
		if !errors.As(err, &mismatch) {
			t.Errorf("%+v: %v", c.o, err)
			continue
		}
		for _, want := range append(c.want, i.Dir(), "detach it from vmm") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %q does not say %q", c.o, err, want)
			}
		}
	}
	if now := programOn(t, "vmm"); now != before {
		t.Errorf("program %d was replaced by %d", before, now)
	}
	stampKept(t, i)
}

// repin replaces a pin by an object of another kind.
func repin(t *testing.T, dir, name string, change func(*ebpf.MapSpec)) {
	t.Helper()
	spec, err := maps.Spec(100)
	if err != nil {
		t.Fatal(err)
	}
	change(spec.Maps[name])
	m, err := ebpf.NewMap(spec.Maps[name])
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	pin := filepath.Join(dir, name)
	if err := errors.Join(os.Remove(pin), m.Pin(pin)); err != nil {
		t.Fatal(err)
	}
}

// Pins of another version are never read: not opened, replaced only when they
// serve no interface, and Purge gets rid of them.
func TestAnotherLayout(t *testing.T) {
	privileged(t)
	veth(t, "val", 0)
	meta := func(layout uint32) func(*testing.T, *Instance) {
		return func(t *testing.T, i *Instance) {
			m := i.Maps().Meta
			m.Layout = layout
			pinned, err := ebpf.LoadPinnedMap(filepath.Join(i.Dir(), bpf.MapMeta), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer pinned.Close()
			if err := m.Write(pinned); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*testing.T, *Instance)
		want   string
	}{
		"value size": {func(t *testing.T, i *Instance) {
			repin(t, i.Dir(), bpf.MapSAs, func(s *ebpf.MapSpec) { s.ValueSize = 128; s.Value = nil })
		}, "ikepulse_sas has value size 128, not 64"},
		"type": {func(t *testing.T, i *Instance) {
			repin(t, i.Dir(), bpf.MapPeers, func(s *ebpf.MapSpec) { s.Type = ebpf.LRUHash })
		}, "ikepulse_peers has type LRUHash, not Hash"},
		"flags": {func(t *testing.T, i *Instance) {
			repin(t, i.Dir(), bpf.MapHot, func(s *ebpf.MapSpec) { s.Flags = 0 })
		}, "ikepulse_hot has flags 0, not 1024"},
		"key size": {func(t *testing.T, i *Instance) {
			repin(t, i.Dir(), bpf.MapLocals, func(s *ebpf.MapSpec) { s.KeySize = 4; s.Key = nil })
		}, "ikepulse_locals has key size 4, not 16"},
		"layout version": {meta(bpf.LayoutVersion + 1), fmt.Sprintf("layout version %d, this program has %d", bpf.LayoutVersion+1, bpf.LayoutVersion)},
		"a pin is missing": {func(t *testing.T, i *Instance) {
			if err := os.Remove(filepath.Join(i.Dir(), bpf.MapStats)); err != nil {
				t.Fatal(err)
			}
		}, bpf.MapStats},
	} {
		t.Run(name, func(t *testing.T) {
			for _, attach := range []bool{true, false} {
				i := ensure(t, small())
				if attach {
					if _, err := i.Attach("val"); err != nil {
						t.Fatal(err)
					}
				}
				before := programOn(t, "val")
				c.change(t, i)
				if err := i.Close(); err != nil {
					t.Fatal(err)
				}
				var mismatch *MismatchError
				_, err := Open("")
				if !errors.As(err, &mismatch) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Open = %v, want a word on %q", err, c.want)
				}
				if !strings.Contains(fmt.Sprint(err), "ikepulse detach --all") || strings.Contains(fmt.Sprint(err), "attached to val,") != attach {
					t.Errorf("Open = %v, and no other command can take it off", err)
				}
				if _, err := maps.OpenPinned(base + "/default"); err == nil {
					t.Error("OpenPinned read it")
				}
				again, err := Ensure(small())
				switch {
				case attach:
					if !errors.As(err, &mismatch) || !strings.Contains(err.Error(), c.want) {
						t.Errorf("Ensure = %v, want a word on %q", err, c.want)
					}
					if now := programOn(t, "val"); now != before {
						t.Errorf("program %d was replaced by %d", before, now)
					}
				case err != nil:
					t.Errorf("not attached, but Ensure = %v", err)
				default:
					track(t, again)
					if err := again.Close(); err != nil {
						t.Error(err)
					}
				}
				if err := Purge(base + "/default"); err != nil {
					t.Fatal(err)
				}
				if id := programOn(t, "val"); id != 0 {
					t.Errorf("purged, but program %d is still attached", id)
				}
			}
		})
	}
}

// What tells what the rest is may be missing, too.
func TestIncomplete(t *testing.T) {
	privileged(t)
	veth(t, "vinc", 0)
	for _, name := range []string{bpf.MapMeta, bpf.ProgXDP} {
		i := ensure(t, small())
		attach(t, i, "vinc")
		if err := errors.Join(i.Close(), os.Remove(filepath.Join(i.Dir(), name))); err != nil {
			t.Fatal(err)
		}
		_, errOpen := Open("")
		_, errEnsure := Ensure(own(small()))
		for _, err := range []error{errOpen, errEnsure} {
			var mismatch *MismatchError
			for _, want := range []string{name + ": no such file", "vinc", "ikepulse detach --all"} {
				if !errors.As(err, &mismatch) || !strings.Contains(err.Error(), want) {
					t.Errorf("without %s: %v, want a word on %q", name, err, want)
				}
			}
		}
		if err := Purge(i.Dir()); err != nil || programOn(t, "vinc") != 0 {
			t.Errorf("purged, but program %d is still attached: %v", programOn(t, "vinc"), err)
		}
	}
}

// A program of another version with the same layout takes over maps and
// interfaces.
func TestUpgrade(t *testing.T) {
	privileged(t)
	veth(t, "vup", 0)
	i := ensure(t, small())
	if _, err := i.Attach("vup"); err != nil {
		t.Fatal(err)
	}
	track(t, i)
	older := olderProgram(t, i)
	if on := programOn(t, "vup"); on != older {
		t.Fatalf("program %d is attached, want the older one, %d", on, older)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	again := ensure(t, small())
	defer remove(t, again)
	stampKept(t, again)
	on := programOn(t, "vup")
	if on == older || on == 0 {
		t.Errorf("program %d is still attached", on)
	}
	if pinned := kernelObjects(t, again.Dir()).programs[0]; uint32(pinned) != on {
		t.Errorf("program %d is attached, %d is pinned", on, pinned)
	}
	ids{programs: []ebpf.ProgramID{ebpf.ProgramID(older)}}.wantGone(t)
}

// olderProgram makes another program over the same maps the pinned and
// attached one.
func olderProgram(t *testing.T, i *Instance) uint32 {
	t.Helper()
	spec, err := bpf.Load()
	if err != nil {
		t.Fatal(err)
	}
	older := spec.Programs[bpf.ProgXDP].Copy()
	older.Instructions = passAll
	prog, err := ebpf.NewProgram(older)
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	makePresent(t, i, prog)
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return uint32(id)
}

// makePresent pins a program in the place of the instance's and moves every
// interface over to it.
func makePresent(t *testing.T, i *Instance, prog *ebpf.Program) {
	t.Helper()
	if err := errors.Join(os.Remove(programPin(i.Dir())), prog.Pin(programPin(i.Dir()))); err != nil {
		t.Fatal(err)
	}
	links, err := pinnedLinks(i.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer closeLinks(links)
	for _, l := range links {
		if err := l.link.Update(prog); err != nil {
			t.Fatal(err)
		}
	}
}

// A program of ours is not taken for another version's.
func TestCurrentProgramIsRecognised(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	defer remove(t, i)
	f := &found{objects: objects{XDP: i.program}}
	if !f.current() {
		t.Error("the program that was just loaded counts as another version")
	}
}

func TestOtherNamespaceIsRefused(t *testing.T) {
	privileged(t)
	i := ensure(t, small())
	defer remove(t, i)
	track(t, i)
	l := lab.New()
	defer l.Close()
	other, err := l.Namespace("other")
	if err != nil {
		t.Fatal(err)
	}
	theirs := i.Maps().Meta.NetnsCookie
	if theirs == 0 {
		t.Error("no cookie is recorded")
	}
	check := func(what string, err error) {
		t.Helper()
		var wrong *NamespaceError
		if !strings.Contains(fmt.Sprint(err), "if that namespace is gone: rm -r "+base+"/default") {
			t.Errorf("%s does not say how to go on: %v", what, err)
		}
		if !errors.As(err, &wrong) || wrong.Theirs != theirs || wrong.Ours == theirs || wrong.Ours == 0 {
			t.Errorf("%s in another namespace: %v", what, err)
		}
	}
	err = other.Do(func() error {
		_, err := Ensure(small())
		check("Ensure", err)
		_, err = Ensure(Options{Capacity: 9999}) // which would replace them
		check("Ensure with another capacity", err)
		_, err = Open("")
		check("Open", err)
		mine, err := Ensure(Options{Instance: "other", Capacity: 10})
		if err != nil {
			return err
		}
		return errors.Join(mine.Remove(), mine.Close())
	})
	if err != nil {
		t.Error(err)
	}
	stampKept(t, i)
}

// Whatever fails while an instance is built, nothing of it is left.
func TestBuildFails(t *testing.T) {
	privileged(t)
	t.Run("pinning", func(t *testing.T) {
		// A file where the directory is to be: mkdir under construction fails.
		dir := filepath.Join(bpffs, "built")
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.Pin(dir); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(dir)
		if i, err := Ensure(Options{PinDir: dir, Capacity: 100}); err == nil {
			t.Error("an instance in a file")
			_ = i.Close()
		}
		if pins := pinsBelow(t, bpffs); len(pins) != 1 {
			t.Errorf("left: %q", pins)
		}
	})
	t.Run("committing", func(t *testing.T) {
		dir := filepath.Join(bpffs, "built")
		broken := errors.New("broken")
		var built []string
		_, err := build(dir, small(), 1, func(string) error {
			built = pinsBelow(t, underConstruction(dir))
			return broken
		})
		if !errors.Is(err, broken) || len(built) != len(allPins(t)) {
			t.Errorf("err = %v with %q built", err, built)
		}
		if pins := pinsBelow(t, bpffs); len(pins) != 0 {
			t.Errorf("left: %q", pins)
		}
	})
}

// What a process that was killed while building leaves is swept by the next.
func TestSweep(t *testing.T) {
	privileged(t)
	dir := filepath.Join(bpffs, "swept")
	left := underConstruction(dir)
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Pin(filepath.Join(left, bpf.MapHot)), m.Close()); err != nil {
		t.Fatal(err)
	}
	i := ensure(t, Options{PinDir: dir, Capacity: 100})
	if pins := pinsBelow(t, bpffs); len(pins) != 1+len(allPins(t)) {
		t.Errorf("pins: %q", pins)
	}
	remove(t, i)
}

func TestNoBPFFS(t *testing.T) {
	privileged(t)
	if err := syscall.Unmount(bpffs, 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Mount("bpf", bpffs, "bpf", 0, "mode=700"); err != nil {
			t.Fatal(err)
		}
	}()
	_, err := Ensure(small())
	if !errors.Is(err, ErrNoBPFFS) {
		t.Fatalf("err = %v, want %v", err, ErrNoBPFFS)
	}
	for _, want := range []string{"would not outlive", "mount -t bpf bpf /sys/fs/bpf", "--no-pin"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if _, err := Open(""); !errors.Is(err, ErrNotLoaded) || !errors.Is(err, ErrNoBPFFS) {
		t.Errorf("Open = %v", err)
	}
	if _, err := Ensure(Options{PinDir: "/run/x/y"}); !errors.Is(err, ErrNoBPFFS) {
		t.Errorf("a pin directory in a tmpfs: %v", err)
	}
	if _, err := os.Stat("/run/x"); err == nil {
		t.Error("a directory was made there")
	}
	i := ensure(t, Options{NoPin: true, Capacity: 100})
	if err := i.Close(); err != nil {
		t.Error(err)
	}
}
