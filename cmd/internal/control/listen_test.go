package control

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
)

// lines are those of a log.
type lines struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.all.String(), text)
}

// TestOneDescriptor: with a single descriptor to spare all are heard, one after
// the other, and that the others have to wait is not told for each.
func TestOneDescriptor(t *testing.T) {
	path := filepath.Join(publicDir(t), "s")
	l, err := Listen(path, config.Control{})
	if err != nil {
		t.Fatal(err)
	}
	var log lines
	l.Log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- Serve(ctx, l, answers()) }() // ends with ctx
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	const clients = 5
	var fds []int
	for range clients {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	// The lowest free one is the last that there may be.
	spare, err := unix.Dup(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(spare); err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(spare) + 1, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	for _, fd := range fds {
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
	}
	for _, fd := range fds { // by now the others wait, and nobody has asked
		if _, err := unix.Write(fd, []byte("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60}); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rawReader(fd))
		if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 ") {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n := log.count("until descriptors are free"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// rawReader reads from a descriptor, without a new one.
type rawReader int

func (fd rawReader) Read(b []byte) (int, error) {
	n, err := unix.Read(int(fd), b)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

// TestWhatPasses: what is short now does not end the daemon and its tunnels.
func TestWhatPasses(t *testing.T) {
	wrapped := func(errno unix.Errno) error {
		return &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", errno)}
	}
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS} {
		if !short(wrapped(errno)) {
			t.Errorf("%v is for good", errno)
		}
	}
	for _, err := range []error{nil, net.ErrClosed, wrapped(unix.EINVAL)} {
		if short(err) {
			t.Errorf("%v passes", err)
		}
	}
}
