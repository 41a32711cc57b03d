package bpf

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// repeats is how often one call runs the program: enough to drown the call.
const repeats = 200_000

// arm is one thing to measure: a program and the frame it gets.
type arm struct {
	name    string
	program *ebpf.Program
	in      []byte
	ns      []float64
}

func threadTime(b *testing.B) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return ts.Nano()
}

func (a *arm) measure(b *testing.B) {
	start := threadTime(b)
	if _, _, err := a.program.Benchmark(a.in, repeats, nil); err != nil {
		b.Fatal(err)
	}
	a.ns = append(a.ns, float64(threadTime(b)-start)/repeats)
}

// barePass is the floor: what BPF_PROG_TEST_RUN itself costs.
func barePass(b *testing.B) *ebpf.Program {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(VerdictPass)), asm.Return()},
		License:      "Dual BSD/GPL",
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { program.Close() })
	return program
}

// BenchmarkXDP gives thread CPU nanoseconds a frame, with the floor in the same
// run, the arms interleaved: compare them within a run, never across runs.
// "hot" is one SA, one tick, its line in the first-level cache: the best there
// is, not what a gateway sees. An answer is not here, for a repeated run would
// be given the turned frame.
func BenchmarkXDP(b *testing.B) {
	known, esp := keepalive(), espInUDP(knownSPI, 1)
	tuple := esp.tuple()
	known.padTo = 60
	ready := func(r *rig) *ebpf.Program {
		r.local(known).peer(known, peerState{Flags: PeerNATted, AnswerTick: r.now})
		return r.sa(knownSPI, tuple, tuple.Hash()).IkepulseXdp
	}
	ticking := func(s *settings) { s.clock, s.TickShift, s.AnswerInterval = nil, 8, 1<<31-1 }
	program := ready(load(b, ticking))
	absorbing := ready(load(b, ticking, func(s *settings) { s.KeepaliveMode = KeepaliveAbsorb }))
	accounting := ready(load(b, ticking, func(s *settings) { s.AccountEveryPacket = 1 }))
	stranger := known.alter(func(f *frame) { f.src = gateway })
	tcp := known.alter(func(f *frame) { f.protocol = protocolTCP })

	arms := []*arm{
		{name: "floor", program: barePass(b), in: known.build()},
		{name: "tcp", program: program, in: tcp.build()},
		{name: "ike", program: program, in: ike(500).build()},
		{name: "keepalive-absorbed", program: absorbing, in: known.build()},
		{name: "keepalive-limited", program: program, in: known.build()},
		{name: "stranger", program: program, in: stranger.build()},
		{name: "esp-hot", program: program, in: esp.build()},
		{name: "esp-hot-accounted", program: accounting, in: esp.build()},
		{name: "esp-qinq-hot", program: program, in: esp.alter(tagged(etherQinQ, etherVLAN)).build()},
		{name: "esp-ipv6-unknown", program: program, in: espInUDP(knownSPI+1, 1).alter(over6).build()},
		{name: "esp-unknown", program: program, in: espInUDP(knownSPI+1, 1).build()},
	}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		for _, arm := range arms {
			arm.measure(b)
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, arm := range arms {
		slices.Sort(arm.ns)
		b.ReportMetric(arm.ns[0], fmt.Sprintf("min-ns/%s", arm.name))
		b.ReportMetric(arm.ns[len(arm.ns)/2], fmt.Sprintf("median-ns/%s", arm.name))
	}
}
