package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/require"
)

// TestNoDumps: a process of an ordinary user belongs to root, so that another of
// his cannot read its memory, and leaves no core file.
func TestNoDumps(t *testing.T) {
	require.Have(t, "root")
	const nobody = 65534
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	// A full pipe keeps the program from its end.
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
	cmd := exec.Command("/proc/self/exe", "version")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdout = w
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	(&site{t: t}).await("the process is closed", func() error {
		dir := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
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
