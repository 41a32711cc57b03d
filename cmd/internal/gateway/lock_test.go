package gateway

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/require"
)

// places are an instance's in a folder of the test's own.
func places(t *testing.T) Names {
	dir := t.TempDir()
	return Names{Instance: "x", Table: 444_444, Socket: filepath.Join(dir, "c.sock"), Lock: filepath.Join(dir, "run", "x.lock"),
		Records: filepath.Join(dir, "x.records")}
}

// found looks for an instance's daemon.
func found(t *testing.T, n Names) (running bool, socket string) {
	t.Helper()
	running, err := n.Find()
	if err != nil {
		t.Error(err)
	}
	return running, n.Socket
}

func TestLock(t *testing.T) {
	names := places(t)
	if running, socket := found(t, names); running || socket != names.Socket {
		t.Error("found a daemon where none ever was")
	}
	first := &daemon{Options: Options{Names: names}}
	first.Names.Socket = "/elsewhere.sock" // as its configuration says
	if err := first.lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if running, socket := found(t, names); !running || socket != "/elsewhere.sock" {
		t.Errorf("%v, %s", running, socket)
	}
	second := &daemon{Options: Options{Names: names}}
	if err := second.lock(t.Context()); err == nil || !strings.Contains(err.Error(), "is running already") {
		t.Errorf("a second daemon: %v", err)
	}
	if err := names.Clear(); !errors.Is(err, ErrRunning) {
		t.Errorf("cleared under a running daemon: %v", err)
	}
	if running, socket := found(t, names); !running || socket != "/elsewhere.sock" {
		t.Error("the lock of a running daemon was cleared away")
	}
	if err := first.close(); err != nil {
		t.Error(err)
	}
	if running, _ := found(t, names); running {
		t.Error("a daemon that has ended is found")
	}
	if err := second.lock(t.Context()); err != nil {
		t.Error(err)
	}
	if err := second.close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(names.Lock)); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestClear: what a killed daemon leaves goes, its keys above all.
func TestClear(t *testing.T) {
	names := places(t)
	if err := names.Clear(); err != nil {
		t.Errorf("where none ever was: %v", err)
	}
	moved := filepath.Join(t.TempDir(), "moved.sock")
	for path, text := range map[string]string{names.Lock: "", names.where(): moved + "\n", names.Records: "keys", moved: ""} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := names.Clear(); err != nil {
		t.Error(err)
	}
	for _, path := range []string{names.Lock, names.where(), names.Records, moved} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left (%v)", path, err)
		}
	}
}

// asNobody runs f on a thread that opens files as an ordinary user does.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	require.Have(t, "root")
	done := make(chan struct{})
	go func() { // ends with f; its thread, still locked, ends with it
		defer close(done)
		runtime.LockOSThread()
		if err := errors.Join(syscall.Setfsgid(65534), syscall.Setfsuid(65534)); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// TestNobodyElseLocks: whoever could open the lock could keep a daemon from
// starting. Where the socket is, everybody may know: its group has to.
func TestNobodyElseLocks(t *testing.T) {
	t.Chdir(t.TempDir()) // the folders above are closed to others
	names := Names{Instance: "x", Socket: "c.sock", Lock: "run/x.lock"}
	for _, umask := range []int{0, 0o077} {
		before := unix.Umask(umask)
		held := names
		held.Socket = "/elsewhere.sock"
		release, err := held.Hold()
		unix.Umask(before)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod("run", 0o755); err != nil {
			t.Fatal(err)
		}
		asNobody(t, func() {
			if f, err := os.Open(names.Lock); err == nil {
				f.Close()
				t.Errorf("umask %03o: anybody can open the lock", umask)
			}
			looked := names
			if running, err := looked.Find(); running || !errors.Is(err, os.ErrPermission) || looked.Socket != held.Socket {
				t.Errorf("umask %03o: %v, %v, socket %s", umask, running, err, looked.Socket)
			}
		})
		if err := release(); err != nil {
			t.Error(err)
		}
		asNobody(t, func() {
			looked := names
			if running, err := looked.Find(); running || err != nil {
				t.Errorf("after the end: %v, %v", running, err)
			}
		})
	}
}

// earlierLock is a lock as an earlier version made it, opened by somebody who may
// only read, with a lock of that kind on it.
func earlierLock(t *testing.T, names Names, mode os.FileMode, lock int16) *os.File {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(names.Lock), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(names.Lock, nil, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(names.Lock, mode); err != nil {
		t.Fatal(err)
	}
	how := os.O_RDONLY
	if lock == unix.F_WRLCK {
		how = os.O_RDWR
	}
	f, err := os.OpenFile(names.Lock, how, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: lock}); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestLockOfAnEarlierRun: a lock that anybody could open is replaced, whoever
// reads it, unless a daemon has it.
func TestLockOfAnEarlierRun(t *testing.T) {
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604} {
		names := places(t)
		earlierLock(t, names, mode, unix.F_RDLCK)
		if running, _ := found(t, names); running {
			t.Errorf("%04o: a reader is taken for a daemon", mode)
		}
		release, err := names.Hold()
		if err != nil {
			t.Errorf("%04o: a reader keeps the daemon from starting: %v", mode, err)
			continue
		}
		if info, err := os.Stat(names.Lock); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%04o: now %v, %v", mode, info.Mode(), err)
		}
		if running, _ := found(t, names); !running {
			t.Errorf("%04o: the daemon is not found", mode)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(filepath.Dir(names.Lock)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}

	names := places(t)
	earlierLock(t, names, 0o644, unix.F_RDLCK)
	if err := names.Clear(); err != nil {
		t.Errorf("a reader keeps detach from clearing: %v", err)
	}

	names = places(t)
	daemon := earlierLock(t, names, 0o644, unix.F_WRLCK)
	if running, _ := found(t, names); !running {
		t.Error("a daemon of an earlier version is not found")
	}
	if _, err := names.Hold(); err == nil || !strings.Contains(err.Error(), "is running already") {
		t.Errorf("a second daemon beside one of an earlier version: %v", err)
	}
	if err := names.Clear(); !errors.Is(err, ErrRunning) || !isAt(daemon, names.Lock) {
		t.Errorf("cleared under a daemon of an earlier version: %v", err)
	}
}

// TestLockThatIsNotOurs: where the file system makes each file another user's, as
// one does whose server maps us to nobody, that is said, and nothing is left but
// the lock itself.
func TestLockThatIsNotOurs(t *testing.T) {
	t.Chdir(t.TempDir()) // the folders above are closed to others
	if err := errors.Join(os.Mkdir("run", 0o700), os.Chown("run", 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	const says = "run/x.lock.new, of user 65534 and mode 0600, is open to other users, though made for user 0 with mode 0600: " +
		"use a file system for run that keeps owners and modes, such as tmpfs"
	for range 2 {
		asNobody(t, func() {
			if _, err := lockFile("run/x.lock"); err == nil || err.Error() != says {
				t.Errorf("%v, want %s", err, says)
			}
		})
		if left, err := os.ReadDir("run"); err != nil || len(left) != 1 || left[0].Name() != "x.lock" {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

// TestLockThatComesBack: whoever makes an open lock again and again does not keep
// a daemon busy for ever.
func TestLockThatComesBack(t *testing.T) {
	dir := t.TempDir()
	template, path := filepath.Join(dir, "template"), filepath.Join(dir, "x.lock")
	if err := os.WriteFile(template, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(template, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				_ = os.Link(template, path)
			}
		})
	}
	deadline := time.Now().Add(time.Minute)
	for said := ""; !strings.Contains(said, "right after it was replaced: stop what makes that file"); {
		if time.Now().After(deadline) {
			t.Fatalf("at last: %s", said)
		}
		f, err := lockFile(path)
		if err != nil {
			said = err.Error()
			continue
		}
		if err := errors.Join(os.Remove(path), f.Close()); err != nil { // it was faster
			t.Fatal(err)
		}
	}
}

// TestOneOfMany: of those that find an earlier run's lock at once, one holds the
// instance.
func TestOneOfMany(t *testing.T) {
	for range 50 {
		names := places(t)
		earlierLock(t, names, 0o644, unix.F_RDLCK)
		var held atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if _, err := names.Hold(); err == nil {
					held.Add(1)
				}
			})
		}
		all.Wait()
		if n := held.Load(); n != 1 {
			t.Fatalf("%d hold the instance", n)
		}
	}
}

// TestRunDirectory: where others could make files, a lock and keys are not put.
func TestRunDirectory(t *testing.T) {
	for _, c := range []struct {
		prepare func(dir string) error
		says    string
	}{
		{func(dir string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o777)) }, "everyone may write to it (mode 0777)"},
		{func(dir string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o777|os.ModeSticky)) }, "everyone may write to it"},
		{func(dir string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o775)) }, "its group may write to it (mode 0775)"},
		{func(dir string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, 65534, 65534)) }, "owned by user 65534"},
		{func(dir string) error { return os.Symlink(t.TempDir(), dir) }, "is not a directory"},
	} {
		names := places(t)
		dir := filepath.Dir(names.Lock)
		if err := c.prepare(dir); err != nil {
			t.Fatal(err)
		}
		_, err := names.Hold()
		if err == nil || !strings.HasPrefix(err.Error(), dir) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: made %v", c.says, left)
		}
		earlierLock(t, names, 0o600, unix.F_RDLCK)
		if err := names.Clear(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("cleared: %v, want %q", err, c.says)
		}
	}
}
