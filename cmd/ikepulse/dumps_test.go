package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/require"
)

// stuck starts a program as a user: it cannot end since nobody reads what it
// prints.
func stuck(t *testing.T, dir string, uid uint32, path string, args ...string) *exec.Cmd {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fd := int(w.Fd()) // which makes it blocking, each time
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for full := make([]byte, 4096); err == nil; {
		_, err = unix.Write(fd, full)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout = dir, w
	cmd.Env = append(os.Environ(), asProgram+"=1", "GOTRACEBACK=crash")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		r.Close()
		w.Close()
	})
	return cmd
}

// unreadable waits until a process is none of its user's any more.
func unreadable(t *testing.T, pid int) {
	t.Helper()
	(&site{t: t}).await("the process is closed", func() error {
		dir := fmt.Sprintf("/proc/%d/", pid)
		info, err := os.Stat(dir + "mem")
		if err != nil {
			return err
		}
		limits, err := os.ReadFile(dir + "limits")
		if owner := info.Sys().(*syscall.Stat_t).Uid; err != nil || owner != 0 {
			return fmt.Errorf("its memory belongs to user %d, %v", owner, err)
		}
		for line := range strings.Lines(string(limits)) {
			if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && (f[4] != "0" || f[5] != "0") {
				return fmt.Errorf("%s", line)
			}
		}
		return nil
	})
}

const nobody = 65534

// TestNoDumps: of a process of an ordinary user, another of his that may signal
// it reads nothing.
func TestNoDumps(t *testing.T) {
	require.Have(t, "root")
	plain := stuck(t, "/", nobody, "/bin/cat", "/dev/zero")
	ours := stuck(t, "/", nobody, "/proc/self/exe", "version")
	unreadable(t, ours.Process.Pid)
	for _, what := range []string{"head -c 1 /proc/%d/environ", "head -c 0 /proc/%d/mem", "head -c 1 /proc/%d/maps", "head -c 0 /proc/%d/fd/2", "readlink /proc/%d/cwd"} {
		read := func(of *exec.Cmd) error {
			look := exec.Command("/bin/sh", "-c", fmt.Sprintf("kill -0 %d && "+what, of.Process.Pid, of.Process.Pid))
			look.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			return look.Run()
		}
		if err := read(plain); err != nil {
			t.Errorf(what+": not even of another program: %v", plain.Process.Pid, err)
		}
		if err := read(ours); err == nil {
			t.Errorf(what+": another process of its user may", ours.Process.Pid)
		}
	}
}

// TestNoCore: a program that is aborted leaves no core file.
func TestNoCore(t *testing.T) {
	require.Have(t, "root")
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := errors.Join(unix.Getrlimit(unix.RLIMIT_CORE, &before), unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: before.Max, Max: before.Max})); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_CORE, &before)
	dir := t.TempDir()
	abort := func(cmd *exec.Cmd) (cores []string) {
		if err := cmd.Process.Signal(unix.SIGABRT); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		cores, _ = filepath.Glob(filepath.Join(dir, "core*"))
		return cores
	}
	ours := stuck(t, dir, 0, "/proc/self/exe", "version")
	unreadable(t, ours.Process.Pid)
	if left := abort(ours); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if left := abort(stuck(t, dir, 0, "/bin/cat", "/dev/zero")); len(left) == 0 {
		t.Logf("no program leaves a core file in its folder here: the limit is %d, the pattern %q", before.Max, pattern)
	}
}
