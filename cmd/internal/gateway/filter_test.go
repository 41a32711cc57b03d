package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbidEverywhere has the kernel kill this process when any of its threads,
// those to come included, makes the system call.
func forbidEverywhere(number uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: number},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 || thread != 0 {
		return fmt.Errorf("seccomp: %v, thread %d", errno, thread)
	}
	return everyThread("Seccomp:\t2\n")
}

// everyThread wants a line in the status of each of this process's threads.
func everyThread(line string) error {
	statuses, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(statuses) == 0 {
		return fmt.Errorf("no threads: %v", err)
	}
	for _, name := range statuses {
		if text, err := os.ReadFile(name); err == nil && !strings.Contains(string(text), line) { // else it has ended
			return fmt.Errorf("%s lacks %q", name, line)
		}
	}
	return nil
}
