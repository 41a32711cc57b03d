package loader

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/maps"
)

// children are what copies of this binary do, in the test's namespaces. Each
// prints a line when it is where the test wants it.
var children = map[string]func() error{
	"attach":       attachAndWait,
	"ensure":       ensureOften,
	"take over":    ensureAndWait,
	"unprivileged": func() error { return withoutCapabilities(Options{NoPin: true, Capacity: 10}) },
	"taking up":    func() error { return withoutCapabilities(small()) },
}

// child runs a copy in a role and returns the line that it prints.
func child(t *testing.T, role string) (cmd *exec.Cmd, line string) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childRole+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the child in the role of %s said nothing: %v", role, lines.Err())
	}
	return cmd, lines.Text()
}

func attachAndWait() error {
	i, err := Ensure(small())
	if err != nil {
		return err
	}
	if _, err := i.Attach("vkill"); err != nil {
		return err
	}
	if err := i.Maps().Track(spi, tuple[0], tuple[1], true); err != nil {
		return err
	}
	i.Maps().Stamp(spi, i.Maps().Clock.Now())
	fmt.Println("attached")
	time.Sleep(time.Hour)
	return nil
}

// Program, maps and stamps outlive a process that is killed, and the next one
// takes them up or away.
func TestKilled(t *testing.T) {
	privileged(t)
	veth(t, "vkill", 0)
	cmd, line := child(t, "attach")
	if line != "attached" {
		t.Fatalf("the child says %q", line)
	}
	before := programOn(t, "vkill")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	if on := programOn(t, "vkill"); on != before || on == 0 {
		t.Fatalf("program %d is on the interface, %d was", on, before)
	}

	look, err := maps.OpenPinned(base + "/default")
	if err != nil {
		t.Fatal(err)
	}
	if _, auth := look.Evidence(spi); auth == 0 {
		t.Error("the stamp is lost")
	}
	if look.Meta.Keepalive != "answer" || look.Meta.Capacity != 100 || look.Meta.Loaded == 0 {
		t.Errorf("%+v", look.Meta)
	}
	_, stamped, _ := look.Hot.Read(spi)
	look.Stamp(spi, look.Clock.Now()+int64(time.Hour))
	for what, err := range map[string]error{
		"tracked":   look.Track(spi+1<<maps.SlotBits+1, tuple[0], tuple[1], true),
		"untracked": look.Untrack(spi, tuple[0], tuple[1]),
		"moved":     look.Move(spi, tuple[0], tuple[1], tuple[1], tuple[0], true),
		"forgot":    look.Reset(),
	} {
		if err == nil {
			t.Errorf("a view that is for reading %s an SPI", what)
		}
	}
	if _, after, _ := look.Hot.Read(spi); after != stamped {
		t.Errorf("a view that is for reading moved a stamp from %d to %d", stamped, after)
	}
	if err := look.Close(); err != nil {
		t.Error(err)
	}

	i, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	stampKept(t, i)
	if a := only(t, i); a.Interface != "vkill" || a.Mode != "native" || a.ProgramID != before {
		t.Errorf("%+v", a)
	}
	peer, _, err := i.Maps().Peers.Get(maps.Tuple{Local: tuple[0], Peer: tuple[1]})
	if err != nil || peer.Owners != 1 {
		t.Errorf("%+v, %v", peer, err)
	}
	objects := kernelObjects(t, i.Dir())
	if err := i.Detach("vkill"); err != nil {
		t.Fatal(err)
	}
	if on := programOn(t, "vkill"); on != 0 {
		t.Errorf("program %d is still there", on)
	}
	remove(t, i)
	objects.wantGone(t)
}

func ensureOften() error {
	var hot string
	for range 3 {
		i, err := Ensure(small())
		if err != nil {
			return err
		}
		hot += fmt.Sprint(i.hot, " ")
		if err := i.Close(); err != nil {
			return err
		}
	}
	fmt.Println(hot)
	return nil
}

// Processes that start at the same time end up with the same maps.
func TestEnsureFromManyProcesses(t *testing.T) {
	privileged(t)
	var lines [4]string
	var processes sync.WaitGroup
	for n := range lines {
		processes.Go(func() {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), childRole+"=ensure")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("child: %v", err)
			}
			lines[n] = strings.TrimSpace(string(out))
		})
	}
	processes.Wait()
	i, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer remove(t, i)
	want := strings.TrimSpace(strings.Repeat(fmt.Sprint(i.hot, " "), 3))
	for _, line := range lines {
		if line != want {
			t.Errorf("a process had maps %q, want %q", line, want)
		}
	}
	if pins := pinsBelow(t, base); len(pins) != 1+len(allPins(t)) {
		t.Errorf("pins: %q", pins)
	}
}

// The whole life of an instance, from many goroutines at once: whoever loses a
// race gets an error that says so, and nothing is left.
func TestManyAtOnce(t *testing.T) {
	privileged(t)
	veth(t, "vmany", 0)
	lives := 4
	if testing.Short() { // on an emulated CPU the last would wait for longer than he has patience
		lives = 1
	}
	var attached atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range lives {
				i, err := Ensure(small())
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := i.Attach("vmany"); err == nil {
					attached.Add(1)
				} else if !errors.Is(err, ErrNotLoaded) && !strings.Contains(err.Error(), "replaced by another process") {
					t.Error(err)
				}
				if err := i.Detach("vmany"); err != nil && !errors.Is(err, ErrNotAttached) {
					t.Error(err)
				}
				if err := errors.Join(i.Remove(), i.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if attached.Load() == 0 {
		t.Error("nobody attached: nothing was tested")
	}
	if on := programOn(t, "vmany"); on != 0 {
		t.Errorf("program %d is left", on)
	}
}

// Who holds the lock is waited for.
func TestLock(t *testing.T) {
	privileged(t)
	dir := filepath.Join(base, "locked")
	unlock, err := lock(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	var released atomic.Bool
	done := make(chan error)
	go func() { // ends when the lock is free
		i, err := Ensure(Options{Instance: "locked", Capacity: 10})
		if !released.Load() {
			err = errors.Join(err, errors.New("did not wait for the lock"))
		}
		if i != nil {
			err = errors.Join(err, i.Remove(), i.Close())
		}
		done <- err
	}()
	time.Sleep(50 * time.Millisecond)
	released.Store(true)
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A lock on a directory that was removed meanwhile locks nothing.
func TestLockOfARemovedDirectory(t *testing.T) {
	privileged(t)
	dir := filepath.Join(base, "removed")
	unlock, err := lock(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	again := make(chan error)
	go func() { // ends when the lock is free
		unlock, err := lock(dir, true)
		if err == nil {
			_, err = os.Stat(base)
			unlock()
		}
		again <- err
	}()
	time.Sleep(50 * time.Millisecond) // it waits for the directory that goes
	if err := os.Remove(base); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := <-again; err != nil {
		t.Error(err)
	}
	if err := os.Remove(base); err != nil {
		t.Error(err)
	}
}

func withoutCapabilities(o Options) error {
	runtime.LockOSThread() // the others keep theirs
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return err
	}
	_, err := Ensure(o)
	_, errOpen := Open("")
	fmt.Println(strings.ReplaceAll(fmt.Sprint(err, " | ", errOpen), "\n", "; "))
	return nil
}

func TestWithoutCapabilities(t *testing.T) {
	privileged(t)
	want := func(text string) {
		t.Helper()
		for _, want := range []string{"CAP_BPF", "CAP_NET_ADMIN", "not permitted"} {
			if !strings.Contains(text, want) || strings.Contains(text, "MEMLOCK") {
				t.Errorf("%q does not name %s", text, want)
			}
		}
	}
	_, line := child(t, "unprivileged")
	want(line)
	i := ensure(t, small())
	defer remove(t, i)
	_, line = child(t, "taking up")
	for _, text := range strings.Split(line, " | ") { // by Ensure, and by Open
		want(text)
	}
}

func TestProbe(t *testing.T) {
	privileged(t)
	if err := Probe(); err != nil {
		t.Error(err)
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{unix.ENOMEM, "no memory"},
		{unix.E2BIG, "larger than"},
		{fmt.Errorf("map create: %w", unix.ENOMEM), "no memory"},
		{fmt.Errorf("load program: %w", &ebpf.VerifierError{Cause: unix.EINVAL}), "verifier refuses"},
	} {
		if got := explain(c.err); !errors.Is(got, c.err) || !strings.Contains(got.Error(), c.want) {
			t.Errorf("explain(%v) = %v", c.err, got)
		}
	}
	hint := "map create: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)"
	if got := explain(fmt.Errorf(hint, unix.EPERM)); !errors.Is(got, unix.EPERM) || strings.Contains(got.Error(), "MEMLOCK") {
		t.Errorf("a limit that has nothing to do with it: %v", got)
	}
	if explain(nil) != nil {
		t.Error("nothing was explained")
	}
	if got := explain(unix.ENOENT); got != unix.ENOENT {
		t.Errorf("explain(ENOENT) = %v", got)
	}
}
