package maps

import (
	"crypto/rand"
	"errors"
	"testing"

	"github.com/cilium/ebpf"
)

func (s *Set) follow(t *testing.T) *Followed {
	t.Helper()
	f, err := s.Follow(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *Followed) tracks(t *testing.T, sa FollowedSA, tuple Tuple) (slot uint32) {
	t.Helper()
	slot, err := f.Track(sa, tuple.Local, tuple.Peer)
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

// Who begins to follow finds what the one before him left, as it was stamped
// meanwhile; what he does not know is forgotten when he has settled, and until
// then its slot is nobody else's.
func TestFollowGoesOn(t *testing.T) {
	s, before := loadFollowed(t, nil)
	slot, other := before.tracks(t, foreign, behind), before.tracks(t, foreignAH, behind)
	now := s.Clock.Now()
	before.Stamp(slot, foreign.SPI, now)
	receive(t, s, behind, []byte{0xff})

	f := s.follow(t)
	if !s.followed(t, slot, foreign, behind) || !s.followed(t, other, foreignAH, behind) || s.owners(t, behind) != 2 {
		t.Error("something is gone before anybody knows whether it is")
	}
	if again := f.tracks(t, foreign, behind); again != slot || s.owners(t, behind) != 2 {
		t.Errorf("taken over from slot %d to %d, with %d owners of the tuple", slot, again, s.owners(t, behind))
	}
	if _, auth := s.EvidenceAt(slot, foreign.SPI); auth < now {
		t.Errorf("stamped at %d, and then at %d", now, auth)
	}
	if peer, _, err := s.Peers.Get(behind); peer.Keepalives != 1 || err != nil {
		t.Errorf("%d keepalives, %v, want the one that came", peer.Keepalives, err)
	}
	if _, err := f.Track(foreign, here, there); err == nil {
		t.Error("tracked twice")
	}
	for sa, left := (FollowedSA{foreign.Local, 0x1000, 50}), s.Hot.Slots()-2; left > 0; left-- {
		sa.SPI++
		if got := f.tracks(t, sa, rebound); got == slot || got == other {
			t.Fatalf("slot %d was given away", got)
		}
	}
	if _, err := f.Track(FollowedSA{foreign.Local, 0x999, 50}, here, there); !errors.Is(err, ErrNoSlots) {
		t.Errorf("err = %v, want %v", err, ErrNoSlots)
	}

	if err := f.Settle(); err != nil || s.owners(t, behind) != 1 || !s.followed(t, slot, foreign, behind) {
		t.Errorf("settled: %v; the tuple has %d owners", err, s.owners(t, behind))
	}
	if _, there := s.ways(t)[foreignAH.key()]; there {
		t.Error("what nobody tracked is still there")
	}
	if err := f.Untrack(foreign); err != nil || s.owners(t, behind) != 0 {
		t.Errorf("untracked: %v", err)
	}
}

// One that was left may have moved while nobody followed.
func TestFollowGoesOnElsewhere(t *testing.T) {
	s, before := loadFollowed(t, nil)
	slot := before.tracks(t, foreign, behind)
	now := s.Clock.Now()
	before.Stamp(slot, foreign.SPI, now)
	f := s.follow(t)
	if again := f.tracks(t, foreign, rebound); again != slot || !s.followed(t, slot, foreign, rebound) {
		t.Errorf("taken over from slot %d to %d", slot, again)
	}
	if _, auth := s.EvidenceAt(slot, foreign.SPI); auth < now || s.owners(t, behind) != 0 || s.owners(t, rebound) != 1 {
		t.Errorf("authenticated at %d, not %d; %d and %d owners", auth, now, s.owners(t, behind), s.owners(t, rebound))
	}
}

// Whatever a process that was killed in the middle of a change has left: it is
// forgotten as a whole.
func TestFollowForgetsWhatIsTorn(t *testing.T) {
	const nowhere = 77 // a slot
	way := func(s *Set, sa FollowedSA, slot uint32) error {
		return s.handles.Follow.Update(sa.key(), slot, ebpf.UpdateNoExist)
	}
	for name, tear := range map[string]func(s *Set, slot uint32) error{
		"no hot entry":          func(s *Set, slot uint32) error { return s.Hot.removeAt(slot, foreign.SPI) },
		"no sas entry":          func(s *Set, slot uint32) error { _, err := s.SAs.clear(slot); return err },
		"no way":                func(s *Set, _ uint32) error { return s.handles.Follow.Delete(foreign.key()) },
		"sas alone":             func(s *Set, _ uint32) error { return s.SAs.put(nowhere, 9, behind, false) },
		"hot alone":             func(s *Set, _ uint32) error { return s.Hot.installAt(nowhere, 9, behind) },
		"a way to nothing":      func(s *Set, _ uint32) error { return way(s, foreignAH, nowhere) },
		"a way out of the maps": func(s *Set, _ uint32) error { return way(s, foreignAH, 1<<20) },
		"two ways to one slot": func(s *Set, slot uint32) error {
			return errors.Join(way(s, foreignAH, slot), s.Hot.installAt(nowhere, 9, behind), s.SAs.put(nowhere, 9, behind, false))
		},
		"an owner too many": func(s *Set, _ uint32) error { return s.Peers.Acquire(behind, false) },
		"a tuple of nobody": func(s *Set, _ uint32) error { return s.Peers.Acquire(rebound, false) },
		"no tuple":          func(s *Set, _ uint32) error { return s.Peers.m.Delete(behind.key()) },
		"moved in sas, not hot": func(s *Set, slot uint32) error {
			return errors.Join(s.Peers.Acquire(rebound, false), s.SAs.move(slot, foreign.SPI, rebound, false), s.Peers.Release(behind))
		},
		"no mapping near":       func(s *Set, _ uint32) error { s.Peers.near.remove(s.place(t, behind)); return nil },
		"another mapping there": func(s *Set, _ uint32) error { s.Peers.near.install(s.place(t, behind), rebound, 0); return nil },
		"a mapping of nobody": func(s *Set, _ uint32) error {
			s.Peers.near.install(s.Peers.near.vacancy(rebound), rebound, 0)
			return nil
		},
		"one that had no room": func(s *Set, _ uint32) error { s.Peers.near.spill(behind, 1); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s, before := loadFollowed(t, nil)
			slot := before.tracks(t, foreign, behind)
			if err := tear(s, slot); err != nil {
				t.Fatal(err)
			}
			f := s.follow(t)
			s.wantNothing(t)
			if left := s.ways(t); len(left) > 0 {
				t.Errorf("ways are left: %v", left)
			}
			if !s.followed(t, f.tracks(t, foreign, behind), foreign, behind) {
				t.Error("it is not tracked anew")
			}
		})
	}
}

// Maps for SPIs of our own are refused.
func TestFollowRefuses(t *testing.T) {
	s := loadSet(t, nil)
	if _, err := s.Follow(rand.Reader); err == nil {
		t.Error("followed in maps for our own SPIs")
	}
}
