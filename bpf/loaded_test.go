package bpf

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"

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

// After the verifier's rewriting, too, the program calls nothing but lookups:
// this is the code that runs, with the helpers it was really given.
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
		case name != "bpf_jiffies64":
			t.Errorf("instruction %d calls %q", i, name)
		}
	}
	if lookups == 0 {
		t.Errorf("no lookup among %d instructions: is this the walk it is meant to be?", len(program))
	}
}

// Whatever arrives, and however much of it: no map gains or loses an entry, no
// field changes but those that are the program's, and every frame is counted
// once, under the reason of its verdict.
func TestArbitraryFrames(t *testing.T) {
	const frames = 20000
	random := rand.New(rand.NewPCG(3, 4))
	r := registered(t, func(s *settings) { s.AccountEveryPacket = 1 })
	before := r.state()

	bases := []frame{keepalive(), espInUDP(knownSPI, 1), bareESP(knownSPI, 1), ike(500), ike(4500)}
	verdicts := map[Verdict]uint64{}
	for range frames {
		verdict, _ := r.run(scramble(random, bases[random.IntN(len(bases))]))
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
	if used < 20 {
		t.Errorf("only %d reasons met: the frames are not arbitrary enough", used)
	}
	if diff := cmp.Diff(daemons(before), daemons(after)); diff != "" {
		t.Errorf("what is the daemon's (-before +after):\n%s", diff)
	}
}

// scramble breaks a frame in a few random places.
func scramble(random *rand.Rand, f frame) []byte {
	if random.IntN(4) == 0 {
		f.src = netip.AddrPortFrom(f.src.Addr(), uint16(random.Uint32()))
	}
	if random.IntN(4) == 0 {
		f.padTo = 60
	}
	b := f.build()
	for range random.IntN(4) {
		// The headers: a byte of payload hardly matters.
		b[random.IntN(min(len(b), 50))] = byte(random.Uint32())
	}
	if random.IntN(10) == 0 {
		b = b[:14+random.IntN(len(b)-14)]
	}
	return b
}

// daemons returns the state without what the program may write.
func daemons(s state) state {
	s.Counters, s.Budget = nil, Budget{}
	for key, entry := range s.Peers {
		s.Peers[key] = PeerEntry{Owners: entry.Owners, Flags: entry.Flags}
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
