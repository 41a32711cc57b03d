package main

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// live puts real frames into the gateway's link. They go up the stack or out
// again on this thread, but for what the kernel defers.
type live struct {
	*rig
	*site
	way
	program *ebpf.Program
	frame   []byte
	frames  int
	burst   int                    // frames of one call
	drain   func(n int) error      // nil, or takes what a burst left in a socket
	arrived func() (uint64, error) // nil, or how many frames got where they should
}

// liveContext is struct xdp_md.
type liveContext struct {
	Data, DataEnd, DataMeta                     uint32
	IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// run returns CPU nanoseconds a frame, of all that happens to it.
func (l *live) run() (float64, error) {
	before, err := l.traces(l.way)
	if err != nil {
		return 0, err
	}
	wait, err := l.awaiting()
	if err != nil {
		return 0, err
	}
	start, err := l.spent()
	if err == nil {
		err = l.inject()
	}
	if err == nil {
		err = wait()
	}
	if err != nil {
		return 0, err
	}
	end, err := l.spent()
	if err != nil {
		return 0, err
	}
	after, err := l.traces(l.way)
	if err != nil {
		return 0, err
	}
	frames, err := l.check(before, after, l.frames)
	return float64(end-start) / float64(frames), err
}

func (l *live) inject() error {
	opts := ebpf.RunOptions{
		Data: l.frame, Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES,
		Context: liveContext{DataEnd: uint32(len(l.frame)), IngressIfindex: l.ifindex},
	}
	for left := l.frames; left > 0; left -= l.burst {
		opts.Repeat = uint32(min(left, l.burst))
		if _, err := l.program.Run(&opts); err != nil {
			return err
		}
		if l.drain == nil {
			continue
		}
		if err := l.drain(int(opts.Repeat)); err != nil {
			return err
		}
	}
	return nil
}

// awaiting returns a function that waits for the frames which are yet to come.
// It sleeps, which costs nothing that is measured.
func (l *live) awaiting() (func() error, error) {
	if l.arrived == nil {
		return func() error { return nil }, nil
	}
	before, err := l.arrived()
	return func() error {
		for deadline := time.Now().Add(time.Second); ; time.Sleep(100 * time.Microsecond) {
			n, err := l.arrived()
			if err != nil || n-before >= uint64(l.frames) {
				return err
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%d of %d frames arrived", n-before, l.frames)
			}
		}
	}, err
}

// sunk and turned are what arrived at the far end, as frames and as answers.
func (r *rig) sunk() (uint64, error) {
	s, err := r.shared()
	return s.Sunk, err
}

func (r *rig) turned() (uint64, error) {
	s, err := r.shared()
	return s.Turned, err
}
