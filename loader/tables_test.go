package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/require"
)

// table reads one as cat does.
func table(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What the maps hold is there for cat, live, whoever holds the instance: this
// process, none, a later version.
func TestTables(t *testing.T) {
	privileged(t, "iter")
	i := ensure(t, small())
	t.Cleanup(func() { _ = Purge(i.Dir()) })
	if err := i.Tables(); err != nil {
		t.Fatal(err)
	}
	dir := i.Dir()
	spi := maps.NewSlots(100, 0, 1, strings.NewReader(strings.Repeat("seed", 1000)))
	one, _ := spi.Alloc(0)
	local, peer := netip.MustParseAddrPort("198.51.100.1:4500"), netip.MustParseAddrPort("203.0.113.9:61201")
	if err := i.Maps().Track(one, local, peer, true); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		for _, want := range []struct{ name, text string }{
			{tableSAs, fmt.Sprintf("%08x", one)},
			{tableSAs, "203.0.113.9:61201"},
			{tablePeers, "203.0.113.9:61201 198.51.100.1:4500"},
			{tableStats, "drop    keepalive_absorbed"},
		} {
			if text := table(t, dir, want.name); !strings.Contains(text, want.text) {
				t.Errorf("%s: %s has no %q:\n%s", when, want.name, want.text, text)
			}
		}
	}
	check("loaded")
	anotherVersion(t, i)
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	check("nobody holds it")

	before := made(t, dir)
	i = ensure(t, small()) // whose program is not the pinned one
	check("taken over")
	if after := made(t, dir); after == before {
		t.Error("the tables are still those of the other version")
	}
	if err := i.Maps().Untrack(one, local, peer); err != nil {
		t.Fatal(err)
	}
	if text := table(t, dir, tableSAs); strings.Contains(text, "203.0.113.9") {
		t.Errorf("the SPI is gone, not from the table:\n%s", text)
	}
	remove(t, i)
}

// made is when each was, by which others are told from them.
func made(t *testing.T, dir string) (all [3]string) {
	t.Helper()
	for i, name := range []string{tableSAs, tablePeers, tableStats} {
		stat, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[i] = fmt.Sprint(stat.ModTime())
	}
	return all
}

// A kernel that refuses the iterators has everything else, and is told of: one
// that refuses them all, or whose verifier takes exception to one.
func TestTablesRefused(t *testing.T) {
	privileged(t)
	o, reason := small(), "" // the kernel's own
	if require.Has(t, "iter") {
		reason = "verifier"
		o.alter = func(spec *ebpf.CollectionSpec) {
			spec.Programs[bpf.ProgListPeers].Instructions = asm.Instructions{asm.LoadMem(asm.R0, asm.R9, 0, asm.Word), asm.Return()}
		}
	}
	i := ensure(t, o)
	defer remove(t, i)
	if err := i.Tables(); err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("the reason is %v, want a word on %q", err, reason)
	}
	for _, name := range []string{tableSAs, tablePeers, tableStats} {
		if _, err := os.Stat(filepath.Join(i.Dir(), name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := i.Attachments(); err != nil {
		t.Error(err)
	}
}
