package maps

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// oneBucket is a set whose tuples all have the same bucket.
func oneBucket(t *testing.T) *Set {
	t.Helper()
	s := loadSet(t, func(spec *ebpf.CollectionSpec) { spec.Maps[bpf.MapNear].MaxEntries = 1 })
	if err := s.Locals.Add(here.Addr()); err != nil {
		t.Fatal(err)
	}
	return s
}

func fromPort(port uint16) Tuple { return Tuple{here, netip.AddrPortFrom(there.Addr(), port)} }

func (s *Set) acquire(t *testing.T, tuple Tuple) {
	t.Helper()
	if err := s.Peers.Acquire(tuple, true); err != nil {
		t.Fatal(err)
	}
}

func (s *Set) release(t *testing.T, tuple Tuple) {
	t.Helper()
	if err := s.Peers.Release(tuple); err != nil {
		t.Fatal(err)
	}
}

// place returns where a tuple's mapping is.
func (s *Set) place(t *testing.T, tuple Tuple) uint32 {
	t.Helper()
	e, known, err := s.Peers.lookup(tuple)
	if err != nil || !known {
		t.Fatalf("%s: %v, %v", tuple, known, err)
	}
	return e.Place
}

// keptAlive lets a keepalive of each tuple come, and wants the real program to
// know it: one more, and no stranger.
func (s *Set) keptAlive(t *testing.T, tuples ...Tuple) {
	t.Helper()
	for _, tuple := range tuples {
		before, _, _ := s.Peers.Get(tuple)
		receive(t, s, tuple, []byte{0xff})
		after, _, err := s.Peers.Get(tuple)
		if err != nil || after.Keepalives != before.Keepalives+1 || !after.NATted {
			t.Errorf("%s: %+v, then %+v (%v)", tuple, before, after, err)
		}
	}
}

// Tuples come and go in a bucket that is too small for them, and XDP knows each
// while it is there: those that had no room stay where they are.
func TestFullBucket(t *testing.T) {
	s := oneBucket(t)
	var all []Tuple
	for port := range uint16(bpf.NearWays + 2) {
		all = append(all, fromPort(20000+port))
		s.acquire(t, all[port])
	}
	for i, want := range []uint32{1, 2, 3, 4, 0, 0} {
		if place := s.place(t, all[i]); place != want {
			t.Errorf("%s is at %d, want %d", all[i], place, want)
		}
	}
	s.keptAlive(t, all...)

	s.release(t, all[0]) // the first, whose entry counts the others
	s.release(t, all[2])
	s.keptAlive(t, all[1], all[3], all[4], all[5])
	late := fromPort(30000)
	s.acquire(t, late)
	if place := s.place(t, late); place != 1 {
		t.Errorf("a vacancy was left: %d", place)
	}
	if got, _, _ := s.Peers.Get(late); got.Keepalives != 0 {
		t.Errorf("it has inherited %+v", got)
	}
	s.keptAlive(t, late, all[1], all[3], all[4], all[5])

	s.release(t, all[4])
	s.keptAlive(t, all[5])
	s.release(t, all[5])
	if n := s.Peers.near.spilled(1); n != 0 {
		t.Errorf("%#x are counted as spilled, all are gone", n)
	}
	strangers := s.count(t).StrangerDropped
	for _, gone := range []Tuple{all[0], all[2], all[4], all[5]} {
		receive(t, s, gone, []byte{0xff})
	}
	if n := s.count(t).StrangerDropped - strangers; n != 4 {
		t.Errorf("of 4 that are gone, %d were strangers", n)
	}
	if err := s.Reset(); err != nil {
		t.Fatal(err)
	}
	for at := range s.Peers.near.words {
		if at%wordsPerNear == 1 && s.Peers.near.words.load(at) != 0 {
			t.Errorf("word %d is left", at)
		}
	}
}

func (s *Set) count(t *testing.T) Counters {
	t.Helper()
	c, err := s.Stats.Read()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// IPv6, and ESP without UDP, have no place, and leave no trace of having none.
func TestNotNear(t *testing.T) {
	s := oneBucket(t)
	six := Tuple{netip.MustParseAddrPort("[2001:db8::1]:4500"), netip.MustParseAddrPort("[2001:db8::9]:24884")}
	bare := Tuple{netip.AddrPortFrom(here.Addr(), 0), netip.AddrPortFrom(there.Addr(), 0)}
	for _, tuple := range []Tuple{six, bare} {
		s.acquire(t, tuple)
		if place := s.place(t, tuple); place != 0 {
			t.Errorf("%s is at %d", tuple, place)
		}
		s.release(t, tuple)
	}
	for at := range s.Peers.near.words {
		if w := s.Peers.near.words.load(at); w != 0 {
			t.Errorf("word %d is %#x", at, w)
		}
	}
}

// The second owner may be the first who knows of the NAT.
func TestNATtedLater(t *testing.T) {
	s := oneBucket(t)
	for _, natted := range []bool{false, true, false} {
		if err := s.Peers.Acquire(behind, natted); err != nil {
			t.Fatal(err)
		}
	}
	s.keptAlive(t, behind)
	if got, _, _ := s.Peers.Get(behind); got.Owners != 3 || got.Keepalives != 1 {
		t.Errorf("%+v", got)
	}
}

// Two IKE SAs behind one mapping: when one goes the other's keepalives are
// answered as before, and when it goes, too, they are a stranger's.
func TestOneOfTwoGoes(t *testing.T) {
	s := oneBucket(t)
	for _, spi := range []uint32{spiA, spiB} {
		if err := s.Track(spi, behind.Local, behind.Peer, true); err != nil {
			t.Fatal(err)
		}
	}
	s.keptAlive(t, behind)
	if err := s.Untrack(spiA, behind.Local, behind.Peer); err != nil {
		t.Fatal(err)
	}
	s.keptAlive(t, behind)
	if err := s.Untrack(spiB, behind.Local, behind.Peer); err != nil {
		t.Fatal(err)
	}
	receive(t, s, behind, []byte{0xff})
	if n := s.count(t).StrangerDropped; n != 1 {
		t.Errorf("%d strangers, want 1", n)
	}
}
