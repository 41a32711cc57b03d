package maps

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
)

// fakeKernel has the kernel's two clocks: jiffies follow the monotonic one,
// which stands still in suspend.
type fakeKernel struct {
	start uint64 // jiffies at monotonic 0
	jiffy int64
	mono  int64
	slept int64
	fail  error
	reads int
}

func (k *fakeKernel) jiffies() uint64 { return k.start + uint64(k.mono/k.jiffy) }
func (k *fakeKernel) boot() int64     { return k.mono + k.slept }

func (k *fakeKernel) sample() (sample, error) {
	k.reads++
	return sample{jiffies: k.jiffies(), boot: k.boot()}, k.fail
}

// tick is what XDP would stamp.
func (k *fakeKernel) tick(shift uint32) uint32 {
	return max(uint32(k.jiffies()>>shift), 1)
}

// sinceBoot is where jiffies start: their low 32 bits wrap 300 s after boot.
func sinceBoot(hz int64) uint64 { return uint64(uint32(-300 * hz)) }

const hour = int64(time.Hour)

func fakeClock(t *testing.T, k *fakeKernel) (*Clock, uint32) {
	t.Helper()
	shift := shiftFor(time.Duration(k.jiffy))
	c, err := newClock(k.sample, time.Duration(k.jiffy), shift)
	if err != nil {
		t.Fatal(err)
	}
	return c, shift
}

func TestTickLength(t *testing.T) {
	for _, hz := range []int64{24, 48, 64, 100, 128, 250, 256, 300, 512, 1000, 1024, 1200} {
		jiffy := time.Duration(second / hz)
		if tick := jiffy << shiftFor(jiffy); tick < 250*time.Millisecond || tick > 1100*time.Millisecond {
			t.Errorf("HZ %d: a tick of %v", hz, tick)
		}
	}
	for _, bad := range []struct {
		jiffy time.Duration
		shift uint32
	}{{0, 8}, {-4 * time.Millisecond, 8}, {4 * time.Millisecond, 40}, {4 * time.Millisecond, 16}, {time.Hour, 1}} {
		if _, err := newClock((&fakeKernel{jiffy: 1}).sample, bad.jiffy, bad.shift); err == nil {
			t.Errorf("a jiffy of %v, shift %d: accepted", bad.jiffy, bad.shift)
		}
	}
}

// Over the first ten minutes after boot, when the low half of jiffies wraps,
// and around the wrap of the ticks themselves: an age is never overstated,
// nor understated by more than a tick and two jiffies.
func TestAgesNearTheWraps(t *testing.T) {
	for _, hz := range []int64{100, 250, 300, 1000} {
		jiffy := second / hz
		shift := shiftFor(time.Duration(jiffy))
		for name, start := range map[string]uint64{
			"boot":      sinceBoot(hz),
			"tick wrap": 1<<(32+shift) - uint64(300*hz),
			"late":      1 << 45,
		} {
			k := &fakeKernel{start: start, jiffy: jiffy, mono: jiffy / 3, slept: 12345}
			c, shift := fakeClock(t, k)
			tolerance := int64(c.Tick()) + 2*jiffy
			var stamps []struct {
				tick uint32
				at   int64
			}
			for range 1000 {
				k.mono += 601 * second / 1000
				stamps = append(stamps, struct {
					tick uint32
					at   int64
				}{k.tick(shift), k.boot()})
				// The calibration is up to a jiffy late, and TickAt with it.
				if got, want := c.TickAt(k.boot()), k.tick(shift); got != want && c.TickAt(k.boot()+jiffy) != want {
					t.Fatalf("HZ %d, %s: TickAt(%d) = %d, the kernel stamps %d", hz, name, k.boot(), got, want)
				}
			}
			for _, s := range stamps {
				if s.tick == 0 {
					t.Fatalf("HZ %d, %s: a tick that means never", hz, name)
				}
				now := k.boot()
				got := c.BootAt(s.tick, now)
				if got < s.at {
					t.Fatalf("HZ %d, %s: age overstated by %v", hz, name, time.Duration(s.at-got))
				}
				late := tolerance
				if s.tick == 1 {
					late += int64(c.Tick()) // it stands for tick 0, too
				}
				if got > s.at+late || got > now {
					t.Fatalf("HZ %d, %s: stamped at %d, read as %d, now %d", hz, name, s.at, got, now)
				}
			}
		}
	}
}

func TestBootAtEdges(t *testing.T) {
	k := &fakeKernel{start: sinceBoot(250), jiffy: second / 250, mono: 10 * hour}
	c, shift := fakeClock(t, k)
	now := k.boot()
	if got := c.BootAt(0, now); got != 0 {
		t.Errorf("tick 0 is %d, want never", got)
	}
	if got := c.BootAt(k.tick(shift), now); got != now {
		t.Errorf("the present tick is %d, want now, %d", got, now)
	}
	if got := c.BootAt(k.tick(shift)+5, now); got != now {
		t.Errorf("a tick from the future is %d, want now, %d", got, now)
	}
	// Older than the machine: garbage, but not never and not young.
	for _, tick := range []uint32{1, k.tick(shift) + 1<<31} {
		if got := c.BootAt(tick, now); got < 1 || got > now-9*hour {
			t.Errorf("tick %d is %d, want the distant past", tick, got)
		}
	}
	if got := c.BootAt(c.TickAt(now), now); got < now-int64(c.Tick()) || got > now {
		t.Errorf("now, by tick and back, is %v ago", time.Duration(now-got))
	}
}

// A stamp from before a suspend must not look fresh afterwards, one from after
// it must, and a calibration without suspend moves nothing.
func TestSuspend(t *testing.T) {
	k := &fakeKernel{start: sinceBoot(250), jiffy: second / 250, mono: hour}
	c, shift := fakeClock(t, k)
	calibrate := func() {
		t.Helper()
		if err := c.Calibrate(); err != nil {
			t.Fatal(err)
		}
	}
	age := func(tick uint32) time.Duration { return time.Duration(k.boot() - c.BootAt(tick, k.boot())) }

	first := k.tick(shift)
	k.mono += 60 * second
	calibrate()
	if got := age(first); got > 60*time.Second || got < 58*time.Second {
		t.Errorf("a minute later the stamp is %v old", got)
	}

	k.slept += 8 * hour
	if got := age(first); got < 8*time.Hour || got > 8*time.Hour+time.Minute {
		t.Errorf("woken, not yet noticed: the stamp is %v old", got)
	}
	asleep := k.tick(shift) // stamped in the very tick of the suspend
	calibrate()
	if got := age(first); got < 8*time.Hour || got > 8*time.Hour+time.Minute {
		t.Errorf("woken: the stamp from before is %v old", got)
	}
	if got := age(asleep); got < 7*time.Hour+59*time.Minute {
		t.Errorf("woken: the stamp of the last tick before is %v old", got)
	}

	k.mono += 10 * second
	fresh := k.tick(shift)
	k.mono += 5 * second
	calibrate()
	if got := age(fresh); got > 5*time.Second || got < 3*time.Second {
		t.Errorf("a stamp 5 s old, after the suspend, is %v old", got)
	}
	k.slept += 2 * hour
	calibrate()
	for _, c := range []struct {
		tick uint32
		want time.Duration
	}{{first, 10 * time.Hour}, {fresh, 2 * time.Hour}} {
		if got := age(c.tick); got < c.want || got > c.want+2*time.Minute {
			t.Errorf("after a second suspend the stamp is %v old, want %v", got, c.want)
		}
	}
}

func TestManySuspends(t *testing.T) {
	k := &fakeKernel{start: sinceBoot(250), jiffy: second / 250, mono: hour}
	c, shift := fakeClock(t, k)
	before := k.tick(shift)
	for range 3 * maxEpochs {
		k.mono += 60 * second
		k.slept += hour
		if err := c.Calibrate(); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.calibration.Load().epochs); n > maxEpochs {
		t.Errorf("%d epochs are kept", n)
	}
	if age := k.boot() - c.BootAt(before, k.boot()); age < (maxEpochs-1)*hour {
		t.Errorf("a stamp from before all suspends is %v old", time.Duration(age))
	}
}

func TestCalibrateFails(t *testing.T) {
	k := &fakeKernel{start: sinceBoot(250), jiffy: second / 250, mono: hour}
	c, shift := fakeClock(t, k)
	want := c.BootAt(k.tick(shift)-100, k.boot())
	k.fail = errors.New("lockdown")
	k.slept += hour
	if err := c.Calibrate(); !errors.Is(err, k.fail) {
		t.Errorf("Calibrate = %v", err)
	}
	if got := c.BootAt(k.tick(shift)-100, k.boot()); got != want {
		t.Errorf("a failed calibration moved a stamp by %v", time.Duration(got-want))
	}
	if _, err := newClock(k.sample, time.Millisecond, 8); !errors.Is(err, k.fail) {
		t.Errorf("newClock = %v", err)
	}
}

// Calibrations read the clocks at any phase of a jiffy, and an idle CPU's
// jiffies may be one behind when a packet wakes it. None of it may overstate
// an age.
func TestCalibrationPhase(t *testing.T) {
	k := &fakeKernel{start: sinceBoot(100), jiffy: second / 100, mono: hour}
	for phase := int64(0); phase < k.jiffy; phase += k.jiffy / 16 {
		k.mono = hour + phase
		c, shift := fakeClock(t, k)
		for step := range int64(200) {
			k.mono = hour + step*7*second/1000
			at := k.boot()
			k.mono -= k.jiffy - 1
			tick := k.tick(shift)
			k.mono += 20*second + k.jiffy - 1
			if got := c.BootAt(tick, k.boot()); got < at {
				t.Fatalf("phase %v: age overstated by %v", time.Duration(phase), time.Duration(at-got))
			}
			k.mono -= 20 * second
		}
	}
}

// measuring advances the fake kernel as a program run and a sleep would.
func measuring(k *fakeKernel, perRead time.Duration) (sampler, func(time.Duration)) {
	return func() (sample, error) {
			k.mono += int64(perRead)
			return k.sample()
		}, func(d time.Duration) {
			k.mono += int64(d)
		}
}

func TestMeasureJiffy(t *testing.T) {
	for _, c := range []struct {
		hz      int64
		perRead time.Duration
		within  time.Duration
	}{
		{100, 2 * time.Microsecond, 0},
		{250, 2 * time.Microsecond, 0},
		{300, 2 * time.Microsecond, 0},
		{1000, 2 * time.Microsecond, 0},
		{250, 700 * time.Microsecond, 0}, // a machine under load
		{1024, 2 * time.Microsecond, time.Microsecond},
		{256, 2 * time.Microsecond, 4 * time.Microsecond},
	} {
		k := &fakeKernel{start: sinceBoot(c.hz), jiffy: second / c.hz, mono: hour + 12345}
		read, sleep := measuring(k, c.perRead)
		jiffy, err := measureJiffy(read, sleep)
		if err != nil {
			t.Fatal(err)
		}
		if off := (jiffy - time.Duration(second/c.hz)).Abs(); off > c.within {
			t.Errorf("HZ %d, %v a reading: a jiffy of %v, off by %v", c.hz, c.perRead, jiffy, off)
		}
	}
}

func TestMeasureJiffyFails(t *testing.T) {
	broken := errors.New("no program")
	k := &fakeKernel{jiffy: second / 250, fail: broken}
	if _, err := measureJiffy(k.sample, func(time.Duration) {}); !errors.Is(err, broken) {
		t.Errorf("a program that fails: %v", err)
	}
	stuck := &fakeKernel{jiffy: second / 250}
	if _, err := measureJiffy(stuck.sample, func(time.Duration) {}); err == nil {
		t.Error("jiffies that stand still gave a length")
	}
	if stuck.reads > 1_000_000 {
		t.Errorf("%d readings before giving up", stuck.reads)
	}
}

// Now must agree with the kernel's clock and must not run ahead of it, or
// evidence would lie in its reader's future.
func TestNow(t *testing.T) {
	c, _ := fakeClock(t, &fakeKernel{jiffy: second / 250})
	for range 1000 {
		got := c.Now()
		after, err := readClock(unix.CLOCK_BOOTTIME)
		if err != nil {
			t.Fatal(err)
		}
		if got > after || after-got > int64(10*time.Second) {
			t.Fatalf("Now is %v off", time.Duration(after-got))
		}
	}
	if c.Suspended() {
		t.Error("Suspended without a suspend")
	}
	cal := *c.calibration.Load()
	cal.anchor.boot -= hour
	c.calibration.Store(&cal)
	if !c.Suspended() {
		t.Error("an hour of suspend goes unnoticed")
	}
}

func TestSlotSplitIsTheKernels(t *testing.T) {
	if SlotBits != bpf.SlotBits || SlotOf(0xffffffff) != bpf.SlotField || SlotOf(1<<SlotBits) != 0 {
		t.Errorf("the slot of ffffffff is %x", SlotOf(0xffffffff))
	}
}
