package maps

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/test/require"
)

func TestEvidence(t *testing.T) {
	s := loadSet(t, nil)
	if seen, auth := s.Evidence(spiA); seen != 0 || auth != 0 {
		t.Errorf("an SPI that is not tracked: %d, %d", seen, auth)
	}
	if err := s.Track(spiA, here, there, true); err != nil {
		t.Fatal(err)
	}
	if seen, auth := s.Evidence(spiA); seen != 0 || auth != 0 {
		t.Errorf("never seen: %d, %d", seen, auth)
	}
	before := s.Clock.Now()
	s.Stamp(spiA, before)
	seen, auth := s.Evidence(spiA)
	after, err := readClock(unix.CLOCK_BOOTTIME)
	if err != nil {
		t.Fatal(err)
	}
	if seen != 0 || auth < before || auth > after {
		t.Errorf("stamped at %d, before %d: seen %d, auth %d", before, after, seen, auth)
	}

	// What stands in the map is what counts, whoever wrote it.
	minute := uint32(time.Minute / s.Clock.Tick())
	now := s.Clock.TickAt(s.Clock.Now())
	entry := bpf.HotEntry{Spi: spiA, Seen: now - minute, Auth: now - 10*minute}
	if err := s.handles.Hot.Put(SlotOf(spiA), entry); err != nil {
		t.Fatal(err)
	}
	at := s.Clock.Now()
	seen, auth = s.Evidence(spiA)
	// A virtual machine may be younger than that: nothing is older than it.
	for _, c := range []struct {
		name string
		got  int64
		want time.Duration
	}{{"seen", at - seen, min(time.Minute, time.Duration(at))}, {"auth", at - auth, min(10*time.Minute, time.Duration(at))}} {
		if off := c.want - time.Duration(c.got); off < 0 || off > 3*s.Clock.Tick()+time.Duration(c.want/20) {
			t.Errorf("%s is %v old, want %v or a little less", c.name, time.Duration(c.got), c.want)
		}
	}
	s.Stamp(spiB, at)
	if seen, auth := s.Evidence(spiB); seen != 0 || auth != 0 {
		t.Errorf("a stamp made an SPI: %d, %d", seen, auth)
	}
}

// The kernel's clocks, measured: a jiffy of a frequency that kernels have, and
// the same tick as the kernel's for the present.
func TestClockOfThisKernel(t *testing.T) {
	s := loadSet(t, nil)
	c, err := NewClock(s.handles.Clock)
	if err != nil {
		t.Fatal(err)
	}
	if c.Tick() < 250*time.Millisecond || c.Tick() > 1100*time.Millisecond {
		t.Errorf("a tick of %v", c.Tick())
	}
	for range 200 {
		now, err := c.sample()
		if err != nil {
			t.Fatal(err)
		}
		tick := max(uint32(now.jiffies>>c.shift), 1)
		if got := c.TickAt(now.boot); got != tick && c.TickAt(now.boot+2*c.jiffy) != tick && c.TickAt(now.boot-2*c.jiffy) != tick {
			t.Fatalf("tick %d, the kernel's is %d (a jiffy of %v)", got, tick, c.Jiffy())
		}
		if at := c.BootAt(tick, c.Now()); at < now.boot-int64(c.Tick())/100 {
			t.Fatalf("a stamp of now is %v old", time.Duration(now.boot-at))
		}
	}
	again, err := ResumeClock(s.handles.Clock, c.Jiffy(), c.Shift())
	if err != nil {
		t.Fatal(err)
	}
	at := c.Now() - int64(time.Hour)
	if a, b := c.BootAt(c.TickAt(at), c.Now()), again.BootAt(c.TickAt(at), c.Now()); a-b > 2*c.jiffy || b-a > 2*c.jiffy {
		t.Errorf("resumed, the clock is %v off", time.Duration(a-b))
	}
}

// The view outlives every descriptor of the map, so that it cannot be using one.
func TestEvidenceNeedsNoDescriptor(t *testing.T) {
	s := loadSet(t, nil)
	if err := s.Track(spiA, here, there, true); err != nil {
		t.Fatal(err)
	}
	if err := s.handles.Close(); err != nil {
		t.Fatal(err)
	}
	s.Stamp(spiA, s.Clock.Now())
	if _, auth := s.Evidence(spiA); auth == 0 {
		t.Error("no evidence without descriptors")
	}
}

// child says to this binary what to do under a filter that kills the process
// at its first bpf system call.
const child = "IKEPULSE_MAPS_TEST_CHILD"

// A thousand decisions cost no bpf system call. The filter is tried on one
// that does make it, or it would prove nothing.
func TestEvidenceMakesNoBPFCall(t *testing.T) {
	require.Have(t, "root", "bpf")
	if what := os.Getenv(child); what != "" {
		underFilter(t, what)
		return
	}
	run := func(what string) (output []byte, err error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestEvidenceMakesNoBPFCall$")
		cmd.Env = append(os.Environ(), child+"="+what)
		return cmd.CombinedOutput()
	}
	if output, err := run("evidence"); err != nil {
		t.Errorf("evidence: %v\n%s", err, output)
	}
	_, err := run("syscall")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
		t.Errorf("the filter let a bpf system call pass: %v", err)
	}
}

func underFilter(t *testing.T, what string) {
	s := loadSet(t, nil)
	var spis []uint32
	for n := range uint32(100) {
		spis = append(spis, (n+1)<<SlotBits|n)
		if err := s.Track(spis[n], here, there, true); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error)
	go func() { // ends with its thread, which keeps the filter
		runtime.LockOSThread()
		done <- func() error {
			if err := forbid(unix.SYS_BPF); err != nil {
				return err
			}
			if what == "syscall" {
				_, _, err := s.Peers.Get(behind)
				return fmt.Errorf("survived a bpf system call (%v)", err)
			}
			for n := range 1000 {
				spi := spis[n%len(spis)]
				s.Stamp(spi, s.Clock.Now())
				if _, auth := s.Evidence(spi); auth == 0 {
					return fmt.Errorf("SPI %08x: no evidence", spi)
				}
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// forbid kills the process when this thread makes the system call.
func forbid(number uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: number},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

func BenchmarkEvidence(b *testing.B) {
	s := loadSet(b, nil)
	if err := s.Track(spiA, here, there, true); err != nil {
		b.Fatal(err)
	}
	s.Stamp(spiA, s.Clock.Now())
	for b.Loop() {
		s.Evidence(spiA)
	}
}
