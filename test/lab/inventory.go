package lab

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Inventory is what a machine holds at one moment of the kinds of things that
// a lab, the daemon and the demo make: links, addresses, routes and rules of
// the caller's network namespace, named namespaces, mounts, BPF objects called
// ikepulse_…, pins, sockets below /run, processes of ours and files of ours.
type Inventory struct {
	trees []string
	// items are lines of a kind and what tells the thing; the value says that
	// a living process which is not ours holds it.
	items map[string]bool
}

// leftoverInterval is the time between two looks of Leftovers.
const leftoverInterval = 200 * time.Millisecond

// shared are the kinds that other programs on the machine, too, make and
// remove all the time: that one is gone is no sign that we took it.
var shared = []string{"namespace", "mount", "pin", "program", "map", "bpf-link", "socket", "process"}

// Snapshot takes the inventory. Files are those whose path begins with one of
// the prefixes. Processes are the descendants of this one, and those that run
// this program or one from below a prefix: these stay ours when their parent
// is killed.
func Snapshot(prefixes ...string) (*Inventory, error) {
	inv := &Inventory{trees: prefixes, items: make(map[string]bool)}
	family, err := inv.processes()
	if err != nil {
		return nil, err
	}
	inv.files()
	for _, part := range []func() error{inv.network, inv.namespaces, inv.mounts, func() error { return inv.bpf(family) }} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return inv, nil
}

// add records a thing, by its kind and what tells it from others of the kind.
func (inv *Inventory) add(kind, name string) { inv.items[kind+" "+name] = false }

// addForeign records a thing that somebody else's process holds.
func (inv *Inventory) addForeign(kind, name string) { inv.items[kind+" "+name] = true }

// Diff returns what after has in addition ("+ link g0") and what it lacks
// ("- link g0"), sorted; things that a living process of somebody else holds
// are left out.
func Diff(before, after *Inventory) []string {
	var lines []string
	missing := func(sign string, from, in *Inventory) {
		for item, foreign := range from.items {
			if _, ok := in.items[item]; !ok && !foreign {
				lines = append(lines, sign+item)
			}
		}
	}
	missing("+ ", after, before)
	missing("- ", before, after)
	slices.Sort(lines)
	return lines
}

// Leftovers looks again and again until nothing differs from inv, and returns
// what still did when limit had passed: the kernel takes a namespace apart
// some time after its last user has gone, and others at work on the machine
// make things of the same kinds. So what counts as left is only what was there
// at every look, and as lost only what nobody else removes.
func (inv *Inventory) Leftovers(limit time.Duration) ([]string, error) {
	var left []string
	deadline := time.Now().Add(limit)
	for first := true; ; first = false {
		now, err := Snapshot(inv.trees...)
		if err != nil {
			return nil, err
		}
		diff := slices.DeleteFunc(Diff(inv, now), func(line string) bool {
			kind, _, _ := strings.Cut(line[2:], " ")
			return line[0] == '-' && slices.Contains(shared, kind)
		})
		if !first {
			diff = slices.DeleteFunc(diff, func(line string) bool { return !slices.Contains(left, line) })
		}
		left = diff
		if len(left) == 0 || time.Now().After(deadline) {
			return left, nil
		}
		time.Sleep(leftoverInterval)
	}
}

// files records the caller's files, sockets below /run and named namespaces.
func (inv *Inventory) files() {
	for _, prefix := range inv.trees {
		dir, base := filepath.Split(prefix)
		entries, _ := os.ReadDir(dir) // a folder that is not there has no files
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), base) {
				walk(filepath.Join(dir, e.Name()), func(path string, _ fs.DirEntry) { inv.add("file", path) })
			}
		}
	}
	walk("/run", func(path string, d fs.DirEntry) {
		switch {
		case filepath.Dir(path) == "/run/netns":
			inv.add("namespace", path)
		case d.Type() == fs.ModeSocket:
			inv.add("socket", path)
		}
	})
}

// walk visits what is below root; what vanishes meanwhile or may not be read
// is passed over.
func walk(root string, visit func(path string, d fs.DirEntry)) {
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			visit(path, d)
		}
		return nil
	})
}
