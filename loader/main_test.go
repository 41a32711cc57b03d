package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// childRole is what a copy of this binary does instead of testing.
const childRole = "IKEPULSE_LOADER_TEST_CHILD"

// TestMain runs the tests in namespaces of their own, with a bpffs of their
// own: nothing that they do shows on the machine, and whatever ends them, the
// kernel takes it away.
func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		os.Exit(exitCode(children[role]()))
	}
	if os.Geteuid() == 0 && !lab.Isolated() {
		code, err := lab.Reexec(os.Args[1:], nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, "no namespaces for the tests:", err)
			os.Exit(m.Run()) // those that need them say so
		}
		os.Exit(code)
	}
	if lab.Isolated() {
		if err := lab.Enter(); err != nil {
			os.Exit(exitCode(err))
		}
		isolated = true
	}
	os.Exit(m.Run())
}

var isolated bool

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// privileged skips the test without root and BPF and what else it needs, and
// checks at its end that nothing is left: no pin, no descriptor of a program, map
// or link.
func privileged(t *testing.T, more ...string) {
	t.Helper()
	require.Have(t, append([]string{"root", "netns", "bpf"}, more...)...)
	if !isolated {
		t.Fatal("root, but no namespaces to test in")
	}
	before := descriptors(t)
	t.Cleanup(func() {
		if pins := pinsBelow(t, bpffs); len(pins) > 0 {
			t.Errorf("pins are left: %q", pins)
			_ = os.RemoveAll(base)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%d BPF descriptors are open, %d were before", after, before)
		}
	})
}

func descriptors(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		target, _ := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if strings.Contains(target, "bpf") {
			n++
		}
	}
	return n
}

// allPins are the files of an instance that is attached nowhere.
func allPins(t *testing.T) []string {
	t.Helper()
	return append(tablePins(t), bpf.MapHot, bpf.MapSAs, bpf.MapPeers, bpf.MapNear, bpf.MapFollow, bpf.MapLocals, bpf.MapStats,
		bpf.MapBudget, bpf.MapEvents, bpf.MapMeta, bpf.ProgXDP, bpf.ProgClock)
}

// tablePins are those of the tables: all where the kernel allows BPF iterators,
// and none where it refuses them.
func tablePins(t *testing.T) []string {
	t.Helper()
	if !require.Has(t, "iter") {
		return nil
	}
	return []string{tableSAs, tablePeers, tableStats}
}

func pinsBelow(t *testing.T, dir string) (pins []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		// The kernel itself puts two iterators into a bpffs.
		if path != dir && err == nil && filepath.Ext(path) != ".debug" {
			pins = append(pins, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return pins
}

// ids are the kernel's objects of an instance; ids are never used again.
type ids struct {
	programs []ebpf.ProgramID
	maps     []ebpf.MapID
	links    []link.ID
	tables   []link.ID // which are links, too
}

// kernelObjects follows the pins to every object behind them, rodata included.
func kernelObjects(t *testing.T, dir string) (all ids) {
	t.Helper()
	for _, name := range []string{bpf.ProgXDP, bpf.ProgClock} {
		prog, err := ebpf.LoadPinnedProgram(filepath.Join(dir, name), nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := prog.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		all.programs = append(all.programs, id)
		used, _ := info.MapIDs()
		all.maps = append(all.maps, used...)
		_ = prog.Close()
	}
	meta, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.MapMeta), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer meta.Close()
	id, err := mapID(meta) // which no program uses
	if err != nil {
		t.Fatal(err)
	}
	all.maps = append(all.maps, id)
	for _, name := range tablePins(t) {
		iter, err := link.LoadPinnedLink(filepath.Join(dir, name), nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := iter.Info()
		if err != nil {
			t.Fatal(err)
		}
		all.tables, all.programs = append(all.tables, info.ID), append(all.programs, info.Program)
		_ = iter.Close()
	}
	links, err := pinnedLinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeLinks(links)
	for _, l := range links {
		all.links = append(all.links, link.ID(l.id))
	}
	if len(all.maps) < 8 { // ours and rodata
		t.Fatalf("only maps %v", all.maps)
	}
	return all
}

// wantGone waits until the kernel has let go of everything: it frees late.
func (all ids) wantGone(t *testing.T) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if left = all.left(); len(left) == 0 {
			return
		}
	}
	t.Errorf("the kernel still has %q", left)
}

func (all ids) left() (left []string) {
	for _, id := range all.programs {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			left = append(left, fmt.Sprint("program ", id))
			_ = p.Close()
		}
	}
	for _, id := range all.maps {
		if m, err := ebpf.NewMapFromID(id); err == nil {
			left = append(left, fmt.Sprint("map ", id))
			_ = m.Close()
		}
	}
	for _, id := range slices.Concat(all.links, all.tables) {
		if l, err := link.NewFromID(id); err == nil {
			left = append(left, fmt.Sprint("link ", id))
			_ = l.Close()
		}
	}
	return left
}

// small are options that every test can afford.
func small() Options { return Options{Capacity: 100} }

func ensure(t *testing.T, o Options) *Instance {
	t.Helper()
	i, err := Ensure(o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// remove ends an instance, pins and all.
func remove(t *testing.T, i *Instance) {
	t.Helper()
	if err := errors.Join(i.Remove(), i.Close()); err != nil {
		t.Error(err)
	}
}

// moveTo moves an interface of this network namespace to another.
func moveTo(other *lab.Namespace, dev netlink.Link) error {
	ns, err := os.Open(other.NetnsPath())
	if err != nil {
		return err
	}
	defer ns.Close()
	return netlink.LinkSetNsFd(dev, int(ns.Fd()))
}

// veth makes a pair of interfaces, of which the first is for the test.
func veth(t *testing.T, name string, mtu int) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "p" + name[1:]}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(pair) }) // a test may have done it
	dev, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

// passAll is a program that is not ours.
var passAll = asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}

// programOn returns the id of the XDP program on an interface, as the kernel
// tells it; 0 is none.
func programOn(t *testing.T, ifname string) uint32 {
	t.Helper()
	dev, err := netlink.LinkByName(ifname)
	if err != nil {
		t.Fatal(err)
	}
	if xdp := dev.Attrs().Xdp; xdp != nil && xdp.Attached {
		return xdp.ProgId
	}
	return 0
}
