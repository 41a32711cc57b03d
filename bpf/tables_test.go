package bpf

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/test/require"
)

// tables are the maps with the programs that print them, their clock frozen.
type tables struct {
	Maps
	SAs   *ebpf.Program `ebpf:"ikepulse_lssas"`
	Peers *ebpf.Program `ebpf:"ikepulse_lspeer"`
	Stats *ebpf.Program `ebpf:"ikepulse_lsstat"`
}

// jiffies at the time of the tables: a quarter into tick 4000 of 256 jiffies.
const jiffies = 4000<<8 + 64

func loadTables(t *testing.T) *tables { return loadTablesFor(t, 2048) }

func loadTablesFor(t *testing.T, slots uint32) *tables {
	t.Helper()
	require.Have(t, "root", "bpf", "iter")
	s := spec(t)
	s.Maps[MapSAs].MaxEntries, s.Maps[MapHot].MaxEntries = slots, slots
	for _, name := range []string{ProgListSAs, ProgListPeers} {
		freezeClock(t, s.Programs[name].Instructions, jiffies)
	}
	var all tables
	if err := s.LoadAndAssign(&all, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { all.Maps.Close(); all.SAs.Close(); all.Peers.Close(); all.Stats.Close() })
	put(t, all.IkepulseMeta, uint32(0), Meta{TickShift: 8, JiffyNs: 4_000_000})
	return &all
}

func put(t *testing.T, m *ebpf.Map, key, value any) {
	t.Helper()
	if err := m.Put(key, value); err != nil {
		t.Fatal(err)
	}
}

// cat is what cat does with the pin of an iterator.
func cat(t *testing.T, program *ebpf.Program, m *ebpf.Map) string {
	t.Helper()
	iter, err := link.AttachIter(link.IterOptions{Program: program, Map: m})
	if err != nil {
		t.Fatal(err)
	}
	defer iter.Close()
	file, err := iter.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func same(t *testing.T, want, got string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Ages are in milliseconds since their tick began: 64 jiffies of 4 ms for the
// present one. A tick that is still to come, by another CPU's clock, is now.
func TestTableOfSAs(t *testing.T) {
	tables := loadTables(t)
	const header = "spi         slot    seen_ms    auth_ms   drift_ms    packets   last_seq natted from to\n"
	same(t, header, cat(t, tables.SAs, tables.IkepulseSas))

	v4, v6 := espInUDP(knownSPI, 1).tuple(), bareESP(knownSPI, 1).alter(over6).tuple()
	sa := func(slot, spi uint32, tuple PeerKey, hot HotEntry, rich SAEntry) {
		rich.Spi, rich.Local, rich.Peer, rich.LocalPort, rich.PeerPort = spi, tuple.Local, tuple.Peer, tuple.LocalPort, tuple.PeerPort
		hot.Spi = spi
		put(t, tables.IkepulseSas, slot, rich)
		put(t, tables.IkepulseHot, slot, hot)
	}
	sa(3, knownSPI, v4, HotEntry{Seen: 4000, Auth: 3999}, SAEntry{Flags: SANATted, MovedTick: 1, Packets: 12345678901, LastSeq: 1<<32 - 1})
	sa(2047, 0xc0ffee01, v6, HotEntry{Seen: 4001}, SAEntry{Flags: ^SANATted})
	// Half of an SA is none: it is on its way in or out.
	put(t, tables.IkepulseSas, uint32(5), SAEntry{Spi: 5})
	put(t, tables.IkepulseHot, uint32(6), HotEntry{Spi: 6})
	put(t, tables.IkepulseSas, uint32(7), SAEntry{Spi: 7})
	put(t, tables.IkepulseHot, uint32(7), HotEntry{Spi: 8})

	same(t, header+
		"01400003       3        256       1280    4095232          -          -      1 203.0.113.7:24884 198.51.100.1:4500\n"+
		"c0ffee01    2047        256      never      never          -          -      0 [2001:0db9:000a:000b:000c:000d:000e:000f]:0 [2001:0db8:0001:0002:0003:0004:0005:0006]:0\n",
		cat(t, tables.SAs, tables.IkepulseSas))

	// Where nobody counts, 0 would be a lie.
	put(t, tables.IkepulseMeta, uint32(0), Meta{TickShift: 8, JiffyNs: 4_000_000, AccountEveryPacket: 1})
	same(t, header+
		"01400003       3        256       1280    4095232 12345678901 4294967295      1 203.0.113.7:24884 198.51.100.1:4500\n"+
		"c0ffee01    2047        256      never      never          0          0      0 [2001:0db9:000a:000b:000c:000d:000e:000f]:0 [2001:0db8:0001:0002:0003:0004:0005:0006]:0\n",
		cat(t, tables.SAs, tables.IkepulseSas))
}

// More than one read's worth: each SA once, the header once.
func TestTableOfManySAs(t *testing.T) {
	tables := loadTables(t)
	tuple := espInUDP(knownSPI, 1).tuple()
	for slot := range uint32(2048) {
		spi := 5<<SlotBits | slot
		put(t, tables.IkepulseSas, slot, SAEntry{Spi: spi, Local: tuple.Local, Peer: tuple.Peer})
		put(t, tables.IkepulseHot, slot, HotEntry{Spi: spi})
	}
	lines := strings.Split(strings.TrimSpace(cat(t, tables.SAs, tables.IkepulseSas)), "\n")
	if len(lines) != 1+2048 {
		t.Fatalf("%d lines", len(lines))
	}
	for slot, line := range lines[1:] {
		if !strings.HasPrefix(line, fmt.Sprintf("%08x %7d ", 5<<SlotBits|slot, slot)) {
			t.Fatalf("line of slot %d: %q", slot, line)
		}
	}
}

// The kernel ends a read with EAGAIN, and cat with it, where a million entries
// in a row print nothing: a gateway of a million tunnels has as many free slots.
func TestTableOfFreeSlots(t *testing.T) {
	const slots = 1<<21 + 1
	tables := loadTablesFor(t, slots)
	spi := 5<<SlotBits | uint32(slots-1)
	put(t, tables.IkepulseSas, uint32(slots-1), SAEntry{Spi: spi})
	put(t, tables.IkepulseHot, uint32(slots-1), HotEntry{Spi: spi})
	text := cat(t, tables.SAs, tables.IkepulseSas)
	if !strings.Contains(text, fmt.Sprintf("\n%08x %7d ", spi, slots-1)) {
		t.Errorf("the last of %d slots is not in the table:\n%s", slots, text)
	}
}

func TestTableOfPeers(t *testing.T) {
	tables := loadTables(t)
	const header = "owners natted keepalives    last_ms    answers  answer_ms from to\n"
	same(t, "", cat(t, tables.Peers, tables.IkepulsePeers))

	// The mapping is where its place says.
	near := NearBucket{}
	near.Entries[2].Mapping = Mapping{Flags: PeerNATted, Keepalives: 17, KeepaliveTick: 4000, Answers: 8, AnswerTick: 3990}
	put(t, tables.IkepulseNear, uint32(511), near)
	put(t, tables.IkepulsePeers, keepalive().tuple(), PeerEntry{Owners: 2, Place: 511*uint32(NearWays) + 2 + 1, Mapping: Mapping{Keepalives: 99}})
	same(t, header+
		"     2      1         17        256          8      10496 203.0.113.7:24884 198.51.100.1:4500\n",
		cat(t, tables.Peers, tables.IkepulsePeers))

	put(t, tables.IkepulsePeers, keepalive().alter(over6).tuple(), PeerEntry{Owners: 1})
	text := cat(t, tables.Peers, tables.IkepulsePeers)
	if strings.Count(text, header) != 1 || strings.Count(text, "\n") != 3 || !strings.Contains(text,
		"     1      0          0      never          0      never [2001:0db9:000a:000b:000c:000d:000e:000f]:24884 [2001:0db8:0001:0002:0003:0004:0005:0006]:4500\n") {
		t.Errorf("%s", text)
	}
}

// Every counter is the sum over all CPUs, by its own name.
func TestTableOfStats(t *testing.T) {
	tables := loadTables(t)
	perCPU := make([]Counters, ebpf.MustPossibleCPU())
	for cpu := range perCPU {
		counters := counters(func(i int) uint64 { return uint64(1000*i + cpu + 1) })
		perCPU[cpu] = *counters
	}
	put(t, tables.IkepulseStats, uint32(0), perCPU)

	total := func(i int) int { return len(perCPU)*1000*i + len(perCPU)*(len(perCPU)+1)/2 }
	want := "              frames verdict reason\n"
	for r := range ReasonCount {
		want += fmt.Sprintf("%20d %-7s %s\n", total(int(r)), r.Verdict(), r)
	}
	want += fmt.Sprintf("%20d -       events\n", total(int(ReasonCount)))
	want += fmt.Sprintf("%20d -       events_lost\n", total(int(ReasonCount)+1))
	same(t, want, cat(t, tables.Stats, tables.IkepulseStats))
}
