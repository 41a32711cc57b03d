package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// span is how long the tests take, and how much of a CPU.
type span struct{ real, cpu time.Duration }

// asLongAsItTakes is for tests that end.
var asLongAsItTakes = span{time.Hour, time.Hour}

// patiently is what the tests of a mutant have, which take this without it: several
// times as much CPU, since that tells a loop without end on a busy machine, too; and
// far more time, for those that wait for what does not come.
func (s span) patiently() span {
	return span{10*s.real + 30*time.Second, 5*s.cpu + 2*time.Second}
}

// memoryLimit is for a mutant that has lost the end of a loop.
const memoryLimit = 2 << 30

// limit has a program killed that takes more CPU, and lets it have no more memory.
func (s span) limit(pid int) error {
	seconds := uint64((s.cpu + time.Second - 1) / time.Second)
	cpu := unix.Rlimit{Cur: seconds, Max: seconds}
	if err := unix.Prlimit(pid, unix.RLIMIT_CPU, &cpu, nil); err != nil {
		return err
	}
	memory := unix.Rlimit{Cur: memoryLimit, Max: memoryLimit}
	return unix.Prlimit(pid, unix.RLIMIT_DATA, &memory, nil)
}
