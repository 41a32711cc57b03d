// Benchxdp measures what a frame costs in the XDP program, beside what it could
// cost at least and beside other ways to do the same, all in one run on one CPU:
// a figure of this bench is a ratio of arms that were disturbed alike, never
// nanoseconds by themselves. It attaches nothing outside of namespaces of its
// own, and needs root.
//
// Frames in memory are run by BPF_PROG_TEST_RUN: a mutator, which is no part of
// the product, gives each of them another SPI or tuple and calls the program
// that is measured. Frames on a link are live ones (BPF_F_TEST_XDP_LIVE_FRAMES)
// in a namespace: network stack, softirqs and readers count. A run ends with an
// error when the frames of a measurement are not all found in the counter of the
// reason it is about.
//
//	one tick   all frames fall into the same tick, so nothing is stamped anew
//	new ticks  each frame comes in a tick of its own, and is stamped
//	chained    each frame's SPI depends on what was loaded for the last one
//	limit      parse, and one load from an array of as many bytes an SPI
//	textbook   a hash by (SPI, destination) and a full clock, written each time
//
//	go run ./test/benchxdp [-json]
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/ikepulse/ikepulse/test/measure"
)

func main() {
	asJSON := flag.Bool("json", false, "print JSON, with each round of each arm")
	c := config{members: []int{1_000, 100_000, 1_000_000}}
	flag.IntVar(&c.cpu, "cpu", -1, "measure on this CPU (default: the last one)")
	flag.IntVar(&c.rounds, "rounds", 11, fmt.Sprintf("rounds; at least %d", enoughRounds))
	flag.IntVar(&c.repeat, "repeat", 150_000, "frames a round in memory")
	flag.IntVar(&c.liveFrames, "live", 100_000, "frames a round on a link")
	flag.DurationVar(&c.budget, "budget", 100*time.Second, fmt.Sprintf("no round begins after this long, once there are %d", enoughRounds))
	flag.Parse()
	if err := run(c, *asJSON); err != nil {
		fmt.Fprintf(os.Stderr, "benchxdp: %v\n", err)
		os.Exit(1)
	}
}

func run(c config, asJSON bool) (err error) {
	if c.rounds < enoughRounds {
		return fmt.Errorf("%d rounds make no median: at least %d", c.rounds, enoughRounds)
	}
	if c.cpu < 0 {
		cpus, err := measure.CPUs()
		if err != nil {
			return err
		}
		c.cpu = cpus[len(cpus)-1]
	}
	var r report
	err = withBench(c, func(b *bench) error {
		if err := b.measure(); err != nil {
			return err
		}
		r = b.report()
		return nil
	})
	if err != nil {
		return err
	}
	if asJSON {
		return r.writeJSON(os.Stdout)
	}
	return r.writeText(os.Stdout)
}
