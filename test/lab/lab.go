// Package lab builds small networks on one machine: anonymous network
// namespaces, links, a NAT, and processes in them, by system calls and netlink
// alone. The demo, the load tester and every live test stand on it.
//
// A namespace has no name in the file system; it is held by a thread of this
// process. So whatever ends the process, the kernel removes the namespaces,
// their links and, by the parent-death signal, the processes in them.
//
//	l := lab.New()
//	defer l.Close()
//	net, err := l.Standard(2)
//	daemon, err := net.Gateway.Start(lab.Command{Path: "/usr/sbin/daemon"})
package lab

import (
	"errors"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrClosed is returned for a namespace whose lab has been closed.
var ErrClosed = errors.New("namespace is closed")

// Lab owns everything made through it. It is safe for concurrent use.
type Lab struct {
	mu      sync.Mutex
	closers []func() error
	closed  bool
}

// New returns an empty lab. Building in it needs CAP_SYS_ADMIN and
// CAP_NET_ADMIN.
func New() *Lab { return &Lab{} }

// Close kills the lab's processes, ends its captures and gives up its
// namespaces, the last made first, and returns once they are gone. A second
// call does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	closers := l.closers
	l.closers, l.closed = nil, true
	l.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	return errors.Join(errs...)
}

// own leaves f for Close to call; when the lab is closed already it calls f
// at once.
func (l *Lab) own(f func() error) error {
	l.mu.Lock()
	if !l.closed {
		l.closers = append(l.closers, f)
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	return errors.Join(ErrClosed, f())
}

// onThread runs f in a goroutine with a thread to itself, which ends with it:
// f may change what a thread cannot change back. It returns at once.
func onThread(f func()) {
	go func() { // ends with f
		runtime.LockOSThread() // never unlocked, so the runtime ends the thread
		if unix.Gettid() != os.Getpid() {
			f()
			return
		}
		// The main thread is the exception: the runtime parks it instead, and
		// it would hold its namespaces to the end of the process. While it is
		// locked here another goroutine gets another thread.
		taken := make(chan struct{})
		go func() { // ends with f
			runtime.LockOSThread()
			close(taken)
			f()
		}()
		<-taken
		runtime.UnlockOSThread()
	}()
}
