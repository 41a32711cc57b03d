package maps

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/test/require"
)

// loadSet returns a set over maps of its own in the kernel, which nobody else
// sees and which go with it.
func loadSet(t testing.TB, change func(*ebpf.CollectionSpec)) *Set {
	t.Helper()
	require.Have(t, "root", "bpf")
	const capacity = 64
	spec, err := Spec(capacity)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(spec)
	}
	var h Handles
	if err := spec.LoadAndAssign(&h, nil); err != nil {
		t.Fatal(err)
	}
	meta := Meta{
		Layout: bpf.LayoutVersion, Capacity: capacity, Keepalive: "absorb",
		Jiffy: 4 * time.Millisecond, TickShift: 8, NATTPort: 4500,
	}
	if err := meta.Write(h.Meta); err != nil {
		t.Fatal(err)
	}
	s, err := Open(h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

const (
	spiA = uint32(3)<<SlotBits | 7
	spiB = uint32(900)<<SlotBits | 8
)

func (s *Set) tracked(t *testing.T, spi uint32, tuple Tuple) bool {
	t.Helper()
	sa, ok, err := s.SAs.Get(spi)
	if err != nil {
		t.Fatal(err)
	}
	_, _, hot := s.Hot.Read(spi)
	if ok != hot {
		t.Fatalf("SPI %08x is in sas: %v, in hot: %v", spi, ok, hot)
	}
	if ok && sa.Tuple != tuple {
		t.Errorf("SPI %08x is at %s, want %s", spi, sa.Tuple, tuple)
	}
	if hash := stored(t, s.Hot, int(SlotOf(spi))).TupleHash; ok && hash != tuple.hash() {
		t.Errorf("SPI %08x expects tuple hash %08x, want %08x", spi, hash, tuple.hash())
	}
	return ok
}

func (s *Set) owners(t *testing.T, tuple Tuple) uint32 {
	t.Helper()
	peer, ok, err := s.Peers.Get(tuple)
	if err != nil {
		t.Fatal(err)
	}
	if ok && peer.Owners == 0 {
		t.Errorf("%s is there without an owner", tuple)
	}
	return peer.Owners
}

// wantNothing fails when any map has an entry of any SPI.
func (s *Set) wantNothing(t *testing.T) {
	t.Helper()
	s.Hot.Each(func(slot, spi, _, _ uint32) { t.Errorf("hot %d: %08x is left", slot, spi) })
	errSAs := s.SAs.Each(func(sa SA) { t.Errorf("sas: %+v is left", sa) })
	errPeers := s.Peers.Each(func(p Peer) { t.Errorf("peers: %+v is left", p) })
	if err := errors.Join(errSAs, errPeers); err != nil {
		t.Fatal(err)
	}
}

func TestTrackAndUntrack(t *testing.T) {
	s := loadSet(t, nil)
	if err := s.Track(spiA, behind.Local, behind.Peer, true); err != nil {
		t.Fatal(err)
	}
	if !s.tracked(t, spiA, behind) || s.owners(t, behind) != 1 {
		t.Error("tracked, but not everywhere")
	}
	peer, _, _ := s.Peers.Get(behind)
	sa, _, _ := s.SAs.Get(spiA)
	if !peer.NATted || !sa.NATted || sa.SPI != spiA || sa.Generation != 1 {
		t.Errorf("peer %+v, sa %+v", peer, sa)
	}
	if err := s.Track(spiB, behind.Local, behind.Peer, false); err != nil {
		t.Fatal(err)
	}
	if peer, _, _ := s.Peers.Get(behind); peer.Owners != 2 || !peer.NATted {
		t.Errorf("two SPIs on a tuple, one natted: %+v", peer)
	}
	if err := s.Untrack(spiA, behind.Local, behind.Peer); err != nil {
		t.Fatal(err)
	}
	if s.tracked(t, spiA, behind) || !s.tracked(t, spiB, behind) || s.owners(t, behind) != 1 {
		t.Error("one of two is untracked: want the other, and the tuple, to stay")
	}
	if err := s.Untrack(spiB, behind.Local, behind.Peer); err != nil {
		t.Fatal(err)
	}
	s.wantNothing(t)
	if err := s.Track(spiA+1<<SlotBits, behind.Local, behind.Peer, false); err != nil {
		t.Fatal(err)
	}
	if sa, _, _ := s.SAs.Get(spiA + 1<<SlotBits); sa.Generation != 2 {
		t.Errorf("the slot's second SPI has generation %d", sa.Generation)
	}
}

func TestTrackRefuses(t *testing.T) {
	s := loadSet(t, nil)
	if err := s.Track(spiA, here, there, false); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name        string
		spi         uint32
		local, peer netip.AddrPort
		want        error
	}{
		{"twice", spiA, here, there, ErrSlotTaken},
		{"another SPI in its slot", spiA ^ 1<<SlotBits, here, there, ErrSlotTaken},
		{"past what is beyond the maps", 5<<SlotBits | 256, here, there, ErrNoSlot},
		{"beyond the maps without tag", 128, here, there, ErrNoSlot},
		{"without tag", 5, here, there, ErrNoSlot},
		{"without a peer", spiB, here, netip.AddrPort{}, nil},
		{"without a local address", spiB, netip.AddrPort{}, there, nil},
	} {
		err := s.Track(c.spi, c.local, c.peer, true)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if !s.tracked(t, spiA, behind) || s.owners(t, behind) != 1 {
		t.Error("a refused SPI disturbed the one that holds the slot")
	}
	if err := s.Untrack(spiB, here, there); !errors.Is(err, ErrNotTracked) {
		t.Errorf("untracking a stranger: %v", err)
	}
	if s.owners(t, behind) != 1 {
		t.Error("untracking a stranger took an owner")
	}
	if err := s.Untrack(spiA, here, there); err != nil {
		t.Fatal(err)
	}
	if err := s.Untrack(spiA, here, there); !errors.Is(err, ErrNotTracked) {
		t.Errorf("untracking twice: %v", err)
	}
}

// closed returns a map whose every system call fails.
func closed(t *testing.T, m *ebpf.Map) *ebpf.Map {
	t.Helper()
	clone, err := m.Clone()
	if err != nil {
		t.Fatal(err)
	}
	if err := clone.Close(); err != nil {
		t.Fatal(err)
	}
	return clone
}

// stoppedAtHot runs f with a view that lacks the second word of spiA's entry:
// writing it stops f there and then, as a crash would.
func stoppedAtHot(t *testing.T, s *Set, f func()) {
	t.Helper()
	i, _ := s.Hot.index(spiA)
	whole := s.Hot.words
	s.Hot.words = whole[:i+1]
	defer func() {
		s.Hot.words = whole
		if recover() == nil {
			t.Error("hot was not written at all")
		}
	}()
	f()
}

func TestTrackFaults(t *testing.T) {
	t.Run("rich fails", func(t *testing.T) {
		s := loadSet(t, nil)
		real := s.SAs.m
		s.SAs.m = closed(t, real)
		if err := s.Track(spiA, here, there, true); err == nil {
			t.Error("no error")
		}
		s.SAs.m = real
		s.wantNothing(t)
	})
	t.Run("peers is full", func(t *testing.T) {
		s := loadSet(t, func(spec *ebpf.CollectionSpec) { spec.Maps[bpf.MapPeers].MaxEntries = 1 })
		if err := s.Track(spiB, rebound.Local, rebound.Peer, true); err != nil {
			t.Fatal(err)
		}
		if err := s.Track(spiA, here, there, true); !errors.Is(err, ErrFull) {
			t.Errorf("err = %v, want %v", err, ErrFull)
		}
		if s.tracked(t, spiA, behind) {
			t.Error("the SPI is tracked")
		}
		sa, _, _ := s.SAs.Get(spiA)
		if sa.SPI != 0 || sa.Tuple.Peer.Port() != 0 {
			t.Errorf("rich was not taken back: %+v", sa)
		}
		if sa.Generation != 1 {
			t.Error("peers came before rich")
		}
	})
	t.Run("stopped at hot", func(t *testing.T) {
		s := loadSet(t, nil)
		stoppedAtHot(t, s, func() { _ = s.Track(spiA, here, there, true) })
		sa, ok, _ := s.SAs.Get(spiA)
		if !ok || sa.Tuple != behind || s.owners(t, behind) != 1 {
			t.Error("hot came before rich or peers")
		}
		if _, _, ok := s.Hot.Read(spiA); ok {
			t.Error("the SPI came before the rest of its entry")
		}
		if err := s.Reset(); err != nil {
			t.Fatal(err)
		}
		s.wantNothing(t)
	})
}

func TestUntrackFaults(t *testing.T) {
	t.Run("stopped at hot", func(t *testing.T) {
		s := loadSet(t, nil)
		if err := s.Track(spiA, here, there, true); err != nil {
			t.Fatal(err)
		}
		stoppedAtHot(t, s, func() { _ = s.Untrack(spiA, here, there) })
		if _, ok, _ := s.SAs.Get(spiA); !ok || s.owners(t, behind) != 1 {
			t.Error("rich or peers went before hot")
		}
		if _, _, ok := s.Hot.Read(spiA); ok {
			t.Error("the SPI itself did not go first")
		}
	})
	t.Run("peers fails", func(t *testing.T) {
		s := loadSet(t, nil)
		if err := s.Track(spiA, here, there, true); err != nil {
			t.Fatal(err)
		}
		real := s.Peers.m
		s.Peers.m = closed(t, real)
		if err := s.Untrack(spiA, here, there); err == nil {
			t.Error("no error though an owner is left")
		}
		s.Peers.m = real
		if s.tracked(t, spiA, behind) {
			t.Error("the SPI is still tracked")
		}
	})
	t.Run("rich fails", func(t *testing.T) {
		s := loadSet(t, nil)
		if err := s.Track(spiA, here, there, true); err != nil {
			t.Fatal(err)
		}
		real := s.SAs.m
		s.SAs.m = closed(t, real)
		if err := s.Untrack(spiA, here, there); err == nil {
			t.Error("no error though rich is left")
		}
		s.SAs.m = real
		if s.owners(t, behind) != 0 {
			t.Error("the owner is still counted")
		}
	})
	t.Run("the caller has another tuple in mind", func(t *testing.T) {
		s := loadSet(t, nil)
		if err := s.Track(spiA, here, there, true); err != nil {
			t.Fatal(err)
		}
		if err := s.Untrack(spiA, rebound.Local, rebound.Peer); err != nil {
			t.Fatal(err)
		}
		s.wantNothing(t)
	})
}

func TestMove(t *testing.T) {
	s := loadSet(t, nil)
	for _, spi := range []uint32{spiA, spiB} {
		if err := s.Track(spi, here, there, true); err != nil {
			t.Fatal(err)
		}
	}
	s.Stamp(spiA, s.Clock.Now())
	_, stamped, _ := s.Hot.Read(spiA)
	if err := s.Move(spiA, here, there, rebound.Local, rebound.Peer, true); err != nil {
		t.Fatal(err)
	}
	if !s.tracked(t, spiA, rebound) || s.owners(t, rebound) != 1 || s.owners(t, behind) != 1 {
		t.Errorf("moved: owners %d and %d", s.owners(t, rebound), s.owners(t, behind))
	}
	if _, auth, _ := s.Hot.Read(spiA); auth != stamped || auth == 0 {
		t.Errorf("the stamp was %d before, %d after", stamped, auth)
	}
	if sa, _, _ := s.SAs.Get(spiA); sa.Generation != 1 || !sa.NATted {
		t.Errorf("moved: %+v", sa)
	}
	if err := s.Move(spiA, here, there, rebound.Local, rebound.Peer, true); err == nil {
		t.Error("moved from where it is not")
	}
	if err := s.Move(spiA^1<<SlotBits, here, there, rebound.Local, rebound.Peer, true); !errors.Is(err, ErrNotTracked) {
		t.Errorf("moved a stranger: %v", err)
	}
	if err := s.Untrack(spiA, rebound.Local, rebound.Peer); err != nil {
		t.Fatal(err)
	}
	if err := s.Untrack(spiB, here, there); err != nil {
		t.Fatal(err)
	}
	s.wantNothing(t)
}

func TestMoveFaults(t *testing.T) {
	stays := func(t *testing.T, s *Set) {
		t.Helper()
		if !s.tracked(t, spiA, behind) || s.owners(t, behind) != 1 || s.owners(t, rebound) != 0 {
			t.Errorf("after a failed move: owners %d there, %d at the new tuple", s.owners(t, behind), s.owners(t, rebound))
		}
	}
	move := func(s *Set) error { return s.Move(spiA, here, there, rebound.Local, rebound.Peer, true) }
	load := func(t *testing.T, peers uint32) *Set {
		s := loadSet(t, func(spec *ebpf.CollectionSpec) { spec.Maps[bpf.MapPeers].MaxEntries = peers })
		if err := s.Track(spiA, here, there, true); err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Run("peers is full", func(t *testing.T) {
		s := load(t, 1)
		if err := move(s); !errors.Is(err, ErrFull) {
			t.Errorf("err = %v, want %v", err, ErrFull)
		}
		stays(t, s)
	})
	t.Run("hot is gone", func(t *testing.T) {
		s := load(t, 8)
		i, _ := s.Hot.index(spiA)
		there := s.Hot.words.load(i)
		s.Hot.words.store(i, 0)
		if err := move(s); !errors.Is(err, ErrNotTracked) {
			t.Errorf("err = %v, want %v", err, ErrNotTracked)
		}
		s.Hot.words.store(i, there)
		stays(t, s)
	})
	t.Run("the old owner is gone", func(t *testing.T) {
		s := load(t, 8)
		if err := s.Peers.Release(behind); err != nil {
			t.Fatal(err)
		}
		if err := move(s); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("err = %v", err)
		}
		if err := s.Peers.Acquire(behind, true); err != nil {
			t.Fatal(err)
		}
		stays(t, s)
	})
}

// The owners of a tuple come and go from every shard at once.
func TestPeersFromManyShards(t *testing.T) {
	s := loadSet(t, nil)
	if err := s.Peers.Acquire(behind, true); err != nil {
		t.Fatal(err)
	}
	var shards sync.WaitGroup
	for range 8 {
		shards.Go(func() {
			for range 500 {
				if err := errors.Join(s.Peers.Acquire(behind, false), s.Peers.Release(behind)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	shards.Wait()
	if n := s.owners(t, behind); n != 1 {
		t.Errorf("%d owners are left of one", n)
	}
}

// A change of the owners keeps what XDP wrote into the entry.
func TestPeersKeepStamps(t *testing.T) {
	s := loadSet(t, nil)
	if err := s.Peers.Acquire(behind, true); err != nil {
		t.Fatal(err)
	}
	at := s.Peers.near.home(behind) * wordsPerNear
	s.Peers.near.words.store(at+2, 76<<32|77)
	s.Peers.near.words.store(at+3, 3<<32|12)
	keepStamps(t, s, behind)

	six := Tuple{netip.MustParseAddrPort("[2001:db8::1]:4500"), netip.MustParseAddrPort("[2001:db8::9]:24884")}
	stamped := bpf.PeerEntry{Owners: 1, Mapping: bpf.Mapping{
		Flags: bpf.PeerNATted, KeepaliveTick: 77, AnswerTick: 76, Keepalives: 12, Answers: 3,
	}}
	if err := s.Peers.m.Put(six.key(), stamped); err != nil {
		t.Fatal(err)
	}
	keepStamps(t, s, six)
}

func keepStamps(t *testing.T, s *Set, tuple Tuple) {
	t.Helper()
	want := Peer{Tuple: tuple, Owners: 1, NATted: true, KeepaliveTick: 77, AnswerTick: 76, Keepalives: 12, Answers: 3}
	for _, c := range []struct {
		change func() error
		owners uint32
	}{
		{func() error { return s.Peers.Acquire(tuple, false) }, 2},
		{func() error { return s.Peers.Release(tuple) }, 1},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		want.Owners = c.owners
		if got, _, err := s.Peers.Get(tuple); got != want || err != nil {
			t.Errorf("got %+v, want %+v (%v)", got, want, err)
		}
	}
	if err := s.Peers.Release(tuple); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Peers.Get(tuple); ok || err != nil {
		t.Errorf("still there after its last owner: %v, %v", ok, err)
	}
	if err := s.Peers.Release(tuple); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("released once too often: %v", err)
	}
}

func TestEachPeerAndSA(t *testing.T) {
	s := loadSet(t, nil)
	want := make(map[Tuple]bool)
	for n := range uint16(100) {
		tuple := Tuple{here, netip.AddrPortFrom(there.Addr(), 20000+n)}
		if n%2 == 1 {
			tuple.Peer = netip.AddrPortFrom(netip.MustParseAddr("2001:db8::9"), 20000+n)
		}
		if err := s.Track(uint32(n+1)<<SlotBits|uint32(n), tuple.Local, tuple.Peer, false); err != nil {
			t.Fatal(err)
		}
		want[tuple] = true
	}
	peers, sas := make(map[Tuple]bool), make(map[Tuple]bool)
	errPeers := s.Peers.Each(func(p Peer) { peers[p.Tuple] = true })
	errSAs := s.SAs.Each(func(sa SA) { sas[sa.Tuple] = true })
	if err := errors.Join(errPeers, errSAs); err != nil {
		t.Fatal(err)
	}
	for tuple := range want {
		if !peers[tuple] || !sas[tuple] {
			t.Errorf("%s: in peers %v, in sas %v", tuple, peers[tuple], sas[tuple])
		}
	}
	if len(peers) != len(want) || len(sas) != len(want) {
		t.Errorf("%d peers, %d SAs, want %d", len(peers), len(sas), len(want))
	}
	if err := s.Reset(); err != nil {
		t.Fatal(err)
	}
	s.wantNothing(t)
}

func TestLocals(t *testing.T) {
	s := loadSet(t, nil)
	a, b := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")
	mapped := netip.AddrFrom16(a.As16())
	for _, c := range []struct{ set, want []netip.Addr }{
		{[]netip.Addr{a, b, a, mapped}, []netip.Addr{a, b}},
		{[]netip.Addr{mapped}, []netip.Addr{a}},
		{[]netip.Addr{b}, []netip.Addr{b}},
		{nil, nil},
	} {
		if err := s.Locals.Set(c.set); err != nil {
			t.Fatal(err)
		}
		got, err := s.Locals.List()
		if err != nil || len(got) != len(c.want) {
			t.Fatalf("set %v, got %v (%v)", c.set, got, err)
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("set %v, got %v", c.set, got)
			}
		}
	}
	if err := s.Locals.Add(netip.Addr{}); err == nil {
		t.Error("no address was added")
	}
	if err := s.Locals.Remove(a); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
}

func TestStatsSumTheCPUs(t *testing.T) {
	s := loadSet(t, nil)
	perCPU := make([]bpf.Counters, ebpf.MustPossibleCPU())
	for i := range perCPU {
		perCPU[i].Undecided = 1
		perCPU[i].KeepaliveAnswered = uint64(i + 1)
		perCPU[i].StrangerPassed = 1 << 40
	}
	if err := s.Stats.m.Put(uint32(0), perCPU); err != nil {
		t.Fatal(err)
	}
	got, err := s.Stats.Read()
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(len(perCPU))
	if got.Undecided != n || got.KeepaliveAnswered != n*(n+1)/2 || got.StrangerPassed != n<<40 {
		t.Errorf("%+v over %d CPUs", got, n)
	}
	if want := n + n*(n+1)/2 + n<<40; got.Packets() != want {
		t.Errorf("Packets = %d, want %d", got.Packets(), want)
	}
	reasons := got.Reasons()
	if len(reasons) != int(bpf.ReasonCount) {
		t.Fatalf("%d reasons", len(reasons))
	}
	for r, want := range map[bpf.Reason]ReasonCount{
		bpf.ReasonUndecided:         {"undecided", n, "pass"},
		bpf.ReasonKeepaliveAnswered: {"keepalive_answered", n * (n + 1) / 2, "tx"},
		bpf.ReasonStrangerDropped:   {"stranger_dropped", 0, "drop"},
	} {
		if reasons[r] != want {
			t.Errorf("%v: %+v, want %+v", r, reasons[r], want)
		}
	}
}

func TestMeta(t *testing.T) {
	s := loadSet(t, nil)
	want := Meta{
		Layout: bpf.LayoutVersion, Capacity: 64, NetnsCookie: 1 << 40, Loaded: 123456789,
		Jiffy: 4 * time.Millisecond, TickShift: 8, Keepalive: "pass", StrangerPass: true,
		AnswerInterval: 10, AnswerBudget: 777, NATTPort: 4500, Account: true,
	}
	if err := want.Write(s.handles.Meta); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadMeta(s.handles.Meta); got != want || err != nil {
		t.Errorf("got %+v, want %+v (%v)", got, want, err)
	}
	if got, err := NetnsCookieOf(s.handles.Meta); got != want.NetnsCookie || err != nil {
		t.Errorf("cookie %d, want %d (%v)", got, want.NetnsCookie, err)
	}
	if got := want.Tick(); got != 1024*time.Millisecond {
		t.Errorf("a tick of %v", got)
	}
	other := want
	other.Layout++
	if err := other.Write(s.handles.Meta); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadMeta(s.handles.Meta); err == nil {
		t.Error("another layout was read")
	}
	if err := s.handles.Meta.Put(uint32(0), bpf.Meta{}); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadMeta(s.handles.Meta); err == nil {
		t.Error("a meta that nobody wrote was read")
	}
	other.Keepalive = "shout"
	if err := other.Write(s.handles.Meta); err == nil {
		t.Error("a keepalive mode that is none was written")
	}
}

func TestDifferences(t *testing.T) {
	s := loadSet(t, nil)
	spec, err := Spec(64)
	if err != nil {
		t.Fatal(err)
	}
	if got := Differences(spec, s.handles); len(got) != 0 {
		t.Errorf("maps made from the spec differ: %q", got)
	}
	spec.Maps[bpf.MapHot].MaxEntries *= 2
	spec.Maps[bpf.MapHot].Flags = 0
	spec.Maps[bpf.MapPeers].Type = ebpf.LRUHash
	spec.Maps[bpf.MapPeers].KeySize++
	spec.Maps[bpf.MapSAs].ValueSize += 8
	want := []string{
		"ikepulse_hot has max entries 128, not 256",
		"ikepulse_hot has flags 1024, not 0",
		"ikepulse_peers has type Hash, not LRUHash",
		"ikepulse_peers has key size 36, not 37",
		"ikepulse_sas has value size 64, not 72",
	}
	got := Differences(spec, s.handles)
	if len(got) != len(want) {
		t.Fatalf("got %q", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %q, want %q", got[i], want[i])
		}
	}
}
