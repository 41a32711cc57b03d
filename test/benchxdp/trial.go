package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
)

// way is the way that frames must have taken for a measurement to count: a
// bench that measures another one is worse than none.
type way struct {
	mutated bool        // each frame went through a mutator
	product *product    // and came to the product's program, nil: to another,
	reason  bpf.Reason  // which counted it so,
	verdict bpf.Verdict // and returned this
}

// traces are what frames leave behind.
type traces struct {
	shared  benchShared
	reasons [bpf.ReasonCount]uint64
}

func (r *rig) traces(w way) (t traces, err error) {
	if t.shared, err = r.shared(); err != nil || w.product == nil {
		return t, err
	}
	t.reasons, err = w.product.counters()
	return t, err
}

// check returns how many frames there were, or what is wrong with what they left
// behind. There are more than were asked for when a signal interrupted the call
// that sent them, which then began again.
func (w way) check(before, after traces, frames int) (int, error) {
	if n := after.shared.Missed - before.shared.Missed; n != 0 {
		return 0, fmt.Errorf("%d frames did not get where they should", n)
	}
	count := uint64(frames)
	if n := after.shared.Tick - before.shared.Tick; !w.mutated && n != 0 {
		return 0, fmt.Errorf("a mutator handed on %d frames, there should be none", n)
	} else if w.mutated {
		count = n
	}
	for reason := range bpf.ReasonCount {
		n := after.reasons[reason] - before.reasons[reason]
		if w.product != nil && reason == w.reason {
			count = n
		} else if n != 0 {
			return 0, fmt.Errorf("%d frames of %d were counted as %v, not as %v", n, frames, reason, w.reason)
		}
	}
	if count < uint64(frames) {
		return 0, fmt.Errorf("%d frames of %d were counted", count, frames)
	}
	return int(count), nil
}

// trial runs a program again and again on one frame in memory.
type trial struct {
	*rig
	way
	program *ebpf.Program
	frame   []byte
	repeat  int
}

// run returns the thread's CPU nanoseconds a frame.
func (t *trial) run() (float64, error) {
	before, err := t.traces(t.way)
	if err != nil {
		return 0, err
	}
	opts := ebpf.RunOptions{Data: t.frame, Repeat: uint32(t.repeat)}
	start := clock(unix.CLOCK_THREAD_CPUTIME_ID)
	verdict, err := t.program.Run(&opts)
	spent := clock(unix.CLOCK_THREAD_CPUTIME_ID) - start
	if err != nil {
		return 0, err
	}
	if bpf.Verdict(verdict) != t.verdict {
		return 0, fmt.Errorf("verdict %v, not %v", bpf.Verdict(verdict), t.verdict)
	}
	after, err := t.traces(t.way)
	if err != nil {
		return 0, err
	}
	frames, err := t.check(before, after, t.repeat)
	return float64(spent) / float64(frames), err
}

// clock reads a clock of this thread or process, which always works.
func clock(id int32) int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(id, &now); err != nil {
		panic(err)
	}
	return now.Nano()
}
