package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// closeLimit bounds the wait for threads and processes that have been ended.
const closeLimit = 5 * time.Second

// Namespace is a network namespace held by a thread of this process.
type Namespace struct {
	name  string
	lab   *Lab
	tid   int
	calls chan func()
	quit  chan struct{} // closed by close: serve no more
	gone  chan struct{} // closed when the thread's last function has run
}

// Namespace makes a namespace with its loopback up. The name is for messages
// only.
func (l *Lab) Namespace(name string) (*Namespace, error) {
	n := &Namespace{
		name: name, lab: l,
		calls: make(chan func()), quit: make(chan struct{}), gone: make(chan struct{}),
	}
	entered := make(chan error)
	onThread(func() { n.serve(entered) })
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	if err := l.own(n.close); err != nil {
		return nil, err
	}
	if err := n.Do(prepareNetwork); err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, err)
	}
	return n, nil
}

// serve is the namespace's thread: it stops when quit is closed, or with a
// function that ends its own goroutine.
func (n *Namespace) serve(entered chan<- error) {
	defer close(n.gone)
	n.tid = unix.Gettid()
	err := unix.Unshare(unix.CLONE_NEWNET)
	entered <- err
	if err != nil {
		return
	}
	for {
		select {
		case call := <-n.calls:
			call()
		case <-n.quit:
			return
		}
	}
}

// prepareNetwork runs in a new namespace, before it has any link.
func prepareNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	// A new namespace inherits the machine's settings; a reverse-path filter
	// would drop what arrives for a tunnel's addresses.
	for _, conf := range []string{"all", "default"} {
		if err := setSysctl("net/ipv4/conf/"+conf+"/rp_filter", "0"); err != nil {
			return err
		}
	}
	return nil
}

// Name returns the name given at creation.
func (n *Namespace) Name() string { return n.name }

// NetnsPath returns a path by which another process can enter the namespace
// (setns), as long as the lab is open.
func (n *Namespace) NetnsPath() string {
	return fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), n.tid)
}

// Do runs f on the namespace's thread and returns its error. Sockets that f
// opens belong to the namespace for good; goroutines that f starts do not run
// in it. Calls run one at a time; f may call Do of the same namespace.
func (n *Namespace) Do(f func() error) error {
	select {
	case <-n.gone:
		return ErrClosed
	default:
	}
	if unix.Gettid() == n.tid {
		return f()
	}
	result := make(chan error, 1)
	call := func() {
		err := errors.New("the function ended its goroutine")
		defer func() { result <- err }()
		err = f()
	}
	select {
	case n.calls <- call:
		return <-result
	case <-n.gone:
		return ErrClosed
	}
}

// open returns a descriptor of the namespace, for the caller to close.
func (n *Namespace) open() (fd int, err error) {
	err = n.Do(func() (err error) {
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// close kills what still runs in the namespace (a process may have left its
// parent), ends the thread and waits for the kernel to have taken it away, so
// that nothing holds the namespace any more.
func (n *Namespace) close() error {
	killed := n.killAll()
	close(n.quit)
	<-n.gone
	task := fmt.Sprintf("/proc/self/task/%d", n.tid)
	return errors.Join(killed, n.await("its thread is still there", func() bool {
		_, err := os.Stat(task)
		return errors.Is(err, os.ErrNotExist)
	}))
}

// await polls for what comes by itself.
func (n *Namespace) await(otherwise string, happened func() bool) error {
	for deadline := time.Now().Add(closeLimit); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if happened() {
			return nil
		}
	}
	return fmt.Errorf("namespace %s: %s after %v", n.name, otherwise, closeLimit)
}

// killAll kills the namespace's processes and waits for their end.
func (n *Namespace) killAll() error {
	id, err := os.Readlink(n.NetnsPath())
	// The thread has ended, with a function that ended it; of one that is about
	// to, the kernel gives nothing away.
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	return n.await("its processes are still there", func() bool {
		paths, _ := filepath.Glob("/proc/[0-9]*/ns/net") // the pattern is well-formed
		alive := false
		for _, path := range paths {
			if target, err := os.Readlink(path); err == nil && target == id {
				alive = true
				killIn(path, id)
			}
		}
		return !alive
	})
}

// killIn kills the process of a path /proc/PID/ns/net if it is in the
// namespace id, and not another that got its number meanwhile.
func killIn(path, id string) {
	pid, err := strconv.Atoi(strings.Split(path, "/")[2])
	if err != nil {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // gone
	}
	defer unix.Close(fd)
	if target, err := os.Readlink(path); err == nil && target == id {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may be gone by now
	}
}

// Sysctl sets a setting by its path below /proc/sys, such as
// "net/ipv4/ip_forward".
func (n *Namespace) Sysctl(path, value string) error {
	return n.Do(func() error { return setSysctl(path, value) })
}

// setSysctl writes a setting of the calling thread's namespace: that is the
// one that /proc/sys/net shows.
func setSysctl(path, value string) error {
	// Without O_CREATE a setting that the kernel lacks reads "no such file".
	f, err := os.OpenFile(filepath.Join("/proc/sys", path), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
