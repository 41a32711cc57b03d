package main

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/measure"
)

// config says how much is measured.
type config struct {
	cpu        int
	rounds     int
	repeat     int           // frames of one trial
	liveFrames int           // frames of one measurement on the link
	members    []int         // populations beside the hot one, in ascending order
	budget     time.Duration // of measuring, once there are enough rounds
}

// enoughRounds are those that a median needs to be worth printing.
const enoughRounds = 9

// caveats are what the figures do not show by themselves.
var caveats = []string{
	"the kernel and the readers have one socket, in cache all the time; the tuples that XDP looks up are not",
	"frames on a link are not handed in by a driver: no GRO, and readers find them in bursts and never sleep",
	"a driver's own part in native XDP is in no figure, so not in the break-even either",
}

// bench is one run.
type bench struct {
	*rig
	*site
	config
	encap       *encapSocket // nil where the kernel has none
	readers     *readers
	machine     machine
	populations []*population
	sections    []*section
	savings     []saving
	taxes       []*espSection
	aims        []aim
	notes       []string
}

// withBench builds a bench, runs f on the one thread that measures, and takes
// everything away. Nothing outside of namespaces of its own is touched.
func withBench(c config, f func(*bench) error) (err error) {
	network := lab.New()
	defer func() { err = errors.Join(err, network.Close()) }()
	r, err := newRig()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	b := &bench{rig: r, config: c, notes: slices.Clone(caveats)}
	// The machine's own settings, before the namespace's hide them.
	if b.machine, err = describe(c.cpu); err != nil {
		return err
	}
	if b.site, err = newSite(network, c.cpu); err != nil {
		return err
	}
	if err := b.sink(b.site); err != nil {
		return err
	}
	// The collector's threads would be charged to the frames.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	// Sockets and frames are the namespace's.
	return b.gateway.Do(func() error {
		if err := pin(c.cpu); err != nil {
			return err
		}
		if err := b.build(); err != nil {
			return err
		}
		debug.FreeOSMemory()
		return f(b)
	})
}

// pin keeps this thread, and what the kernel does on it, on one CPU, and the
// scheduler's signals away from it: the call that one interrupts starts again.
func pin(cpu int) error {
	var signals unix.Sigset_t
	signals.Val[0] = 1 << (unix.SIGURG - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &signals, nil); err != nil {
		return err
	}
	return measure.Pin(cpu)
}

// build adds all sections.
func (b *bench) build() error {
	if err := b.sockets(); err != nil {
		return err
	}
	for _, members := range append([]int{1}, b.members...) {
		p, err := b.populate(members)
		if err != nil {
			return err
		}
		b.populations = append(b.populations, p)
	}
	if err := b.constant(b.populations[0]); err != nil {
		return err
	}
	for _, p := range b.populations {
		if err := b.keepalives(p); err != nil {
			return err
		}
	}
	for _, p := range b.populations {
		if err := b.esp(p, uniform); err != nil {
			return err
		}
		if p.members == 1 {
			continue
		}
		if err := b.esp(p, zipf); err != nil {
			return err
		}
	}
	return nil
}

// sockets opens the gateway's. A kernel without encapsulation cannot be
// compared with; the rest of the bench goes on.
func (b *bench) sockets() (err error) {
	if b.readers, err = newReaders(); err != nil {
		return err
	}
	b.own(b.readers.conn)
	b.encap, err = newEncapSocket()
	if errors.Is(err, errNoEncap) {
		b.notes = append(b.notes, err.Error()+": nothing to compare keepalives with")
		return nil
	}
	if err == nil {
		b.own(b.encap)
	}
	return err
}

func (b *bench) section(title string, hot bool) *section {
	s := &section{title: title, hot: hot}
	b.sections = append(b.sections, s)
	return s
}

// measure goes through all arms, then again, so that whatever disturbs the
// machine disturbs them alike. The first time warms up, and is not kept.
func (b *bench) measure() error {
	b.machine.LoadBefore = measure.Load()
	before, err := measure.TicksOf(b.cpu)
	if err != nil {
		return err
	}
	start := time.Now()
	for round := -1; round < b.rounds; round++ {
		if round >= enoughRounds && time.Since(start) > b.budget {
			break
		}
		if err := b.round(round >= 0); err != nil {
			return err
		}
	}
	after, err := measure.TicksOf(b.cpu)
	b.machine.Steal, b.machine.LoadAfter = after.StealSince(before), measure.Load()
	return err
}

func (b *bench) round(keep bool) error {
	for _, s := range b.sections {
		for _, a := range s.arms {
			ns, err := a.run()
			if err != nil {
				return fmt.Errorf("%s: %s: %w", s.title, a.name, err)
			}
			if keep {
				a.ns = append(a.ns, ns)
			}
		}
	}
	return nil
}

// The run, not the code, is bad when the floors move or the CPU is taken away.
const (
	maxFloorIQR = 0.25
	maxSteal    = 0.02
)

// invalid says why figures of this run must not be quoted.
func (b *bench) invalid() (reasons []string) {
	for _, s := range b.sections {
		for _, a := range s.arms {
			if iqr := measure.Summarize(a.ns).IQR; a.floor == nil && iqr > maxFloorIQR {
				reasons = append(reasons, fmt.Sprintf("%s: the middle half of %q spreads over %.0f%% of its median, more than %.0f%%",
					s.title, a.name, 100*iqr, 100*maxFloorIQR))
			}
		}
	}
	if b.machine.Steal > maxSteal {
		reasons = append(reasons, fmt.Sprintf("%.1f%% of the CPU's time was stolen, more than %.0f%%", 100*b.machine.Steal, 100*maxSteal))
	}
	if b.machine.BPFStats != "0" {
		reasons = append(reasons, "kernel.bpf_stats_enabled is "+b.machine.BPFStats+", which costs each frame some 20 ns")
	}
	return reasons
}
