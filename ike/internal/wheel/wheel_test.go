package wheel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// oracle is what a Wheel must do, as a plain map.
type oracle struct {
	shift   uint
	now     uint64
	tick    map[uint32]uint64
	overdue map[uint32]bool // its tick was past when it was set
}

func newOracle(shift uint) *oracle {
	return &oracle{shift: shift, tick: map[uint32]uint64{}, overdue: map[uint32]bool{}}
}

func (o *oracle) set(id uint32, at mono.Time) {
	o.cancel(id)
	if at == 0 {
		return
	}
	tick := uint64(0)
	if at > 0 {
		tick = (uint64(at) + (1<<o.shift - 1)) >> o.shift
	}
	o.tick[id] = tick
	o.overdue[id] = tick < o.now
}

func (o *oracle) cancel(id uint32) {
	delete(o.tick, id)
	delete(o.overdue, id)
}

// advance returns the ids that must fire, and removes them.
func (o *oracle) advance(now mono.Time) map[uint32]fired {
	if now > 0 {
		o.now = max(o.now, uint64(now)>>o.shift)
	}
	want := map[uint32]fired{}
	for id, tick := range o.tick {
		if tick <= o.now {
			want[id] = fired{tick, o.overdue[id]}
		}
	}
	for id := range want {
		o.cancel(id)
	}
	return want
}

func (o *oracle) next() (first uint64, any bool) {
	first = math.MaxUint64
	for _, tick := range o.tick {
		first, any = min(first, tick), true
	}
	return first, any
}

type fired struct {
	tick    uint64
	overdue bool
}

// pair drives a Wheel and its oracle with the same calls.
type pair struct {
	t testing.TB
	w *Wheel
	o *oracle
}

func newPair(t testing.TB, shift uint) *pair {
	return &pair{t, New(1 << shift), newOracle(shift)}
}

func (p *pair) set(id uint32, at mono.Time) {
	p.w.Set(id, at)
	p.o.set(id, at)
	p.check()
}

func (p *pair) cancel(id uint32) {
	p.w.Cancel(id)
	p.o.cancel(id)
	p.check()
}

func (p *pair) advance(now mono.Time) {
	p.t.Helper()
	want := p.o.advance(now)
	var order []fired
	p.w.Advance(now, func(id uint32) {
		f, ok := want[id]
		if !ok {
			p.t.Fatalf("Advance(%d) fired %d, which is not due or came twice", now, id)
		}
		delete(want, id)
		order = append(order, f)
	})
	if len(want) != 0 {
		p.t.Fatalf("Advance(%d) left out %v", now, want)
	}
	if !slices.IsSortedFunc(order, compare) {
		p.t.Fatalf("Advance(%d) fired out of order: %v", now, order)
	}
	p.check()
}

// compare puts what was overdue first and the rest in the order of its ticks.
func compare(a, b fired) int {
	switch {
	case a.overdue && b.overdue:
		return 0
	case a.overdue:
		return -1
	case b.overdue:
		return 1
	case a.tick < b.tick:
		return -1
	case a.tick > b.tick:
		return 1
	}
	return 0
}

func (p *pair) check() {
	p.t.Helper()
	if p.w.Len() != len(p.o.tick) {
		p.t.Fatalf("Len() = %d, want %d", p.w.Len(), len(p.o.tick))
	}
	first, any := p.o.next()
	next := p.w.Next()
	if (next != 0) != any {
		p.t.Fatalf("Next() = %d with %d deadlines", next, len(p.o.tick))
	}
	first = max(first, p.o.now) // overdue: at once
	if limit := uint64(math.MaxInt64) >> p.o.shift; any && first <= limit && uint64(next) > max(first<<p.o.shift, 1) {
		p.t.Fatalf("Next() = %d is after the first deadline %d", next, first<<p.o.shift)
	}
}

// TestAgainstOracle mixes near, far, past and extreme deadlines with small and
// large steps of time.
func TestAgainstOracle(t *testing.T) {
	for _, shift := range []uint{0, 1, 10, 24, 33} {
		rng := rand.New(rand.NewPCG(1, uint64(shift)))
		p := newPair(t, shift)
		now := mono.Time(rng.Int64N(1 << 40))
		for range 20000 {
			id := uint32(rng.IntN(200))
			switch rng.IntN(8) {
			case 0:
				p.cancel(id)
			case 1, 2:
				now += mono.Time(rng.Int64N(1 << rng.IntN(41)))
				p.advance(now)
			default:
				p.set(id, deadline(rng, now))
			}
		}
		p.advance(now + 1<<61)
	}
}

func deadline(rng *rand.Rand, now mono.Time) mono.Time {
	switch rng.IntN(20) {
	case 0:
		return 0
	case 1:
		return math.MaxInt64 - mono.Time(rng.IntN(3))
	case 2:
		return -mono.Time(rng.Int64())
	case 3:
		return now - mono.Time(rng.Int64N(1000))
	}
	return now + mono.Time(rng.Int64N(1<<rng.IntN(50)))
}

func FuzzWheel(f *testing.F) {
	f.Add([]byte{0, 1, 5, 0, 2, 40, 2, 9, 1, 1, 0, 2, 60, 0})
	f.Add([]byte("700")) // due before boot
	f.Fuzz(func(t *testing.T, ops []byte) {
		p := newPair(t, 3)
		now := mono.Time(1000)
		for ; len(ops) >= 3; ops = ops[3:] {
			id, by := uint32(ops[1]), mono.Time(1)<<(ops[2]%62)+mono.Time(ops[2]/62)
			switch ops[0] % 4 {
			case 0:
				p.set(id, now+by)
			case 1:
				p.cancel(id)
			case 2:
				if now+by > now {
					now += by
				}
				p.advance(now)
			case 3:
				p.set(id, now-by)
			}
		}
	})
}

// TestLateness: an entry fires with the first tick that does not come before
// it, so less than a tick late and never early.
func TestLateness(t *testing.T) {
	const tick = mono.Time(1 << 20) // what 1.5 times that is rounded down to
	for _, c := range []struct{ at, fires mono.Time }{
		{10 * tick, 10 * tick},
		{10*tick + 1, 11 * tick},
		{11*tick - 1, 11 * tick},
		{1 << 40, 1 << 40},
	} {
		w := New(time.Duration(tick) + time.Duration(tick)/2)
		w.Set(7, c.at)
		var got []uint32
		w.Advance(c.fires-1, func(id uint32) { got = append(got, id) })
		if got != nil {
			t.Errorf("deadline %d: fired at %d", c.at, c.fires-1)
		}
		w.Advance(c.fires, func(id uint32) { got = append(got, id) })
		if !slices.Equal(got, []uint32{7}) {
			t.Errorf("deadline %d: fired %v at %d", c.at, got, c.fires)
		}
	}
}

// TestTimerFollowsNext: an owner that sleeps until Next meets every deadline in
// its tick, and wakes at most once a level for nothing.
func TestTimerFollowsNext(t *testing.T) {
	w := New(1)
	at := []mono.Time{1, 63, 64, 65, 4095, 4096, 1e9, 1e9 + 1, 3600e9, 1 << 62}
	for id, when := range at {
		w.Set(uint32(id), when)
	}
	idle := 0
	for i, when := range at {
		for fired := false; !fired; {
			now := w.Next()
			if now > when {
				t.Fatalf("Next() = %d, deadline %d", now, when)
			}
			idle++
			w.Advance(now, func(id uint32) {
				if id != uint32(i) || now != when {
					t.Fatalf("fired %d at %d, want %d at %d", id, now, i, when)
				}
				fired = true
				idle--
			})
		}
	}
	if w.Next() != 0 {
		t.Errorf("Next() = %d of an empty wheel", w.Next())
	}
	if idle > len(at)*levels {
		t.Errorf("woke %d times for nothing", idle)
	}
}

// TestFireMaySet: what fire sets waits for the next Advance, also when it is
// due, and so does an id that sets itself again.
func TestFireMaySet(t *testing.T) {
	w := New(1)
	w.Set(1, 10)
	var got []uint32
	for range 3 {
		w.Advance(100, func(id uint32) {
			got = append(got, id)
			w.Set(id, 50)
		})
	}
	if want := []uint32{1, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("fired %v, want %v", got, want)
	}
	if next := w.Next(); next > 100 || next == 0 {
		t.Errorf("Next() = %d with a deadline that is due at 100", next)
	}
}

// TestFireMayCancel: an id that would fire later in the same Advance does not
// if it is cancelled or moved before its turn, wherever it stands in the list.
func TestFireMayCancel(t *testing.T) {
	for victim := uint32(0); victim < 5; victim++ {
		for _, move := range []mono.Time{0, 1000} {
			w := New(1)
			for id := range uint32(5) {
				w.Set(id, mono.Time(10+id))
			}
			var got []uint32
			w.Advance(100, func(id uint32) {
				if len(got) == 0 {
					w.Set(victim, move)
					w.Set(9, 5) // into the list of the next Advance
				}
				got = append(got, id)
			})
			want := []uint32{0, 1, 2, 3, 4}
			if victim > 0 {
				want = slices.Delete(want, int(victim), int(victim)+1)
			}
			if !slices.Equal(got, want) {
				t.Errorf("victim %d, moved to %d: fired %v, want %v", victim, move, got, want)
			}
			wantLen := 1
			if move != 0 {
				wantLen = 2
			}
			if w.Len() != wantLen {
				t.Errorf("victim %d, moved to %d: %d left, want %d", victim, move, w.Len(), wantLen)
			}
		}
	}
}

// TestFireMayPanic: an owner that recovers loses no deadline but the one that
// panicked, and the list stands whatever is cancelled meanwhile.
func TestFireMayPanic(t *testing.T) {
	w := New(1)
	for id := range uint32(4) {
		w.Set(id, mono.Time(10+id))
	}
	func() {
		defer func() { _ = recover() }()
		w.Advance(20, func(uint32) { panic("boom") })
	}()
	w.Cancel(3) // the last of those that wait
	w.Set(5, 25)
	w.Set(6, 26)
	var got []uint32
	w.Advance(30, func(id uint32) { got = append(got, id) })
	if want := []uint32{1, 2, 5, 6}; !slices.Equal(got, want) || w.Len() != 0 {
		t.Errorf("fired %v and left %d, want %v", got, w.Len(), want)
	}
}

// TestFarDeadlinesLieStill counts the moves of a deadline four hours ahead in
// a wheel that is advanced each second: at most one a level.
func TestFarDeadlinesLieStill(t *testing.T) {
	w := New(time.Millisecond)
	w.Set(3, mono.Time(4*time.Hour))
	moves, prev := 0, w.entries[3].prev
	done := false
	for now := mono.Time(0); !done; now += 1e9 {
		w.Advance(now, func(uint32) { done = true })
		if w.entries[3].prev != prev {
			moves, prev = moves+1, w.entries[3].prev
		}
	}
	if moves > 5 { // 2^24 ticks: levels 3, 2, 1, 0, then fired
		t.Errorf("moved %d times", moves)
	}
}

func TestClockThatStandsStill(t *testing.T) {
	p := newPair(t, 4)
	p.advance(5000)
	p.set(1, 6000)
	p.set(2, 5001)
	p.advance(5000)
	p.advance(4000)
	p.advance(-1)
	p.set(3, 4500) // after the clock went back it is due all the same
	p.advance(5000)
	p.advance(7000)
}

func TestIDOutOfRange(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic for an id that no link can hold")
		}
	}()
	New(1).Set(MaxID+1, 1)
}
