package maps

import (
	"crypto/rand"
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// A foreign SPI: with the tag 0 in its high bits, no SPI of ours could be it.
var (
	foreign   = FollowedSA{Local: here.Addr(), SPI: 0x00000100, Protocol: 50}
	foreignAH = FollowedSA{Local: here.Addr(), SPI: 0x00000100, Protocol: 51}
)

func loadFollowed(t *testing.T, change func(*ebpf.CollectionSpec)) (*Set, *Followed) {
	t.Helper()
	s := loadSet(t, func(spec *ebpf.CollectionSpec) {
		spec.Maps[bpf.MapFollow].MaxEntries = 128
		if change != nil {
			change(spec)
		}
	})
	s.Meta.Follow = true
	f, err := s.Follow(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s, f
}

// ways returns what leads to slots.
func (s *Set) ways(t *testing.T) map[followKey]uint32 {
	t.Helper()
	all := map[followKey]uint32{}
	if err := eachEntry(s.handles.Follow, func(k followKey, slot uint32) { all[k] = slot }); err != nil {
		t.Fatal(err)
	}
	return all
}

func (s *Set) followed(t *testing.T, slot uint32, sa FollowedSA, tuple Tuple) bool {
	t.Helper()
	rich, ok, err := s.SAs.GetAt(slot, sa.SPI)
	if err != nil {
		t.Fatal(err)
	}
	_, _, hot := s.Hot.ReadAt(slot, sa.SPI)
	way, leads := s.ways(t)[sa.key()]
	if ok != hot || ok != leads {
		t.Errorf("%s is in sas: %v, hot: %v, follow: %v", sa, ok, hot, leads)
	}
	return ok && way == slot && rich.Tuple == tuple && rich.Slot == slot && stored(t, s.Hot, int(slot)).TupleHash == tuple.hash()
}

func TestFollow(t *testing.T) {
	s, f := loadFollowed(t, nil)
	slot, err := f.Track(foreign, here, there)
	if err != nil || !s.followed(t, slot, foreign, behind) || s.owners(t, behind) != 1 {
		t.Errorf("tracked, but not everywhere: %v", err)
	}
	other, err := f.Track(foreignAH, here, there)
	if err != nil || other == slot || !s.followed(t, other, foreignAH, behind) || s.owners(t, behind) != 2 {
		t.Errorf("the same SPI of another protocol: slot %d and %d, %v", slot, other, err)
	}
	if _, err := f.Track(foreign, here, there); err == nil {
		t.Error("tracked twice")
	}
	if peer, _, _ := s.Peers.Get(behind); peer.NATted {
		t.Error("taken for natted: it could be answered")
	}
	now := s.Clock.Now()
	f.Stamp(slot, foreign.SPI, now)
	if seen, auth := s.EvidenceAt(slot, foreign.SPI); seen != 0 || auth < now {
		t.Errorf("stamped at %d: seen %d, authenticated %d", now, seen, auth)
	}
	if err := f.Move(foreign, rebound.Local, rebound.Peer); err != nil || !s.followed(t, slot, foreign, rebound) {
		t.Errorf("moved: %v", err)
	}
	if s.owners(t, behind) != 1 || s.owners(t, rebound) != 1 {
		t.Error("the owners did not move")
	}
	if _, auth := s.EvidenceAt(slot, foreign.SPI); auth < now {
		t.Error("a move lost the evidence")
	}
	if err := errors.Join(f.Untrack(foreign), f.Untrack(foreignAH)); err != nil {
		t.Error(err)
	}
	s.wantNothing(t)
	if left := s.ways(t); len(left) > 0 {
		t.Errorf("ways are left: %v", left)
	}
	for what, err := range map[string]error{"untracked again": f.Untrack(foreign), "moved when gone": f.Move(foreign, here, there)} {
		if !errors.Is(err, ErrNotTracked) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if again, err := f.Track(foreign, here, there); err != nil || again == slot || again == other {
		t.Errorf("a slot that must rest came back: %d after %d and %d, %v", again, slot, other, err)
	}
}

// What fails leaves nothing, and no slot is lost to it.
func TestFollowFaults(t *testing.T) {
	nobody := netip.AddrPort{}
	t.Run("a tuple without addresses", func(t *testing.T) {
		s, f := loadFollowed(t, nil)
		if _, err := f.Track(foreign, here, nobody); err == nil {
			t.Error("tracked")
		}
		s.wantNothing(t)
	})
	t.Run("peers is full", func(t *testing.T) {
		s, f := loadFollowed(t, func(spec *ebpf.CollectionSpec) { spec.Maps[bpf.MapPeers].MaxEntries = 1 })
		slot, err := f.Track(foreign, here, there)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Track(foreignAH, rebound.Local, rebound.Peer); !errors.Is(err, ErrFull) {
			t.Errorf("err = %v, want %v", err, ErrFull)
		}
		if err := f.Move(foreign, rebound.Local, rebound.Peer); !errors.Is(err, ErrFull) || !s.followed(t, slot, foreign, behind) {
			t.Errorf("err = %v, want %v and all as it was", err, ErrFull)
		}
		if err := f.Untrack(foreign); err != nil {
			t.Error(err)
		}
		s.wantNothing(t)
	})
	t.Run("follow is full", func(t *testing.T) {
		s, f := loadFollowed(t, func(spec *ebpf.CollectionSpec) { spec.Maps[bpf.MapFollow].MaxEntries = 1 })
		if _, err := f.Track(foreign, here, there); err != nil {
			t.Fatal(err)
		}
		for range 2 * s.Hot.Slots() { // no slot is used up
			if _, err := f.Track(foreignAH, here, there); !errors.Is(err, ErrFull) {
				t.Fatalf("err = %v, want %v", err, ErrFull)
			}
		}
		if s.owners(t, behind) != 1 {
			t.Errorf("what failed left an owner: %d of 1", s.owners(t, behind))
		}
		if err := f.Untrack(foreign); err != nil {
			t.Error(err)
		}
		s.wantNothing(t)
	})
	t.Run("no slot", func(t *testing.T) {
		s, f := loadFollowed(t, nil)
		sa := foreign
		for range s.Hot.Slots() {
			sa.SPI++
			if _, err := f.Track(sa, here, there); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.Track(foreign, here, there); !errors.Is(err, ErrNoSlots) {
			t.Errorf("err = %v, want %v", err, ErrNoSlots)
		}
	})
}
