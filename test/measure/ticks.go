package measure

import (
	"fmt"
	"strings"
)

// Ticks are a CPU's, as the kernel accounts for them in /proc/stat: hundredths
// of a second.
type Ticks struct{ All, Idle, Stolen uint64 }

// TicksOf reads those of a CPU so far.
func TicksOf(cpu int) (t Ticks, err error) {
	for text := range strings.Lines(Line("/proc/stat")) {
		rest, ok := strings.CutPrefix(text, fmt.Sprintf("cpu%d ", cpu))
		if !ok {
			continue
		}
		var v [8]uint64 // user nice system idle iowait irq softirq steal
		_, err := fmt.Sscan(rest, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7])
		for _, n := range v {
			t.All += n
		}
		t.Idle, t.Stolen = v[3]+v[4], v[7]
		return t, err
	}
	return t, fmt.Errorf("no CPU %d in /proc/stat", cpu)
}

// StealSince is the part of the time since then that the CPU was somebody else's.
func (t Ticks) StealSince(then Ticks) float64 { return part(t.Stolen-then.Stolen, t.All-then.All) }

func part(n, of uint64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}
