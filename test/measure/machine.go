// Package measure is what benches share: the machine that they run on, its
// CPUs, and what is told of a few figures of one kind.
package measure

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what no figure can be read without.
type Machine struct {
	Kernel          string            `json:"kernel"`
	CPU             string            `json:"cpu"`
	CPUs            int               `json:"cpus"`
	Go              string            `json:"go"`
	CommandLine     string            `json:"command_line"`
	Vulnerabilities map[string]string `json:"vulnerabilities"`
	LoadBefore      string            `json:"load_before"`
	LoadAfter       string            `json:"load_after"`
}

// Describe reads all but the load, which Load does.
func Describe() (m Machine, err error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, err
	}
	m = Machine{
		Kernel: unix.ByteSliceToString(uts.Release[:]) + " " + unix.ByteSliceToString(uts.Machine[:]),
		CPU:    processor(), CPUs: runtime.NumCPU(), Go: runtime.Version(),
		CommandLine: Line("/proc/cmdline"), Vulnerabilities: map[string]string{},
	}
	files, err := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	for _, file := range files {
		if text := Line(file); text != "Not affected" {
			m.Vulnerabilities[filepath.Base(file)] = text
		}
	}
	return m, err
}

// Line returns a file of one line, "?" where there is none.
func Line(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(text))
}

func processor() string {
	for text := range strings.Lines(Line("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(text, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// Load is the machine's, of the last 1, 5 and 15 minutes.
func Load() string {
	averages := strings.Fields(Line("/proc/loadavg"))
	return strings.Join(averages[:min(3, len(averages))], " ")
}
