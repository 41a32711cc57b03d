package main

import "github.com/ikepulse/ikepulse/test/measure"

// machine is what figures cannot be read without.
type machine struct {
	measure.Machine
	Pinned      int     `json:"pinned_to_cpu"`
	JIT         string  `json:"bpf_jit_enable"`
	Clocksource string  `json:"clocksource"`
	BPFStats    string  `json:"bpf_stats_enabled"`
	Steal       float64 `json:"steal"` // of the pinned CPU's time in this run
}

func describe(cpu int) (machine, error) {
	m, err := measure.Describe()
	return machine{
		Machine: m, Pinned: cpu,
		JIT:         measure.Line("/proc/sys/net/core/bpf_jit_enable"),
		Clocksource: measure.Line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
		BPFStats:    measure.Line("/proc/sys/kernel/bpf_stats_enabled"),
	}, err
}
