// Package wheel is a timing wheel over mono.Time for the deadlines of one
// shard: it holds at most one deadline for each of a dense set of uint32 ids
// (the indices of the shard's slab of SAs).
//
// It is hashed in levels of 64 buckets (Varghese and Lauck's hierarchical
// scheme): level 0 holds the ticks that share all but their lowest 6 bits with
// the current one, level 1 those that share all but the lowest 12, and so on
// for every instant that a mono.Time can name. A deadline hours ahead
// therefore lies still until its time is near, instead of being looked at once
// a lap, and is moved down at most once a level. A word of occupancy bits a
// level finds the next bucket without walking empty ones.
//
// An entry is 16 bytes without pointers, so a million of them are 16 MB that
// the garbage collector never scans (17 B with what append adds). Measured with
// 1M random entries on 2 shared cores: set 0.1 µs, move 0.27 µs, fire and set
// again 0.55 µs, Next 7 ns.
//
// A Wheel has no lock, no goroutine and no clock: its owner calls everything.
package wheel

import (
	"math"
	"math/bits"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

const (
	levelBits = 6
	slots     = 1 << levelBits
	// levels is enough for 64 bits of ticks, so there is no overflow list.
	levels = (64 + levelBits - 1) / levelBits

	// due and firing are two lists behind the buckets: what was overdue when
	// it was set, and what Advance is about to hand out.
	due     = levels * slots
	firing  = due + 1
	buckets = firing + 1

	// headFlag marks a prev link that names a bucket rather than an entry.
	headFlag = 1 << 31
	// MaxID is the highest id that a Wheel takes.
	MaxID = headFlag - 2
)

// entry is the deadline of one id. Links are ids plus one, so that 0 is none.
type entry struct {
	tick uint64
	next uint32
	prev uint32 // 0: not set; with headFlag: first of that bucket
}

// Wheel holds deadlines. Create it with New. It is owned by one goroutine.
type Wheel struct {
	shift   uint8
	cur     uint64 // everything up to this tick has been handed out, or lies in due or firing
	entries []entry
	heads   [buckets]uint32
	busy    [levels]uint64 // which buckets of a level are not empty
	last    uint32         // tail of firing
	count   int
}

// New returns an empty wheel whose ticks are the largest power of two of
// nanoseconds that is not above granularity: entries fire less than one tick
// late. One nanosecond makes it exact, at the price of more moves between
// levels.
func New(granularity time.Duration) *Wheel {
	shift := bits.Len64(uint64(max(granularity, 1))) - 1
	return &Wheel{shift: uint8(shift)}
}

// Len is the number of ids that have a deadline.
func (w *Wheel) Len() int { return w.count }

// Set gives id the deadline at, in place of the one it may have; the zero at
// means "never" and is a Cancel. Memory grows with the highest id, at most
// MaxID, and is not given back. Set costs the same whatever the wheel holds.
func (w *Wheel) Set(id uint32, at mono.Time) {
	w.Cancel(id)
	if at == 0 {
		return
	}
	w.grow(id)
	w.entries[id].tick = w.tickAfter(at)
	w.place(id)
	w.count++
}

// Cancel takes id's deadline away, if it has one. It may be called from
// within Advance, also for an id that this Advance was about to hand out.
func (w *Wheel) Cancel(id uint32) {
	if uint64(id) >= uint64(len(w.entries)) || w.entries[id].prev == 0 {
		return
	}
	w.unlink(id)
	w.count--
}

// Advance calls fire once for each id whose deadline has come by now, and
// takes the deadline away before. None comes early. First come, in any order,
// the ids that were already due when they were set; then the others by their
// tick, those of one tick in any order. What fire sets is handed out by a later
// Advance, even if it is due, so Advance ends. fire must not call Advance.
func (w *Wheel) Advance(now mono.Time, fire func(id uint32)) {
	w.collect(due)
	for target := w.tickBefore(now); ; {
		level, slot, ok := w.first()
		start := w.start(level, slot)
		if !ok || start > target {
			w.cur = max(w.cur, target)
			break
		}
		// The buckets between cur and start are empty, so the same levels
		// and slots hold for the rest when start becomes the current tick.
		w.cur = start
		w.open(level, slot)
	}
	for w.heads[firing] != 0 {
		id := w.heads[firing] - 1
		w.unlink(id)
		w.count--
		fire(id)
	}
}

// Next is the instant at which Advance has something to do, for the owner's
// timer: never later than the first deadline's tick, perhaps earlier (then
// Advance fires nothing and Next is nearer to the truth; that happens at most
// once a level). With something overdue it is an instant that has come. Zero
// means that there is no deadline.
func (w *Wheel) Next() mono.Time {
	if w.heads[due] != 0 || w.heads[firing] != 0 {
		return max(w.instant(w.cur), 1)
	}
	level, slot, ok := w.first()
	if !ok {
		return 0
	}
	return max(w.instant(w.start(level, slot)), 1)
}

// tickAfter is the first tick that begins at or after at: an entry waits for
// the whole of it, so it is never early.
func (w *Wheel) tickAfter(at mono.Time) uint64 {
	tick := w.tickBefore(at)
	if at > 0 && tick<<w.shift != uint64(at) {
		tick++
	}
	return tick
}

// tickBefore is the last tick that begins at or before t, 0 before boot.
func (w *Wheel) tickBefore(t mono.Time) uint64 { return uint64(max(t, 0)) >> w.shift }

// instant is when tick begins.
func (w *Wheel) instant(tick uint64) mono.Time {
	if tick > math.MaxInt64>>w.shift {
		return math.MaxInt64
	}
	return mono.Time(tick << w.shift)
}

// first finds the earliest bucket that is not empty. The levels are ordered in
// time: all of one come before all of the next, because what lies higher
// differs from the current tick in higher bits.
func (w *Wheel) first() (level, slot int, ok bool) {
	for level, busy := range w.busy {
		if busy != 0 {
			return level, bits.TrailingZeros64(busy), true
		}
	}
	return 0, 0, false
}

// start is the first tick of a bucket.
func (w *Wheel) start(level, slot int) uint64 {
	low := level * levelBits
	kept := w.cur >> low >> levelBits << levelBits
	return (kept | uint64(slot)) << low
}

// open empties a bucket whose time has come: a tick's own bucket into the
// firing list, a wider one into the levels below.
func (w *Wheel) open(level, slot int) {
	b := level*slots + slot
	if level == 0 {
		w.collect(b)
		return
	}
	for w.heads[b] != 0 {
		id := w.heads[b] - 1
		w.unlink(id)
		w.place(id)
	}
}

// place links id into the bucket of its tick as seen from the current one.
func (w *Wheel) place(id uint32) {
	tick := w.entries[id].tick
	if tick < w.cur {
		w.push(due, id)
		return
	}
	level := (bits.Len64(tick^w.cur|1) - 1) / levelBits
	slot := int(tick>>(level*levelBits)) % slots
	w.busy[level] |= 1 << slot
	w.push(level*slots+slot, id)
}

// collect appends a whole list to the firing list.
func (w *Wheel) collect(b int) {
	for w.heads[b] != 0 {
		id := w.heads[b] - 1
		w.unlink(id)
		w.queue(id)
	}
}

// queue appends id to the firing list.
func (w *Wheel) queue(id uint32) {
	if w.heads[firing] == 0 {
		w.push(firing, id)
	} else {
		w.entries[w.last-1].next = id + 1
		w.entries[id].prev, w.entries[id].next = w.last, 0
	}
	w.last = id + 1
}

// push puts id in front of a list.
func (w *Wheel) push(b int, id uint32) {
	head := w.heads[b]
	if head != 0 {
		w.entries[head-1].prev = id + 1
	}
	w.entries[id].next, w.entries[id].prev = head, headFlag|uint32(b)
	w.heads[b] = id + 1
}

// unlink takes id out of the list that it is in.
func (w *Wheel) unlink(id uint32) {
	e := &w.entries[id]
	switch {
	case e.prev&headFlag == 0:
		w.entries[e.prev-1].next = e.next
	default:
		w.setHead(int(e.prev&^headFlag), e.next)
	}
	if e.next != 0 {
		w.entries[e.next-1].prev = e.prev
	} else if w.last == id+1 && e.prev&headFlag == 0 {
		w.last = e.prev
	}
	e.prev, e.next = 0, 0
}

// setHead makes next the first of a list, and keeps the occupancy bit.
func (w *Wheel) setHead(b int, next uint32) {
	w.heads[b] = next
	if next == 0 && b < due {
		w.busy[b/slots] &^= 1 << (b % slots)
	}
}

// grow makes room for id.
func (w *Wheel) grow(id uint32) {
	if id > MaxID {
		panic("wheel: id out of range")
	}
	if n := int(id) + 1; n > len(w.entries) {
		w.entries = append(w.entries, make([]entry, n-len(w.entries))...)
	}
}
