package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isolation is the variable by which Reexec tells its child what it came
// from: the parent's id, mount and network namespace.
const isolation = "IKEPULSE_ISOLATED_FROM"

// origin is a process and its namespaces.
type origin struct {
	pid            int
	mount, network string
}

func (o origin) String() string { return fmt.Sprintf("%d %s %s", o.pid, o.mount, o.network) }

// Reexec runs this executable once more, with args and the additional
// environment env, in new mount, network and process namespaces, waits for it
// and returns its exit code (128 + signal, if one killed it). The child must
// call Enter before anything else.
//
// SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on to the child, which has a
// process group to itself, so that a Ctrl-C reaches it once. If the caller is
// killed, the child is; if the child is killed, so is everything it started:
// it is the first process of its process namespace. Its mounts, links, pins
// and addresses go with it. So nothing is left, however it ends.
func Reexec(args, env []string) (code int, err error) {
	// The child is killed when the thread that forked it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, err := here()
	if err != nil {
		return 1, err
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append(os.Environ(), env...), isolation+"="+self.String())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true,
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start in new namespaces: %w", err)
	}
	ended := make(chan struct{})
	go forward(signals, cmd.Process, ended)
	err = cmd.Wait()
	close(ended)
	return exitCode(cmd.ProcessState, err)
}

// forward is a goroutine that stops when the process has ended.
func forward(signals <-chan os.Signal, p *os.Process, ended <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			_ = p.Signal(s) // it may have ended meanwhile
		case <-ended:
			return
		}
	}
}

func exitCode(state *os.ProcessState, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1, err
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return state.ExitCode(), nil
}

// Isolated reports whether this process was started by Reexec and has not
// called Enter yet.
func Isolated() bool { return os.Getenv(isolation) != "" }

// Enter makes the namespaces that Reexec gave this process a place of its
// own: its mounts stay its own, /proc shows its processes only, /run is empty,
// /sys/fs/bpf is an empty BPF file system, the loopback is up, and TMPDIR is
// below /run so that temporary files vanish too. It refuses to touch anything
// in a process that Reexec has not started.
func Enter() error {
	if err := checkIsolated(); err != nil {
		return err
	}
	// Not for its children: they are not the first of a process namespace.
	if err := os.Unsetenv(isolation); err != nil {
		return err
	}
	if err := mountOwn(); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetUp(lo), os.Setenv("TMPDIR", "/run"))
}

// checkIsolated compares this process with the one that Reexec says it came
// from. It must run while /proc is still the parent's.
func checkIsolated() error {
	var from origin
	_, err := fmt.Sscan(os.Getenv(isolation), &from.pid, &from.mount, &from.network)
	if err != nil || os.Getpid() != 1 {
		return errors.New("this process was not started to be isolated")
	}
	self, err := here()
	if err != nil {
		return err
	}
	if self.mount == from.mount || self.network == from.network {
		return errors.New("this process is not in namespaces of its own")
	}
	// A parent killed before its death could be signalled leaves an orphan.
	if parent, err := parentOf("self"); err != nil || parent != from.pid {
		return fmt.Errorf("the process %d that started this one is gone", from.pid)
	}
	return nil
}

func mountOwn() error {
	if err := keepMounts(); err != nil {
		return err
	}
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		kind, on, options string
		flags             uintptr
	}{
		{"proc", "/proc", "", plain},
		{"tmpfs", "/run", "mode=755", unix.MS_NOSUID | unix.MS_NODEV},
		{"bpf", "/sys/fs/bpf", "mode=700", plain},
	} {
		if err := unix.Mount(m.kind, m.on, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.on, err)
		}
	}
	return nil
}

// keepMounts keeps what is mounted in this mount namespace from showing in
// the one it was copied from.
func keepMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// PrivateRun gives the calling thread a mount namespace with an empty /run of
// its own. As a Command's Prepare it separates daemons that insist on one
// place for their pid file and sockets.
func PrivateRun() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := keepMounts(); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on /run: %w", err)
	}
	return nil
}

// OwnTemp has the temporary files of an isolated process stand on a tmpfs of its
// own, which is not below /run: every process that PrivateRun prepares sees them.
func OwnTemp() error {
	const dir = "/mnt"
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return os.Setenv("TMPDIR", dir)
}

// here describes this process.
func here() (origin, error) {
	mount, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return origin{}, err
	}
	network, err := os.Readlink("/proc/self/ns/net")
	return origin{os.Getpid(), mount, network}, err
}
