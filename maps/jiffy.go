package maps

import (
	"errors"
	"time"
)

// A tick is the longest power of two of jiffies within maxTick: the longer,
// the fewer packets have to store a stamp; every common HZ gives 0.6 s or more.
const maxTick = 1100 * time.Millisecond

// shiftFor returns the binary logarithm of how many jiffies make a tick.
func shiftFor(jiffy time.Duration) (shift uint32) {
	for jiffy<<(shift+1) <= maxTick {
		shift++
	}
	return shift
}

// frequencies are the values of CONFIG_HZ on the kernels that we run on.
var frequencies = []int64{100, 250, 300, 1000}

// measureJiffy finds the length of a jiffy from the edges at both ends of a
// window. A result within a hundredth of a common frequency is that frequency:
// the kernel counts jiffies of exactly that length, whereas the error of a
// measurement would grow with the age of a stamp.
func measureJiffy(read sampler, sleep func(time.Duration)) (time.Duration, error) {
	first, err := findEdge(read)
	if err != nil {
		return 0, err
	}
	for window := 100 * time.Millisecond; ; window *= 2 {
		sleep(window)
		last, err := findEdge(read)
		if err != nil {
			return 0, err
		}
		count := int64(last.jiffies - first.jiffies)
		if count <= 0 {
			return 0, errors.New("the kernel's jiffies stand still")
		}
		jiffy := (last.boot - first.boot) / count
		for _, hz := range frequencies {
			exact := int64(time.Second) / hz
			if difference := jiffy - exact; -exact < difference*100 && difference*100 < exact {
				return time.Duration(exact), nil
			}
		}
		if window >= time.Second {
			return time.Duration(jiffy), nil
		}
	}
}

// findEdge returns a sample taken just after a jiffy began: of a few edges the
// one that was bracketed best, since this thread may have been off its CPU.
func findEdge(read sampler) (sample, error) {
	const edges, sharp, patience = 4, int64(100 * time.Microsecond), 200_000
	before, err := read()
	best, narrowest, found := sample{}, int64(0), 0
	for tries := 0; err == nil && found < edges && tries < patience; tries++ {
		var s sample
		if s, err = read(); err != nil {
			break
		}
		if s.jiffies != before.jiffies {
			if took := s.boot - before.boot; found == 0 || took < narrowest {
				best, narrowest = s, took
			}
			found++
			if narrowest < sharp {
				break
			}
		}
		before = s
	}
	if err == nil && found == 0 {
		err = errors.New("the kernel's jiffies stand still")
	}
	return best, err
}
