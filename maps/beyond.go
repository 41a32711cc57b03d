package maps

import (
	"fmt"
	"io"
	"sync/atomic"
)

// An inbound SPI is its slot, so a tunnel that finds every slot of the maps taken
// or resting cannot be known to XDP. It need not be refused for that: its SPI
// carries a slot beyond the maps, which XDP passes as one that it does not know,
// and the evidence of it is kept in this process alone.

// MaxSPIs returns how many inbound SPIs can be out at a time where the maps have
// room for so many tunnels: their slots, and as many beyond them.
func MaxSPIs(capacity int) int { return min(2*Entries(capacity), 1<<SlotBits) }

// SPIs hands out inbound SPIs as [Slots] does, and those beyond the maps while
// no slot of the maps is free. It is not safe for concurrent use: each shard
// owns one.
type SPIs struct {
	slots *Slots
	// beyond are made when they are first needed, which may be never.
	beyond     *Slots
	makeBeyond func() *Slots
}

// NewSPIs returns the supply of one of shards shards. Its arguments are those
// of [NewSlots].
func NewSPIs(capacity, shard, shards int, random io.Reader) *SPIs {
	entries, most := Entries(capacity), MaxSPIs(capacity)
	return &SPIs{
		slots:      newSlots(0, entries, shard, shards, random),
		makeBeyond: func() *Slots { return newSlots(entries, most, shard, shards, random) },
	}
}

// Alloc returns an SPI that nobody holds and whose slot has rested. tracked is
// false for one beyond the maps; ok is false when there is none of those either.
// now is CLOCK_BOOTTIME in nanoseconds; it does not go back.
func (s *SPIs) Alloc(now int64) (spi uint32, tracked, ok bool) {
	if spi, ok := s.slots.Alloc(now); ok {
		return spi, true, true
	}
	if s.beyond == nil {
		s.beyond = s.makeBeyond()
	}
	spi, ok = s.beyond.Alloc(now)
	return spi, false, ok
}

// Free lets the slot of an SPI rest, as that of [Slots] does.
func (s *SPIs) Free(spi uint32, now int64) {
	s.slots.Free(spi, now)
	if s.beyond != nil {
		s.beyond.Free(spi, now)
	}
}

// beyond is the evidence of the SPIs whose slots follow those of the maps.
type beyond struct {
	first uint32 // slot
	hot   Hot
	spis  atomic.Int64
}

func newBeyond(capacity int) *beyond {
	first := Entries(capacity)
	return &beyond{first: uint32(first),
		hot: Hot{words: make(words, (MaxSPIs(capacity)-first)*wordsPerEntry), writable: true}}
}

// slot returns where an SPI's entry is; ok is false for one of the maps' own.
func (b *beyond) slot(spi uint32) (slot uint32, ok bool) {
	if b == nil || SlotOf(spi) < b.first {
		return 0, false
	}
	return SlotOf(spi) - b.first, true
}

func (b *beyond) track(slot, spi uint32, tuple Tuple) error {
	if tagOf(spi) == 0 {
		return fmt.Errorf("SPI %08x: %w: it has no tag", spi, ErrNoSlot)
	}
	if err := b.hot.installAt(slot, spi, tuple); err != nil {
		return err
	}
	b.spis.Add(1)
	return nil
}

func (b *beyond) untrack(slot, spi uint32) error {
	if err := b.hot.removeAt(slot, spi); err != nil {
		return err
	}
	b.spis.Add(-1)
	return nil
}

// Tracked tells whether XDP can know an SPI of ours.
func (l *Ledger) Tracked(spi uint32) bool { return SlotOf(spi) < uint32(l.Hot.Slots()) }

// Untracked returns how many of the SPIs are beyond the maps.
func (l *Ledger) Untracked() int {
	if l.beyond == nil {
		return 0
	}
	return int(l.beyond.spis.Load())
}
