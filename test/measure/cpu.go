package measure

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// CPUs are those that this thread may use, in ascending order. The lower ones
// tend to have the machine's interrupts.
func CPUs() (list []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, err
	}
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			list = append(list, cpu)
		}
	}
	return list, nil
}

// Pin keeps this thread, what the kernel does on it, and the processes that it
// starts, on one CPU.
func Pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("CPU %d: %w", cpu, err)
	}
	return nil
}
