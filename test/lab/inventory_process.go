package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// processes records our processes other than this one, and returns the ids of
// all of ours.
func (inv *Inventory) processes() (family map[int]bool, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	parents := make(map[int]int)
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if parent, err := parentOf(filepath.Base(dir)); err == nil {
			parents[pid] = parent
		}
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	family = map[int]bool{os.Getpid(): true}
	for pid := range parents {
		if pid != os.Getpid() && (descends(pid, os.Getpid(), parents) || inv.runsOurs(pid, self)) {
			family[pid] = true
			inv.add("process", fmt.Sprintf("%d %s", pid, command(pid)))
		}
	}
	return family, nil
}

// descends reports whether ancestor is above pid.
func descends(pid, ancestor int, parents map[int]int) bool {
	// Bounded: the table was not read in one instant and may hold a loop.
	for range len(parents) {
		pid = parents[pid]
		if pid == ancestor {
			return true
		}
	}
	return false
}

// runsOurs reports whether the process runs the executable self, or one below
// the inventory's prefixes.
func (inv *Inventory) runsOurs(pid int, self string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false // a zombie or a kernel thread has none
	}
	if exe == self {
		return true
	}
	for _, prefix := range inv.trees {
		if strings.HasPrefix(exe, prefix) {
			return true
		}
	}
	return false
}

func command(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(name))
}

// parentOf reads a process's parent, both as /proc counts processes. id is a
// number or "self".
func parentOf(id string) (int, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", id, "stat"))
	if err != nil {
		return 0, err
	}
	// proc(5): pid (name) state ppid …; a name may hold anything, ")" too.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%s/stat: %q", id, stat)
	}
	return strconv.Atoi(fields[1])
}
