package bpf

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

const (
	racers = 2
	// patience bounds the wait for the other CPU, in turns of a loop that the
	// verifier follows to its end.
	patience = 2000
)

// rounds are how often it is tried. An emulated CPU takes a hundred times as
// long for each, so that there a few must do.
func rounds() int {
	if testing.Short() {
		return 300
	}
	return 6000
}

// meetAt makes the CPUs wait for each other where the program looks up in a
// map: what comes next they do within the same few nanoseconds. A CPU whose
// partner is late goes on alone: that round proves nothing.
func meetAt(name string) func(testing.TB, asm.Instructions, uint32) asm.Instructions {
	return func(t testing.TB, program asm.Instructions, now uint32) asm.Instructions {
		t.Helper()
		return meeting(t, freezeClock(t, program, now), name)
	}
}

func meeting(t testing.TB, program asm.Instructions, mapName string) asm.Instructions {
	t.Helper()
	arrivals, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arrivals.Close() })

	const name = "rendezvous"
	meeting := asm.Instructions{
		asm.LoadMapValue(asm.R6, arrivals.FD(), 0).WithSymbol(name).WithSource(program[0].Source()),
		asm.Mov.Imm(asm.R7, 1),
		asm.FetchAdd.Mem(asm.R6, asm.R7, asm.DWord, 0),
		// Wait until all who belong to the same round as this arrival are here.
		asm.Div.Imm(asm.R7, racers),
		asm.Add.Imm(asm.R7, 1),
		asm.Mul.Imm(asm.R7, racers),
		asm.Mov.Imm(asm.R8, patience),
		asm.LoadMem(asm.R3, asm.R6, 0, asm.DWord).WithSymbol("wait"),
		asm.JGE.Reg(asm.R3, asm.R7, "go"),
		asm.Sub.Imm(asm.R8, 1),
		asm.JNE.Imm(asm.R8, 0, "wait"),
		// Map and key are still in R1 and R2.
		asm.FnMapLookupElem.Call().WithSymbol("go"),
		asm.Return(),
	}
	meeting[0] = btf.WithFuncMetadata(meeting[0], &btf.Func{
		Name: name, Linkage: btf.StaticFunc,
		Type: &btf.FuncProto{Return: &btf.Pointer{Target: &btf.Void{}}},
	})
	for _, i := range lookupsIn(t, program, mapName) {
		program[i] = asm.Call.Label(name).WithSource(program[i].Source())
	}
	return append(program, meeting...)
}

// lookupsIn returns the indices of the calls that look up in a map.
func lookupsIn(t testing.TB, program asm.Instructions, name string) (all []int) {
	t.Helper()
	for i, ins := range program {
		if ins.Reference() == name && program[i+1].IsBuiltinCall() {
			all = append(all, i+1)
		}
	}
	if len(all) == 0 {
		t.Fatalf("no lookup in %s", name)
	}
	return all
}

// race runs the frames, one a thread, and returns how many were answered.
func (r *rig) race(partner *partner, here, there []byte) int {
	r.Helper()
	partner.frame = there
	partner.begun.Add(1)
	answered := 0
	if verdict, _ := r.run(here); verdict == VerdictTX {
		answered++
	}
	for partner.ended.Load() != partner.begun.Load() {
		runtime.Gosched()
	}
	if partner.verdict == VerdictTX {
		answered++
	}
	return answered
}

// partner is the other thread. frame is its to read from begun to ended, and
// verdict its to write.
type partner struct {
	begun, ended atomic.Int64
	frame        []byte
	verdict      Verdict
}

// newPartner starts a thread that spins for its next frame: waking one up takes
// longer than what is to be raced. It ends with the test.
func (r *rig) newPartner() *partner {
	p := &partner{}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if p.begun.Load() != p.ended.Load() {
				verdict, _, err := r.try(p.frame)
				if err != nil {
					r.Errorf("run: %v", err)
				}
				p.verdict = verdict
				p.ended.Add(1)
			}
		}
	}()
	r.Cleanup(func() { close(stop); <-stopped })
	return p
}

// Keepalives of one tuple on two CPUs: one is answered.
func TestOneAnswerOnTwoCPUs(t *testing.T) {
	r := load(t, func(s *settings) { s.clock, s.AnswerBudget = meetAt(MapBudget), 1<<30 })
	partner := r.newPartner()
	f := keepalive()
	in := f.build()
	for round := range rounds() {
		r.peer(f, peerState{Flags: PeerNATted})
		if n := r.race(partner, in, in); n != 1 {
			t.Fatalf("round %d: %d answers to one tuple in one interval", round, n)
		}
	}
}

// Keepalives of two tuples when the budget has room for one.
func TestOneAnswerOfTheBudget(t *testing.T) {
	r := load(t, func(s *settings) { s.clock, s.AnswerBudget = meetAt(MapBudget), 1 })
	partner := r.newPartner()
	here, there := fromPort(1001), fromPort(1002)
	for round := range rounds() {
		r.peer(here, peerState{Flags: PeerNATted})
		r.peer(there, peerState{Flags: PeerNATted})
		// Sometimes the tick has begun, sometimes this race begins it.
		r.put(r.IkepulseBudget, BudgetAnswers, Budget{Tick: r.now - uint32(round%2)})
		if n := r.race(partner, here.build(), there.build()); n != 1 {
			t.Fatalf("round %d: %d answers of a budget of one", round, n)
		}
	}
}

// Strangers on two CPUs when the budget has room for one: it is counted as that
// of the answers is, so a few rounds do.
func TestOneStrangerOfTheBudget(t *testing.T) {
	r := load(t, func(s *settings) { s.clock, s.StrangerBudget = meetAt(MapBudget), 1 })
	partner := r.newPartner()
	here, there := fromPort(1001), fromPort(1002)
	r.local(here)
	for round := range rounds() / 3 {
		r.put(r.IkepulseBudget, BudgetStrangers, Budget{Tick: r.now - uint32(round%2)})
		r.race(partner, here.build(), there.build())
		if events := r.drain(); len(events) != 1 {
			t.Fatalf("round %d: %d events of a budget of one", round, len(events))
		}
	}
}

// Packets of one SA from two new tuples, on two CPUs: one is reported.
func TestOneDriftOnTwoCPUs(t *testing.T) {
	r := load(t, func(s *settings) { s.clock = meetAt(MapSAs) })
	partner := r.newPartner()
	known, here, there := espInUDP(knownSPI, 1), espInUDP(knownSPI, 2), espInUDP(knownSPI, 3)
	here.src, there.src = fromPort(1001).src, fromPort(1002).src
	tuple := known.tuple()
	r.local(known)
	for round := range rounds() {
		r.sa(knownSPI, tuple, tuple.Hash())
		r.race(partner, here.build(), there.build())
		if events := r.drain(); len(events) != 1 {
			t.Fatalf("round %d: %d events of one SA in one interval", round, len(events))
		}
	}
}
