package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outputDelay is how long a dead process's descendants may hold its output
// open before it is closed under them.
const outputDelay = time.Second

// Command is a program to start in a namespace.
type Command struct {
	Path   string
	Args   []string // without the program's name
	Env    []string // nil: this process's environment
	Dir    string
	Output io.Writer // stdout and stderr; nil discards them

	// Prepare, if set, runs on the thread that forks the process, in the
	// namespace. The thread is the process's own, so it may unshare and mount.
	Prepare func() error
}

// Process is a running child. The kernel kills it when this process ends.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // set before done is closed
}

// Start runs the command in the namespace.
func (n *Namespace) Start(c Command) (*Process, error) {
	fd, err := n.open()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	p := &Process{cmd: c.cmd(), done: make(chan struct{})}
	started := make(chan error)
	// The parent-death signal comes at the end of the forking thread, so the
	// thread lives exactly as long as the process, whatever others do.
	onThread(func() {
		defer close(p.done)
		err := c.fork(fd, p.cmd)
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	})
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s in namespace %s: %w", c.Path, n.name, err)
	}
	return p, n.lab.own(p.end)
}

func (c Command) cmd() *exec.Cmd {
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Env, cmd.Dir = c.Env, c.Dir
	cmd.Stdout, cmd.Stderr = c.Output, c.Output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = outputDelay
	return cmd
}

func (c Command) fork(netns int, cmd *exec.Cmd) error {
	if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
		return err
	}
	if c.Prepare != nil {
		if err := c.Prepare(); err != nil {
			return err
		}
	}
	return cmd.Start()
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end and returns nil for exit code 0, else what exec.Cmd's
// Wait returns, mostly an *exec.ExitError.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends a signal; os.ErrProcessDone when there is nobody to take it.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop asks the process to end, kills it if it has not within grace, and
// returns what Wait returns.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		return p.Kill()
	}
}

// Kill ends the process without asking and returns what Wait returns.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.Wait()
}

// end is Kill for Close, which does not care how the process ended.
func (p *Process) end() error {
	var exit *exec.ExitError
	if err := p.Kill(); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return err
	}
	return nil
}

// Transcript is an Output that can be read while the process writes.
type Transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *Transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.Write(b)
}

// String returns what was written so far.
func (t *Transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
