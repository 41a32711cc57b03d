package maps

import (
	"crypto/rand"
	"fmt"
	"math/bits"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"
)

const second = int64(time.Second)

func TestEntries(t *testing.T) {
	for _, c := range []struct{ capacity, want int }{
		{1, 2}, {2, 4}, {3, 8}, {1000, 2048}, {1024, 2048}, {1025, 4096}, {65536, 131072}, {MaxCapacity, 1 << SlotBits},
	} {
		if got := Entries(c.capacity); got != c.want {
			t.Errorf("Entries(%d) = %d, want %d", c.capacity, got, c.want)
		}
		if bits.OnesCount(uint(Entries(c.capacity))) != 1 {
			t.Errorf("Entries(%d) is not a power of two", c.capacity)
		}
	}
	for _, capacity := range []int{-1, 0, MaxCapacity + 1} {
		if !panics(func() { Entries(capacity) }) {
			t.Errorf("Entries(%d) did not panic", capacity)
		}
	}
}

func TestNewSlotsRefuses(t *testing.T) {
	for name, f := range map[string]func(){
		"negative shard":         func() { NewSlots(8, -1, 4, rand.Reader) },
		"shard beyond":           func() { NewSlots(8, 4, 4, rand.Reader) },
		"more shards than slots": func() { NewSlots(1, 0, 3, rand.Reader) },
		"no randomness":          func() { NewSlots(8, 0, 1, brokenRandom{}) },
	} {
		if !panics(f) {
			t.Errorf("%s: no panic", name)
		}
	}
}

type brokenRandom struct{}

func (brokenRandom) Read([]byte) (int, error) { return 0, fmt.Errorf("no entropy") }

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

// Every slot of the tables belongs to exactly one shard, and each shard gives
// out all of its own before it says that there are no more.
func TestSlotsCoverTheTables(t *testing.T) {
	for _, shards := range []int{1, 2, 3, 4, 7, 16} {
		entries := Entries(100)
		seen := make(map[uint32]bool)
		for shard := range shards {
			s := NewSlots(100, shard, shards, rand.Reader)
			for {
				spi, ok := s.Alloc(second)
				if !ok {
					break
				}
				slot := SlotOf(spi)
				switch {
				case int(slot)%shards != shard:
					t.Fatalf("%d shards: shard %d gave slot %d", shards, shard, slot)
				case int(slot) >= entries:
					t.Fatalf("%d shards: slot %d is outside the tables", shards, slot)
				case seen[slot]:
					t.Fatalf("%d shards: slot %d came twice", shards, slot)
				case spi>>SlotBits == 0:
					t.Fatalf("SPI %#x has the tag 0", spi)
				}
				seen[slot] = true
			}
		}
		if len(seen) != entries {
			t.Errorf("%d shards gave out %d of %d slots", shards, len(seen), entries)
		}
	}
}

func TestSlotsComeInRandomOrder(t *testing.T) {
	take := func() (slots []uint32) {
		s := NewSlots(500, 0, 1, rand.Reader)
		for range 200 {
			spi, _ := s.Alloc(second)
			slots = append(slots, SlotOf(spi))
		}
		return slots
	}
	a, b := take(), take()
	if slices.Equal(a, b) {
		t.Error("two allocators gave the same order")
	}
	if slices.IsSorted(a) {
		t.Error("slots came in order")
	}
}

func TestFreedSlotRests(t *testing.T) {
	s := NewSlots(1, 0, 1, rand.Reader) // two slots
	first, _ := s.Alloc(second)
	second_, _ := s.Alloc(second)
	if _, ok := s.Alloc(second); ok {
		t.Fatal("a third SPI out of two slots")
	}
	at := 10 * second
	s.Free(first, at)
	for _, now := range []int64{at, at + 60*second, at + 120*second - 1} {
		if spi, ok := s.Alloc(now); ok {
			t.Fatalf("got %#x after %v of rest", spi, time.Duration(now-at))
		}
	}
	again, ok := s.Alloc(at + 120*second)
	if !ok {
		t.Fatal("the slot did not come back after two minutes")
	}
	if SlotOf(again) != SlotOf(first) || again == first {
		t.Errorf("freed %#x, got %#x: want its slot with another tag", first, again)
	}
	if SlotOf(again) == SlotOf(second_) {
		t.Error("a held slot was given out")
	}
}

// The same SPI must not return for as long as its tags allow.
func TestSPIDoesNotReturnSoon(t *testing.T) {
	s := NewSlots(1, 1, 2, rand.Reader) // one slot
	seen := make(map[uint32]bool)
	now := second
	for range maxTag {
		spi, ok := s.Alloc(now)
		if !ok {
			t.Fatal("no SPI though the slot has rested")
		}
		if seen[spi] {
			t.Fatalf("%#x returned after %d uses", spi, len(seen))
		}
		if spi < 256 {
			t.Fatalf("%#x is reserved", spi)
		}
		seen[spi] = true
		s.Free(spi, now)
		now += slotRest
	}
}

func TestFreeOfWhatIsNotOut(t *testing.T) {
	s := NewSlots(2, 0, 2, rand.Reader) // slots 0 and 2
	spi, _ := s.Alloc(second)
	other, _ := s.Alloc(second)
	s.Free(spi, second)
	for _, bad := range []uint32{
		spi,                   // a second time
		other ^ 1<<SlotBits,   // another tag
		other | 1,             // another shard's slot
		other | 1<<21,         // outside the tables
		SlotOf(other),         // no tag
		uint32(5) << SlotBits, // a tag that nobody gave out, most likely
	} {
		if bad != other {
			s.Free(bad, second)
		}
	}
	if n := len(s.resting) - s.head; n != 1 {
		t.Errorf("%d slots rest, want the one that was freed", n)
	}
}

// Whatever the order of calls: no SPI is out twice, none returns before it has
// rested, every one is this shard's, and no slot gets lost.
func TestSlotsProperty(t *testing.T) {
	const shards = 3
	for round := range uint64(20) {
		random := mathrand.New(mathrand.NewPCG(round, 1))
		shard := random.IntN(shards)
		s := NewSlots(1+random.IntN(60), shard, shards, rand.Reader)
		own := len(s.tags)
		out := make(map[uint32]uint32)  // slot → SPI
		freed := make(map[uint32]int64) // slot → when
		last := make(map[uint32]uint32) // slot → SPI before
		held, now := []uint32{}, second // SPIs
		for range 5000 {
			now += random.Int64N(8 * second)
			if random.IntN(2) == 0 && len(held) > 0 {
				i := random.IntN(len(held))
				spi := held[i]
				held = slices.Delete(held, i, i+1)
				s.Free(spi, now)
				delete(out, SlotOf(spi))
				freed[SlotOf(spi)], last[SlotOf(spi)] = now, spi
				continue
			}
			spi, ok := s.Alloc(now)
			if !ok {
				if rested := countRested(freed, now); rested > 0 {
					t.Fatalf("round %d: nothing to give, but %d slots have rested", round, rested)
				}
				continue
			}
			slot := SlotOf(spi)
			if out[slot] != 0 || slot%shards != uint32(shard) || last[slot] == spi {
				t.Fatalf("round %d: %#x (held: %#x, before: %#x)", round, spi, out[slot], last[slot])
			}
			if at, ok := freed[slot]; ok && now-at < slotRest {
				t.Fatalf("round %d: slot %d rested only %v", round, slot, time.Duration(now-at))
			}
			delete(freed, slot)
			out[slot] = spi
			held = append(held, spi)
		}
		if got := len(s.free) + len(s.resting) - s.head + len(held); got != own {
			t.Fatalf("round %d: %d slots of %d are left", round, got, own)
		}
	}
}

func countRested(freed map[uint32]int64, now int64) (n int) {
	for _, at := range freed {
		if now-at >= slotRest {
			n++
		}
	}
	return n
}

func BenchmarkSlots(b *testing.B) {
	s := NewSlots(1<<20, 0, 1, rand.Reader)
	now := second
	for b.Loop() {
		spi, _ := s.Alloc(now)
		s.Free(spi, now)
		now += second
	}
}
