package maps

import (
	"fmt"
	"reflect"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// Stats is the view of ikepulse_stats: how many frames left the program, by
// reason. Every method may be called from any goroutine and process.
type Stats struct {
	m *ebpf.Map
}

// Counters are frames by reason, summed over the CPUs; its fields are bpf's.
type Counters struct {
	bpf.Counters
}

// ReasonCount is one reason with its counter and what became of its frames:
// "pass", "drop", "tx".
type ReasonCount struct {
	Name    string
	Packets uint64
	Verdict string
}

// Read returns the counters. They only grow, until the maps are made anew.
func (s *Stats) Read() (Counters, error) {
	var perCPU []bpf.Counters
	if err := s.m.Lookup(uint32(0), &perCPU); err != nil {
		return Counters{}, fmt.Errorf("%s: %w", bpf.MapStats, err)
	}
	return sum(perCPU), nil
}

// sum adds field by field: every field but the layout marker is a counter.
func sum(perCPU []bpf.Counters) (total Counters) {
	to := reflect.ValueOf(&total.Counters).Elem()
	for i := range perCPU {
		from := reflect.ValueOf(&perCPU[i]).Elem()
		for f := range from.NumField() {
			if counter := to.Field(f); counter.Kind() == reflect.Uint64 {
				counter.SetUint(counter.Uint() + from.Field(f).Uint())
			}
		}
	}
	return total
}

// Reasons returns every reason in the order of the program, also those that
// never occurred.
func (c Counters) Reasons() []ReasonCount {
	reasons := make([]ReasonCount, 0, bpf.ReasonCount)
	for r := range bpf.ReasonCount {
		reasons = append(reasons, ReasonCount{r.String(), c.Of(r), r.Verdict().String()})
	}
	return reasons
}

// Packets returns how many frames the program has seen.
func (c Counters) Packets() (n uint64) {
	for r := range bpf.ReasonCount {
		n += c.Of(r)
	}
	return n
}
