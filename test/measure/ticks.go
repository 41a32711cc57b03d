package measure

import (
	"fmt"
	"strings"
)

// Ticks are a CPU's, as the kernel accounts for them in /proc/stat: hundredths
// of a second.
type Ticks struct{ All, Idle, Stolen uint64 }

// TicksOf reads those of a CPU so far.
func TicksOf(cpu int) (Ticks, error) {
	all, err := AllTicks()
	t, ok := all[cpu]
	if err == nil && !ok {
		err = fmt.Errorf("no CPU %d in /proc/stat", cpu)
	}
	return t, err
}

// AllTicks reads those of every CPU, by its number.
func AllTicks() (map[int]Ticks, error) {
	all := map[int]Ticks{}
	for text := range strings.Lines(Line("/proc/stat")) {
		var cpu int
		var v [8]uint64 // user nice system idle iowait irq softirq steal
		if !strings.HasPrefix(text, "cpu") || strings.HasPrefix(text, "cpu ") {
			continue // the sum of all, or of something else
		}
		if _, err := fmt.Sscanf(text, "cpu%d %d %d %d %d %d %d %d %d", &cpu, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]); err != nil {
			return nil, fmt.Errorf("/proc/stat: %q: %w", text, err)
		}
		t := Ticks{Idle: v[3] + v[4], Stolen: v[7]}
		for _, n := range v {
			t.All += n
		}
		all[cpu] = t
	}
	return all, nil
}

// StealSince is the part of the time since then that the CPU was somebody else's.
func (t Ticks) StealSince(then Ticks) float64 { return part(t.Stolen-then.Stolen, t.All-then.All) }

func part(n, of uint64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}
