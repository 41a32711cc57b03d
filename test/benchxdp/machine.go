package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is what figures cannot be read without.
type machine struct {
	Kernel          string            `json:"kernel"`
	CPU             string            `json:"cpu"`
	CPUs            int               `json:"cpus"`
	Pinned          int               `json:"pinned_to_cpu"`
	Go              string            `json:"go"`
	CommandLine     string            `json:"command_line"`
	Vulnerabilities map[string]string `json:"vulnerabilities"`
	JIT             string            `json:"bpf_jit_enable"`
	Clocksource     string            `json:"clocksource"`
	BPFStats        string            `json:"bpf_stats_enabled"`
	LoadBefore      string            `json:"load_before"`
	LoadAfter       string            `json:"load_after"`
	Steal           float64           `json:"steal"` // of the pinned CPU's time in this run
}

func describe(cpu int) (m machine, err error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, err
	}
	m = machine{
		Kernel: unix.ByteSliceToString(uts.Release[:]) + " " + unix.ByteSliceToString(uts.Machine[:]),
		CPU:    processor(), CPUs: runtime.NumCPU(), Pinned: cpu, Go: runtime.Version(),
		CommandLine: line("/proc/cmdline"), Vulnerabilities: map[string]string{},
		JIT:         line("/proc/sys/net/core/bpf_jit_enable"),
		Clocksource: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
		BPFStats:    line("/proc/sys/kernel/bpf_stats_enabled"),
	}
	files, err := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	for _, file := range files {
		if text := line(file); text != "Not affected" {
			m.Vulnerabilities[filepath.Base(file)] = text
		}
	}
	return m, err
}

// line returns a file of one line, "?" where there is none.
func line(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(text))
}

func processor() string {
	for text := range strings.Lines(line("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(text, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func load() string {
	averages := strings.Fields(line("/proc/loadavg"))
	return strings.Join(averages[:min(3, len(averages))], " ")
}

// ticks are a CPU's, as the kernel accounts for them in /proc/stat.
type ticks struct{ all, stolen uint64 }

func ticksOf(cpu int) (t ticks, err error) {
	for text := range strings.Lines(line("/proc/stat")) {
		rest, ok := strings.CutPrefix(text, fmt.Sprintf("cpu%d ", cpu))
		if !ok {
			continue
		}
		var v [8]uint64 // user nice system idle iowait irq softirq steal
		_, err := fmt.Sscan(rest, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7])
		for _, n := range v {
			t.all += n
		}
		t.stolen = v[7]
		return t, err
	}
	return t, fmt.Errorf("no CPU %d in /proc/stat", cpu)
}

// steal is the part of the time since then that the CPU was somebody else's.
func (t ticks) stealSince(then ticks) float64 {
	if t.all == then.all {
		return 0
	}
	return float64(t.stolen-then.stolen) / float64(t.all-then.all)
}
