package bpf

import (
	"bufio"
	"bytes"
	"fmt"
	stdmaps "maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
)

// symbols returns the kernel's own names by address.
func symbols(t *testing.T) map[uint64]string {
	t.Helper()
	file, err := os.Open("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	names := map[uint64]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var address uint64
		var kind, name string
		if _, err := fmt.Sscanf(lines.Text(), "%x %s %s", &address, &kind, &name); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		names[address] = name
	}
	return names
}

// helperBase is what the kernel counts the addresses of helpers from.
const helperBase = "__bpf_call_base"

// harmless are the helpers that may follow the lookups, by the kernel's names.
var harmless = []string{
	"bpf_jiffies64", "bpf_xdp_get_buff_len", "bpf_ktime_get_boot_ns", "bpf_ringbuf_reserve", "bpf_ringbuf_submit",
}

// After the verifier's rewriting, too, the program calls nothing but lookups
// and what is harmless: this is the code that runs, with the helpers it was
// really given.
func TestHelpersOfTheLoadedProgram(t *testing.T) {
	r := load(t, func(s *settings) { s.clock = nil })
	info, err := r.IkepulseXdp.Info()
	if err != nil {
		t.Fatal(err)
	}
	program, err := info.Instructions()
	if err != nil {
		t.Fatal(err)
	}
	names := symbols(t)
	var base uint64
	for address, name := range names {
		if name == helperBase {
			base = address
		}
	}
	if base == 0 {
		t.Fatal("no address of " + helperBase + " in /proc/kallsyms: allow it with kernel.kptr_restrict=0")
	}

	lookups := 0
	for i, ins := range program {
		if !ins.IsBuiltinCall() {
			continue
		}
		name := names[base+uint64(ins.Constant)]
		switch {
		case strings.HasSuffix(name, "map_lookup_elem"):
			lookups++
		case !slices.Contains(harmless, name):
			t.Errorf("instruction %d calls %q", i, name)
		}
	}
	if lookups == 0 {
		t.Errorf("no lookup among %d instructions: is this the walk it is meant to be?", len(program))
	}
}

// What was loaded is recognised by its tag, and another version is not.
func TestLoadedProgramIsCompatible(t *testing.T) {
	r := load(t, func(s *settings) { s.clock = nil })
	info, err := r.IkepulseXdp.Info()
	if err != nil {
		t.Fatal(err)
	}
	program := spec(t).Programs[ProgXDP]
	if err := program.Compatible(info); err != nil {
		t.Error(err)
	}
	program.Instructions = append(program.Instructions, asm.Return())
	if err := program.Compatible(info); err == nil {
		t.Error("another program has the same tag")
	}
}

// Whatever arrives, and however much of it: no map gains or loses an entry, no
// field changes but those that are the program's, every frame is counted once,
// under the reason of its verdict, and leaves as it came unless it is answered.
func TestArbitraryFrames(t *testing.T) {
	const frames = 40000
	random := rand.New(rand.NewPCG(3, 4))
	r := registered(t, func(s *settings) { s.AccountEveryPacket = 1 })
	before := r.state()

	bases := slices.Collect(stdmaps.Values(wrapped()))
	slices.SortFunc(bases, func(a, b frame) int { return bytes.Compare(a.build(), b.build()) })
	verdicts := map[Verdict]uint64{}
	for range frames {
		in := scramble(random, bases[random.IntN(len(bases))])
		verdict, out := r.run(in)
		if verdict != VerdictTX && !bytes.Equal(in, out) {
			t.Fatalf("%v, but changed:\n% x\n% x", verdict, in, out)
		}
		verdicts[verdict]++
	}

	after := r.state()
	counted := map[Verdict]uint64{}
	used := 0
	for reason := range ReasonCount {
		if n := after.Counters[reason.String()]; n > 0 {
			counted[reason.Verdict()] += n
			used++
		}
	}
	if diff := cmp.Diff(verdicts, counted); diff != "" {
		t.Errorf("verdicts and counters (-returned +counted):\n%s", diff)
	}
	if after.Counters["undecided"] != 0 {
		t.Errorf("%d frames undecided", after.Counters["undecided"])
	}
	if used < 35 {
		t.Errorf("only %d reasons met: the frames are not arbitrary enough: %v", used, after.Counters)
	}
	if diff := cmp.Diff(daemons(before), daemons(after)); diff != "" {
		t.Errorf("what is the daemon's (-before +after):\n%s", diff)
	}
}

// scramble breaks a frame in a few random places, and first in those that
// matter.
func scramble(random *rand.Rand, f frame) []byte {
	maybe := func(change func()) {
		if random.IntN(4) == 0 {
			change()
		}
	}
	port := func() uint16 { return []uint16{4500, 500, 24884, uint16(random.Uint32())}[random.IntN(4)] }
	maybe(func() { f.src = netip.AddrPortFrom(f.src.Addr(), port()) })
	maybe(func() { f.dst = netip.AddrPortFrom(f.dst.Addr(), port()) })
	maybe(func() { f.fragment = flagMoreFragments * uint16(random.IntN(2)) })
	maybe(func() { f.udpLie = random.IntN(3)*500 - 500 })
	maybe(func() { f.padTo = 60 })
	maybe(func() { f.payload = f.payload[:random.IntN(len(f.payload)+1)] })
	maybe(func() { f.tags = append([]uint16{etherVLAN}, f.tags...) })
	b := f.build()
	for range random.IntN(4) {
		// The headers: a byte of payload hardly matters.
		b[random.IntN(min(len(b), 100))] = byte(random.Uint32())
	}
	if random.IntN(10) == 0 {
		b = b[:14+random.IntN(len(b)-14)]
	}
	return b
}

// daemons returns the state without what the program may write.
func daemons(s state) state {
	s.Counters, s.Budget, s.Events = nil, nil, nil
	for key, entry := range s.Peers {
		s.Peers[key] = peerState{Owners: entry.Owners, Flags: entry.Flags}
	}
	for slot, entry := range s.Hot {
		entry.Seen = 0
		s.Hot[slot] = entry
	}
	for slot, entry := range s.SAs {
		entry.MovedTick, entry.Packets, entry.LastSeq = 0, 0, 0
		s.SAs[slot] = entry
	}
	return s
}
