package main

import (
	"fmt"

	"github.com/ikepulse/ikepulse/test/measure"
)

// result is what is told of one arm.
type result struct {
	Arm     string `json:"arm"`
	What    string `json:"what"`
	Clients int    `json:"clients"`

	Callers           callers           `json:"callers"`
	CPUSeconds        float64           `json:"cpu_s"` // the gateway's, from the first message to the last handshake's end
	CPUPerHandshakeUS float64           `json:"cpu_us_per_handshake"`
	KernelPart        float64           `json:"cpu_kernel_part"` // of its whole life
	Waits             waits             `json:"waits"`
	UpMost            int               `json:"up_most"`
	HalfOpenMost      int               `json:"half_open_most"` // as it was seen
	LagP99US          int64             `json:"lag_p99_us"`     // the longest that was seen
	LagMaxUS          int64             `json:"lag_max_us"`
	LostInSockets     int               `json:"lost_in_sockets"`
	Memory            resident          `json:"resident_bytes"`
	Counters          map[string]uint64 `json:"counters"`
	Flood             *flooded          `json:"flood,omitempty"`
}

// resident is the gateway's memory.
type resident struct {
	Before int64 `json:"before"`
	Peak   int64 `json:"peak"`
	After  int64 `json:"after"`
}

// flooded is what a flood has come to.
type flooded struct {
	exchanged
	PerSecond       float64 `json:"per_second"`
	CPUPerMessageUS float64 `json:"cpu_us_per_message"` // of the gateway, while it was alone
	MemoryAlone     int64   `json:"resident_bytes_alone"`
}

// report is a run's outcome; its JSON is the bench's other form.
type report struct {
	Valid   bool            `json:"valid"`
	Invalid []string        `json:"invalid,omitempty"`
	Machine measure.Machine `json:"machine"`
	CPUs    struct {
		Gateway int `json:"gateway"`
		Clients int `json:"clients"`
	} `json:"pinned_to_cpu"`
	Steal  float64         `json:"steal"`   // of the gateway's CPU
	BareUS []float64       `json:"bare_us"` // each round
	Bare   measure.Summary `json:"bare"`
	Arms   []result        `json:"arms"`
	Aims   []aim           `json:"aims"`
}

// times is how many times the bare cryptography a handshake has cost.
func (r report) times(one result) float64 { return one.CPUPerHandshakeUS / r.Bare.Median }

// bench measures all arms, and the bare cryptography before, between and after
// them.
func bench(c config) (r report, err error) {
	if r.Machine, err = measure.Describe(); err != nil {
		return r, err
	}
	r.CPUs.Gateway, r.CPUs.Clients = c.gatewayCPU, c.clientCPU
	r.Machine.LoadBefore = measure.Load()
	before, err := measure.TicksOf(c.gatewayCPU)
	if err != nil {
		return r, err
	}
	if err := r.bareRound(c); err != nil {
		return r, err
	}
	for _, a := range c.arms() {
		fmt.Fprintf(c.progress, "%s: %s\n", a.name, a)
		one, err := c.measure(a)
		if err != nil {
			return r, err
		}
		r.Arms = append(r.Arms, one)
		if err := r.bareRound(c); err != nil {
			return r, err
		}
	}
	after, err := measure.TicksOf(c.gatewayCPU)
	r.Machine.LoadAfter, r.Steal = measure.Load(), after.StealSince(before)
	r.judge(c)
	return r, err
}

func (r *report) bareRound(c config) error {
	took, err := c.bareRound()
	r.BareUS = append(r.BareUS, float64(took.Nanoseconds())/1000)
	return err
}

// The run, not the code, is bad when the cryptography takes now this long and now
// that, or the CPU is taken away, by the host or by other processes.
const (
	maxSpread = 0.25
	maxSteal  = 0.02
	maxOthers = 0.05
)

// disturbed arms have had no CPU of their own: they waited for others.
func (one result) disturbed() bool { return one.Waits.Others > maxOthers }

// judge says what the figures are worth, and which aims they meet.
func (r *report) judge(c config) {
	r.Bare = measure.Summarize(r.BareUS)
	if r.Bare.IQR > maxSpread {
		r.Invalid = append(r.Invalid, fmt.Sprintf("the middle half of the bare cryptography's rounds spreads over %.0f%% of their median, more than %.0f%%",
			100*r.Bare.IQR, 100*maxSpread))
	}
	if r.Steal > maxSteal {
		r.Invalid = append(r.Invalid, fmt.Sprintf("%.1f%% of the gateway's CPU was stolen, more than %.0f%%", 100*r.Steal, 100*maxSteal))
	}
	for _, one := range r.Arms {
		if one.disturbed() {
			r.Invalid = append(r.Invalid, fmt.Sprintf("%s: others had %.0f%% of the gateway's CPU, more than %.0f%%", one.Arm, 100*one.Waits.Others, 100*maxOthers))
		}
	}
	r.Valid = len(r.Invalid) == 0
	for _, one := range r.Arms {
		for _, a := range c.arms() {
			if a.name == one.Arm {
				r.Aims = append(r.Aims, r.aims(a, one)...)
			}
		}
	}
}
