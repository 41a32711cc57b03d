package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOf is the CPU time that a process has used so far, user's and system's. It
// is what utime and stime of /proc/PID/stat come to, to the nanosecond.
func cpuOf(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED of linux/posix-timers.h
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduled), &t)
	return time.Duration(t.Nano()), err
}

// kernelPart is the system's part of a process's CPU time.
func kernelPart(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, which may have anything in it, ends with the last parenthesis.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var user, system float64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil || user+system == 0 {
		return 0, err
	}
	return system / (user + system), nil
}

// memory is a process's resident memory in bytes, now and at its peak.
type memory struct{ now, peak int64 }

func memoryOf(pid int) (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		into := map[string]*int64{"VmRSS": &m.now, "VmHWM": &m.peak}[name]
		if into == nil {
			continue
		}
		if _, err := fmt.Sscan(value, into); err != nil {
			return m, fmt.Errorf("%s: %w", name, err)
		}
		*into *= 1024
	}
	return m, err
}

// lostInSockets is how many datagrams found the UDP sockets of a process's
// namespace full.
func lostInSockets(pid int) (n int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/snmp", pid))
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "RcvbufErrors" {
				_, err := fmt.Sscan(fields[i], &n)
				return n, err
			}
		}
	}
	return 0, fmt.Errorf("no RcvbufErrors in /proc/%d/net/snmp", pid)
}
