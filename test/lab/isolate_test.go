package lab_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// helpers are what a copy of the test binary can do.
var helpers = map[string]func() int{
	"story":  story,
	"parent": parent,
	"enter": func() int {
		if err := lab.Enter(); err != nil {
			return fail(err)
		}
		return 0
	},
}

// parent starts a child in a namespace, and waits to be killed.
func parent() int {
	n, err := lab.New().Namespace("a")
	if err != nil {
		return fail(err)
	}
	p, err := n.Start(lab.Command{Path: "/bin/sleep", Args: []string{"1000"}})
	if err != nil {
		return fail(err)
	}
	fmt.Println("ready yes 1")
	return fail(p.Wait())
}

// A process in a namespace ends with the one that started it, and with both,
// the namespace.
func TestProcessDiesWithItsParent(t *testing.T) {
	require.Have(t, "root", "netns")
	before := snapshot(t)
	cmd, out := tell(t, "parent")
	awaitReady(t, out)
	child := childOf(t, cmd.Process.Pid)
	cmd.Process.Kill()
	cmd.Wait()
	await(t, "the child is gone", func() bool { return syscall.Kill(child, 0) == syscall.ESRCH })
	checkLeftovers(t, before)
}

// story stands for the demo: in isolation it makes one of everything, says so,
// and waits to be told to end.
func story() int {
	if !lab.Isolated() {
		code, err := lab.Reexec(os.Args[1:], []string{"TOLD=yes"})
		if err != nil {
			return fail(err)
		}
		return code
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT)
	if err := lab.Enter(); err != nil {
		return fail(err)
	}
	l := lab.New()
	defer l.Close()
	if err := makeEverything(l); err != nil {
		return fail(err)
	}
	if len(os.Args) > 1 {
		code, _ := strconv.Atoi(os.Args[1])
		return code
	}
	fmt.Println("ready", os.Getenv("TOLD"), os.Getpid())
	<-signals
	fmt.Println("interrupted")
	select {
	case <-signals:
		return fail(errors.New("interrupted twice"))
	case <-time.After(200 * time.Millisecond):
		return 7
	}
}

func makeEverything(l *lab.Lab) error {
	s, err := l.Standard(1)
	if err != nil {
		return err
	}
	if _, err := s.Clients[0].Start(lab.Command{Path: "/bin/sleep", Args: []string{"1000"}}); err != nil {
		return err
	}
	// A daemon that has left its parent, as no parent-death signal reaches.
	script := "sleep 1000 & exit 0"
	if err := exec.Command("/bin/sh", "-c", script).Run(); err != nil {
		return err
	}
	if _, err := net.Listen("unix", "/run/ikepulse-lab-story.sock"); err != nil {
		return err
	}
	if _, err := os.MkdirTemp("", "ikepulse-lab-story"); err != nil {
		return err
	}
	return attachPinned(s.Gateway)
}

// attachPinned leaves a program that only its pins hold.
func attachPinned(n *lab.Namespace) error {
	prog, err := xdpPass()
	if err != nil {
		return err
	}
	defer prog.Close()
	return n.Do(func() error {
		iface, err := net.InterfaceByName(lab.GatewayLink)
		if err != nil {
			return err
		}
		x, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: iface.Index})
		if err != nil {
			return err
		}
		defer x.Close()
		return errors.Join(
			x.Pin("/sys/fs/bpf/ikepulse_lab_link"),
			prog.Pin("/sys/fs/bpf/ikepulse_lab_prog"))
	})
}

func xdpPass() (*ebpf.Program, error) { return xdpReturn(2) }

func xdpReturn(verdict int32) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "ikepulse_lab", Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
}

// tell starts a copy of the test binary, and returns it with its output.
func tell(t *testing.T, name string, args ...string) (*exec.Cmd, *lab.Transcript) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out lab.Transcript
	cmd := exec.Command(exe, args...)
	// A bare PATH: nothing may need a tool.
	cmd.Env = []string{helper + "=" + name, "PATH=/nowhere"}
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // descendants that live on hold its output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// What waits for ever has failed.
	late := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		late.Stop()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, &out
}

func awaitReady(t *testing.T, out *lab.Transcript) {
	t.Helper()
	await(t, "the story is ready", func() bool { return strings.Contains(out.String(), "ready yes 1\n") })
}

// temporary are the files that a story would leave if they were not its own.
func temporary() string { return filepath.Join(os.TempDir(), "ikepulse-lab-story") }

func TestReexecKilled(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	victims := map[string]func(parent int) int{
		"the parent": func(parent int) int { return parent },
		"the child":  func(parent int) int { return childOf(t, parent) },
	}
	for name, victim := range victims {
		t.Run(name, func(t *testing.T) {
			before := snapshot(t, temporary())
			cmd, out := tell(t, "story")
			awaitReady(t, out)
			if diff := lab.Diff(before, snapshot(t, temporary())); !strings.Contains(fmt.Sprint(diff), "+ program") {
				t.Errorf("the inventory does not show the story: %q", diff)
			}
			if err := syscall.Kill(victim(cmd.Process.Pid), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if cmd.Wait(); cmd.ProcessState.Success() {
				t.Error("the story ended well")
			}
			checkLeftovers(t, before)
		})
	}
}

// childOf returns the only child of a process.
func childOf(t *testing.T, parent int) int {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	var children []string
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err == nil {
			children = append(children, strings.Fields(string(b))...)
		}
	}
	if len(children) != 1 {
		t.Fatalf("process %d has children %q", parent, children)
	}
	pid, err := strconv.Atoi(children[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// Ctrl-C to the parent reaches the child once, and the parent waits for it.
func TestReexecInterrupted(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	before := snapshot(t, temporary())
	cmd, out := tell(t, "story")
	awaitReady(t, out)
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 || !strings.Contains(out.String(), "interrupted") {
		t.Errorf("exit code %d, output %q", code, out)
	}
	checkLeftovers(t, before)
}

func TestReexecExitCode(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	before := snapshot(t, temporary())
	cmd, out := tell(t, "story", "42")
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 42 {
		t.Errorf("exit code %d, want 42; output %q", code, out)
	}
	checkLeftovers(t, before)
}

// Enter changes nothing in a process that is not isolated. Each case that
// could get past the check has mounts of its own, should the check be broken.
func TestEnterRefuses(t *testing.T) {
	require.Have(t, "root", "netns")
	network, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	const newProcess = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
	tests := []struct {
		name, from string
		flags      uintptr
		want       string
	}{
		{"not started by Reexec", "", 0, "not started to be isolated"},
		{"nonsense", "x y z", newProcess, "not started to be isolated"},
		{"not the first process", fmt.Sprintf("%d mnt:[1] net:[1]", os.Getpid()), syscall.CLONE_NEWNS, "not started to be isolated"},
		{"in our network", fmt.Sprintf("%d mnt:[1] %s", os.Getpid(), network), newProcess, "namespaces of its own"},
		{"an orphan", "1 mnt:[1] net:[1]", newProcess, "1 that started this one is gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe)
			cmd.Env = []string{helper + "=enter", "IKEPULSE_ISOLATED_FROM=" + tt.from}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: tt.flags}
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v, %q; want %q", err, out, tt.want)
			}
		})
	}
}
