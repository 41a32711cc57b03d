package maps

import (
	"crypto/rand"
	"testing"
)

func TestMaxSPIs(t *testing.T) {
	for _, c := range []struct{ capacity, want int }{
		{1, 4}, {1000, 4096}, {65536, 262144}, {MaxCapacity / 2, 1 << SlotBits}, {MaxCapacity, 1 << SlotBits},
	} {
		if got := MaxSPIs(c.capacity); got != c.want {
			t.Errorf("MaxSPIs(%d) = %d, want %d", c.capacity, got, c.want)
		}
	}
}

// Each shard gives out all of its slots of the maps, and then as many beyond
// them, before it says that there are no more; every one is its own.
func TestSPIsBeyondTheMaps(t *testing.T) {
	for _, shards := range []int{1, 2, 3, 7, 16} {
		entries, most := Entries(100), MaxSPIs(100)
		seen := make(map[uint32]bool)
		for shard := range shards {
			s := NewSPIs(100, shard, shards, rand.Reader)
			for wasTracked := true; ; {
				spi, tracked, ok := s.Alloc(second)
				if !ok {
					break
				}
				slot := SlotOf(spi)
				if tracked != (int(slot) < entries) || tracked && !wasTracked {
					t.Fatalf("%d shards: slot %d of %d, tracked: %v, the one before: %v", shards, slot, entries, tracked, wasTracked)
				}
				if int(slot)%shards != shard || seen[slot] || spi>>SlotBits == 0 {
					t.Fatalf("%d shards: shard %d gave %#x (again: %v)", shards, shard, spi, seen[slot])
				}
				seen[slot], wasTracked = true, tracked
			}
		}
		if len(seen) != most {
			t.Errorf("%d shards gave out %d of %d SPIs", shards, len(seen), most)
		}
	}
}

// A slot of the maps is preferred as soon as one has rested; those beyond rest,
// too, and an SPI that is freed twice comes back once.
func TestSPIsGoBackToTheMaps(t *testing.T) {
	s := NewSPIs(1, 0, 1, rand.Reader) // two slots, and two beyond
	var spis [4]uint32
	for i := range spis {
		spis[i], _, _ = s.Alloc(second)
	}
	s.Free(spis[3], second)
	s.Free(spis[3], second)
	if _, _, ok := s.Alloc(second + slotRest - 1); ok {
		t.Error("a slot beyond the maps was given out before it had rested")
	}
	s.Free(spis[0], 2*second)
	now := 2*second + slotRest
	back, tracked, ok := s.Alloc(now)
	if !ok || !tracked || SlotOf(back) != SlotOf(spis[0]) || back == spis[0] {
		t.Errorf("got %#x (%v, %v), want the slot of %#x with another tag", back, tracked, ok, spis[0])
	}
	back, tracked, ok = s.Alloc(now)
	if !ok || tracked || SlotOf(back) != SlotOf(spis[3]) || back == spis[3] {
		t.Errorf("got %#x (%v, %v), want the slot of %#x with another tag", back, tracked, ok, spis[3])
	}
	if spi, _, ok := s.Alloc(now); ok {
		t.Errorf("got %#x of none", spi)
	}
}

// What is beyond the maps is in none of them.
func TestBeyondIsInNoMap(t *testing.T) {
	s := loadSet(t, nil)
	if err := s.Track(spiBeyond, here, there, true); err != nil {
		t.Fatal(err)
	}
	if s.Untracked() != 1 || s.Tracked(spiBeyond) || !s.Tracked(spiA) {
		t.Errorf("%d are untracked; beyond: %v, within: %v", s.Untracked(), !s.Tracked(spiBeyond), s.Tracked(spiA))
	}
	s.Hot.Each(func(_, spi, _, _ uint32) { t.Errorf("hot has %08x", spi) })
	if err := s.SAs.Each(func(sa SA) { t.Errorf("sas has %+v", sa) }); err != nil {
		t.Error(err)
	}
	if err := s.Peers.Each(func(p Peer) { t.Errorf("peers has %+v", p) }); err != nil {
		t.Error(err)
	}
	if err := s.Untrack(spiBeyond, here, there); err != nil || s.Untracked() != 0 {
		t.Errorf("%v, and %d are untracked", err, s.Untracked())
	}
}
