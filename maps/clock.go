package maps

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
)

// Clock converts between ticks, u32(jiffies64 >> shift) as XDP stamps them,
// and CLOCK_BOOTTIME in nanoseconds. Tick 0 means never; the one tick in 2³²
// that would be 0 counts as the next, here as in the kernel.
//
// An age that it gives is never overstated: a stamp counts as the end of its
// tick, and a jiffy more for the error of the calibration, but never as later
// than now. So a peer looks idle up to a tick too late, never too early.
//
// Jiffies stand still in suspend, CLOCK_BOOTTIME does not. When the two have
// moved apart since the last calibration, stamps older than the one that found
// out keep the conversion from before: they count as before the suspend. That
// takes in stamps made between waking and that calibration, for which a probe
// too many is the price; call Calibrate when Suspended says so, and else about
// once a minute.
//
// Every method may be called from any goroutine.
type Clock struct {
	sample sampler
	jiffy  int64 // nanoseconds
	shift  uint

	calibrating sync.Mutex
	calibration atomic.Pointer[calibration]
}

// sampler reads both clocks at one moment.
type sampler func() (sample, error)

type sample struct {
	jiffies uint64
	boot    int64
}

// calibration is immutable once published.
type calibration struct {
	epochs []epoch // oldest first, never empty
	anchor anchor
}

// epoch is a stretch without suspend: one jiffy and its instant. It holds for
// the full ticks from which on, until the next epoch's.
type epoch struct {
	sample
	from uint64
}

// maxEpochs bounds what is kept. A stamp older than that many suspends counts
// as before the oldest of them.
const maxEpochs = 32

// NewClock measures the length of a jiffy, which takes a tenth of a second, and
// chooses the length of a tick. prog is the program bpf.ProgClock; the clock
// runs it for as long as it is used.
func NewClock(prog *ebpf.Program) (*Clock, error) {
	jiffy, err := measureJiffy(sampleWith(prog), time.Sleep)
	if err != nil {
		return nil, err
	}
	return ResumeClock(prog, jiffy, shiftFor(jiffy))
}

// ResumeClock returns the clock that was measured when the maps were made.
func ResumeClock(prog *ebpf.Program, jiffy time.Duration, shift uint32) (*Clock, error) {
	return newClock(sampleWith(prog), jiffy, shift)
}

func newClock(read sampler, jiffy time.Duration, shift uint32) (*Clock, error) {
	if tick := jiffy << shift; jiffy <= 0 || shift > 32 || tick > time.Minute {
		return nil, fmt.Errorf("a tick of 2^%d jiffies of %v makes no sense", shift, jiffy)
	}
	c := &Clock{sample: read, jiffy: int64(jiffy), shift: uint(shift)}
	return c, c.Calibrate()
}

// Jiffy returns the length of a jiffy, Shift the binary logarithm of how many
// of them are a tick, Tick the length of a tick.
func (c *Clock) Jiffy() time.Duration { return time.Duration(c.jiffy) }
func (c *Clock) Shift() uint32        { return uint32(c.shift) }
func (c *Clock) Tick() time.Duration  { return time.Duration(c.jiffy) << c.shift }

// Calibrate reads both clocks of the kernel: one bpf system call or a few. On
// an error the conversion stays as it was.
func (c *Clock) Calibrate() error {
	c.calibrating.Lock()
	defer c.calibrating.Unlock()
	s, err := c.bestSample()
	if err != nil {
		return fmt.Errorf("reading the kernel's clocks: %w", err)
	}
	at, err := newAnchor()
	if err != nil {
		return err
	}
	next := &calibration{anchor: at}
	if before := c.calibration.Load(); before != nil {
		next.epochs = before.epochs
	}
	next.epochs = c.follow(next.epochs, s)
	c.calibration.Store(next)
	return nil
}

// follow returns the epochs after a new sample: the last one with a newer
// sample, or one more when the clocks moved apart by more than a stamp shows.
func (c *Clock) follow(epochs []epoch, s sample) []epoch {
	if len(epochs) == 0 {
		return []epoch{{sample: s}}
	}
	last := epochs[len(epochs)-1]
	apart := s.boot - c.bootOf(last.sample, s.jiffies)
	if apart <= int64(c.Tick())/2 {
		kept := append([]epoch(nil), epochs...)
		kept[len(kept)-1].sample = s
		return kept
	}
	// The tick of this sample may hold stamps from both sides: it counts as before.
	next := epoch{sample: s, from: s.jiffies>>c.shift + 1}
	grown := append(append([]epoch(nil), epochs...), next)
	return grown[max(0, len(grown)-maxEpochs):]
}

// bestSample returns the sample of three that was disturbed least between its
// two clocks: the one with the earliest boot time for its jiffies.
func (c *Clock) bestSample() (sample, error) {
	best, err := c.sample()
	for range 2 {
		if err != nil {
			return sample{}, err
		}
		var s sample
		if s, err = c.sample(); s.boot < c.bootOf(best, s.jiffies) {
			best = s
		}
	}
	return best, err
}

// bootOf returns when a jiffy began, going by s.
func (c *Clock) bootOf(s sample, jiffies uint64) int64 {
	return s.boot + int64(jiffies-s.jiffies)*c.jiffy
}

// TickAt returns the tick of an instant, never 0.
func (c *Clock) TickAt(boot int64) uint32 {
	epochs := c.calibration.Load().epochs
	last := epochs[len(epochs)-1]
	passed := (boot - last.boot) / c.jiffy
	if (boot-last.boot)%c.jiffy < 0 {
		passed-- // round towards the past on both sides
	}
	tick := uint32((last.jiffies + uint64(passed)) >> c.shift)
	return max(tick, 1)
}

// BootAt returns the instant that a stamp stands for, given the present one: 0
// for tick 0, else the end of the tick, not later than now. A tick far from
// the present is one of the past: its age is the wrapping difference.
func (c *Clock) BootAt(tick uint32, now int64) int64 {
	if tick == 0 {
		return 0
	}
	cal := c.calibration.Load()
	full, e := cal.locate(tick, c.shift)
	end := c.bootOf(e.sample, (full+1)<<c.shift) + c.jiffy
	return max(1, min(end, now))
}

// locate returns the 64-bit tick that a stamp is the low half of, and the
// epoch that it falls in.
func (cal *calibration) locate(tick uint32, shift uint) (uint64, epoch) {
	last := cal.epochs[len(cal.epochs)-1]
	present := last.jiffies >> shift
	full := present + uint64(int64(int32(tick-uint32(present))))
	if full > present+1<<31 {
		full = 0 // before jiffies began: as old as can be
	}
	for i := len(cal.epochs) - 1; i > 0; i-- {
		if full >= cal.epochs[i].from {
			return full, cal.epochs[i]
		}
	}
	return full, cal.epochs[0]
}

// Now returns CLOCK_BOOTTIME without a system call, as of the last
// calibration: after a suspend that nobody noticed yet it lags.
func (c *Clock) Now() int64 {
	return c.calibration.Load().anchor.now()
}

// Suspended reports whether the system slept since the last calibration.
// It costs two clock readings and no bpf system call.
func (c *Clock) Suspended() bool {
	boot, err := readClock(unix.CLOCK_BOOTTIME)
	return err == nil && boot-c.Now() > int64(c.Tick())/2
}

// anchor is one moment on both CLOCK_BOOTTIME and the runtime's monotonic
// clock, which the vDSO reads.
type anchor struct {
	boot int64
	at   time.Time
}

// newAnchor takes the reading of five with the least between its two clocks.
// The runtime's clock is read second, so that now never runs ahead.
func newAnchor() (anchor, error) {
	var best anchor
	narrowest := time.Duration(-1)
	for range 5 {
		before := time.Now()
		boot, err := readClock(unix.CLOCK_BOOTTIME)
		if err != nil {
			return anchor{}, err
		}
		after := time.Now()
		if took := after.Sub(before); narrowest < 0 || took < narrowest {
			best, narrowest = anchor{boot: boot, at: after}, took
		}
	}
	return best, nil
}

func (a anchor) now() int64 { return a.boot + int64(time.Since(a.at)) }

func readClock(id int32) (int64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(id, &now); err != nil {
		return 0, fmt.Errorf("clock_gettime: %w", err)
	}
	return now.Nano(), nil
}

// sampleWith runs the clock program.
func sampleWith(prog *ebpf.Program) sampler {
	return func() (sample, error) {
		var s bpf.ClockSample
		if _, err := prog.Run(&ebpf.RunOptions{Context: s, ContextOut: &s}); err != nil {
			return sample{}, err
		}
		return sample{jiffies: s.Jiffies, boot: int64(s.BoottimeNs)}, nil
	}
}
