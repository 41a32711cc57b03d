package bpf

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func (r *rig) clock() ClockSample {
	r.Helper()
	var sample ClockSample
	if _, err := r.IkepulseClock.Run(&ebpf.RunOptions{Context: sample, ContextOut: &sample}); err != nil {
		r.Fatalf("run: %v", err)
	}
	return sample
}

func bootTime(t testing.TB) uint64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	return uint64(ts.Nano())
}

func TestClock(t *testing.T) {
	r := load(t)
	before := bootTime(t)
	first := r.clock()
	between := bootTime(t)
	if first.BoottimeNs < before || first.BoottimeNs > between {
		t.Errorf("boot time %d, want within %d and %d", first.BoottimeNs, before, between)
	}

	second := first
	for deadline := time.Now().Add(10 * time.Second); second.Jiffies == first.Jiffies; second = r.clock() {
		if time.Now().After(deadline) {
			t.Fatal("jiffies stand still")
		}
	}
	if second.Jiffies < first.Jiffies || second.BoottimeNs <= first.BoottimeNs {
		t.Errorf("%+v came after %+v", second, first)
	}
}

// The program as it ships, its call of bpf_jiffies64 in place, stamps the tick
// of the clock that ikepulse_clock reads.
func TestTickOfTheRealClock(t *testing.T) {
	for _, shift := range []uint32{0, 8, 31, 63} {
		r := load(t, func(s *settings) { s.clock, s.TickShift = nil, shift })
		f := espInUDP(knownSPI, 1)
		r.sa(knownSPI, f.tuple(), 0).local(f)

		earliest := r.clock().Jiffies >> shift
		if verdict, _ := r.run(f.build()); verdict != VerdictPass {
			t.Fatalf("verdict %v, want pass", verdict)
		}
		latest := r.clock().Jiffies >> shift
		seen := r.state().Hot[knownSPI&SlotField].Seen
		if seen == 0 || seen-uint32(earliest) > uint32(latest-earliest) && seen != 1 {
			t.Errorf("shift %d: seen at tick %d, want one of %d to %d", shift, seen, uint32(earliest), uint32(latest))
		}
	}
}
