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
	rounds = 6000
	// patience bounds the wait for the other CPU, in turns of a loop that the
	// verifier follows to its end.
	patience = 2000
)

// meetAtBudget makes the CPUs wait for each other where the program looks up
// the budget: both have read the last answer's tick by then, and take from the
// budget within the same few nanoseconds. A CPU whose partner is late goes on
// alone: that round proves nothing.
func meetAtBudget(t testing.TB, program asm.Instructions, now uint32) asm.Instructions {
	t.Helper()
	arrivals, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arrivals.Close() })

	const name = "rendezvous"
	lookup := &program[lookupOf(t, program, MapBudget)]
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
	*lookup = asm.Call.Label(name).WithSource(lookup.Source())
	return append(freezeClock(t, program, now), meeting...)
}

// lookupOf returns the index of the call that looks up in a map.
func lookupOf(t testing.TB, program asm.Instructions, name string) int {
	t.Helper()
	for i, ins := range program {
		if ins.Reference() == name && program[i+1].IsBuiltinCall() {
			return i + 1
		}
	}
	t.Fatalf("no lookup in %s", name)
	return -1
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
	r := load(t, func(s *settings) { s.clock, s.AnswerBudget = meetAtBudget, 1<<30 })
	partner := r.newPartner()
	f := keepalive()
	in := f.build()
	for round := range rounds {
		r.peer(f, PeerEntry{Flags: PeerNATted})
		if n := r.race(partner, in, in); n != 1 {
			t.Fatalf("round %d: %d answers to one tuple in one interval", round, n)
		}
	}
}

// Keepalives of two tuples when the budget has room for one.
func TestOneAnswerOfTheBudget(t *testing.T) {
	r := load(t, func(s *settings) { s.clock, s.AnswerBudget = meetAtBudget, 1 })
	partner := r.newPartner()
	here, there := fromPort(1001), fromPort(1002)
	for round := range rounds {
		r.peer(here, PeerEntry{Flags: PeerNATted})
		r.peer(there, PeerEntry{Flags: PeerNATted})
		// Sometimes the tick has begun, sometimes this race begins it.
		r.put(r.IkepulseBudget, uint32(0), Budget{Tick: r.now - uint32(round%2)})
		if n := r.race(partner, here.build(), there.build()); n != 1 {
			t.Fatalf("round %d: %d answers of a budget of one", round, n)
		}
	}
}
