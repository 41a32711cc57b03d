package maps

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"time"

	"github.com/ikepulse/ikepulse/bpf"
)

// SlotBits is how many low bits of an inbound SPI are its slot. It is constant
// whatever the capacity, so that a resize never misreads a live SPI.
const SlotBits = bpf.SlotBits

const (
	maxTag = 1<<(32-SlotBits) - 1

	// MaxCapacity is the largest number of tunnels: twice as many slots fill the field.
	MaxCapacity = 1 << (SlotBits - 1)

	// slotRest is how long a freed slot stays unused: longer than any packet
	// of its last SA can still be on its way, and than an XDP run that looked
	// the SPI up before it went.
	slotRest = int64(2 * time.Minute)
)

// SlotOf returns the slot that an inbound SPI carries.
func SlotOf(spi uint32) uint32 { return spi & bpf.SlotField }

func tagOf(spi uint32) uint16 { return uint16(spi >> SlotBits) }

// Entries returns how many slots a capacity of so many tunnels takes: twice as
// many, since a rekey holds two and a freed one rests, rounded up to a power of
// two so that one mask guards the index.
func Entries(capacity int) int {
	if capacity < 1 || capacity > MaxCapacity {
		panic(fmt.Sprintf("maps: a capacity of %d is not within 1..%d", capacity, MaxCapacity))
	}
	return 1 << bits.Len(uint(2*capacity-1))
}

// Slots hands out inbound SPIs: a slot of this shard's own in the low bits, a
// tag that is never 0 above it, so that no SPI lies in the reserved range
// 0..255 (RFC 4303 §2.1). Slots come in random order; a freed one rests two
// minutes and returns with the next tag, so that the same SPI cannot return
// before its slot was used 1022 times in between.
//
// It is not safe for concurrent use: each shard owns one.
type Slots struct {
	shard, shards uint32
	first         uint32 // of the own numbers
	rand          *bufio.Reader
	free          []uint32  // own numbers from first on: slot = (first+number)*shards + shard
	resting       []resting // oldest first, from head on
	head          int
	tags          []uint16 // by own number: the tag of the SPI given out last
	live          []bool   // by own number
}

type resting struct {
	number uint32
	since  int64
}

// NewSlots returns the allocator of one of shards shards, for tables that are
// sized for capacity. random never fails and is read ahead. It panics when the
// shard is not one of the shards or the capacity is out of range: both are
// constants of a running gateway.
func NewSlots(capacity, shard, shards int, random io.Reader) *Slots {
	return newSlots(0, Entries(capacity), shard, shards, random)
}

// newSlots is [NewSlots] for the slots from low up to, and without, high.
func newSlots(low, high, shard, shards int, random io.Reader) *Slots {
	if shard < 0 || shard >= shards || low == 0 && shards > high {
		panic(fmt.Sprintf("maps: no shard %d of %d over %d slots", shard, shards, high))
	}
	// below is how many of the shard's slots lie below a slot.
	below := func(slot int) int { return (slot - shard + shards - 1) / shards }
	own := below(high) - below(low)
	s := &Slots{
		shard: uint32(shard), shards: uint32(shards), first: uint32(below(low)),
		rand: bufio.NewReader(random),
		free: make([]uint32, own),
		tags: make([]uint16, own),
		live: make([]bool, own),
	}
	for n := range s.free {
		s.free[n] = uint32(n)
		s.tags[n] = uint16(s.below(maxTag + 1))
	}
	return s
}

// Alloc returns an SPI whose slot nobody holds and which has rested. ok is
// false when every slot is held or resting. now is CLOCK_BOOTTIME in
// nanoseconds; it does not go back.
func (s *Slots) Alloc(now int64) (spi uint32, ok bool) {
	s.wake(now)
	if len(s.free) == 0 {
		return 0, false
	}
	// The order is drawn as slots are taken, so that creating the allocator
	// does not shuffle millions of them.
	i, last := s.below(uint32(len(s.free))), uint32(len(s.free)-1)
	n := s.free[i]
	s.free[i] = s.free[last]
	s.free = s.free[:last]

	s.tags[n] = nextTag(s.tags[n])
	s.live[n] = true
	return uint32(s.tags[n])<<SlotBits | ((s.first+n)*s.shards + s.shard), true
}

// Free lets the slot of an SPI rest. An SPI that this allocator does not have
// out (freed already, or another shard's) changes nothing: a slot that came
// back twice would be given to two tunnels.
func (s *Slots) Free(spi uint32, now int64) {
	n, ok := s.number(spi)
	if !ok || !s.live[n] || s.tags[n] != tagOf(spi) {
		return
	}
	s.live[n] = false
	s.resting = append(s.resting, resting{number: n, since: now})
}

// wake returns rested slots to the free ones: two for each SPI that is taken,
// which keeps up with any rate of Free and bounds the work of one Alloc.
func (s *Slots) wake(now int64) {
	for range 2 {
		if s.head == len(s.resting) || now-s.resting[s.head].since < slotRest {
			break
		}
		s.free = append(s.free, s.resting[s.head].number)
		s.head++
	}
	// Half of it is behind the head: moving the rest costs one step for each
	// slot that woke since the last time.
	if s.head > len(s.resting)/2 {
		s.resting = s.resting[:copy(s.resting, s.resting[s.head:])]
		s.head = 0
	}
}

func (s *Slots) number(spi uint32) (uint32, bool) {
	slot := SlotOf(spi)
	n := slot/s.shards - s.first // before the first: wraps
	return n, slot%s.shards == s.shard && n < uint32(len(s.tags))
}

// below draws a number from 0 to n-1, each as likely as the others: what would
// make the lowest ones likelier is drawn again.
func (s *Slots) below(n uint32) uint32 {
	for {
		var b [4]byte
		if _, err := io.ReadFull(s.rand, b[:]); err != nil {
			panic("maps: the random source failed: " + err.Error())
		}
		hi, lo := bits.Mul32(binary.LittleEndian.Uint32(b[:]), n)
		if lo >= -n%n {
			return hi
		}
	}
}

func nextTag(tag uint16) uint16 {
	if tag >= maxTag {
		return 1
	}
	return tag + 1
}
