package maps

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// known is what the model holds of a tuple.
type known struct {
	owners     uint32
	natted     bool
	keepalives uint64
}

// model is what peers should be after the same calls: a map, beside the real
// maps with the real program over them.
type model struct {
	*Set
	t      *testing.T
	xdp    *ebpf.Program
	random *rand.Rand
	all    []Tuple
	has    map[Tuple]known
	most   int // that ikepulse_peers takes
}

// newModel has room for 8 tuples in buckets, and for 20 at all.
func newModel(t *testing.T, seed uint64) *model {
	const most = 20
	s := loadSet(t, func(spec *ebpf.CollectionSpec) {
		spec.Maps[bpf.MapNear].MaxEntries = 2
		spec.Maps[bpf.MapPeers].MaxEntries = most
	})
	m := &model{Set: s, t: t, xdp: loadXDP(t, s), random: rand.New(rand.NewPCG(seed, 1)), has: map[Tuple]known{}, most: most}
	t.Cleanup(func() { _ = m.xdp.Close() })
	here6 := netip.MustParseAddrPort("[2001:db8::1]:4500")
	for _, address := range []netip.Addr{here.Addr(), here6.Addr()} {
		if err := s.Locals.Add(address); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint16(24) {
		peer := netip.AddrFrom4([4]byte{203, 0, 113, byte(i % 5)})
		m.all = append(m.all, Tuple{here, netip.AddrPortFrom(peer, 20000+i/2)})
	}
	for i := range uint16(3) {
		peer := netip.AddrPortFrom(netip.MustParseAddr("2001:db8::9"), 20000+i)
		m.all = append(m.all, Tuple{here6, peer})
	}
	return m
}

// mapped writes IPv4 addresses as a socket of both families does.
func mapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

// pick is any tuple, in either way to write it.
func (m *model) pick() (tuple, written Tuple) {
	tuple = m.all[m.random.IntN(len(m.all))]
	written = tuple
	if m.random.IntN(2) == 0 {
		written.Local = mapped(tuple.Local)
	}
	if m.random.IntN(2) == 0 {
		written.Peer = mapped(tuple.Peer)
	}
	return tuple, written
}

func (m *model) acquire() {
	tuple, written := m.pick()
	natted := m.random.IntN(2) == 0
	k, is := m.has[tuple]
	err := m.Peers.Acquire(written, natted)
	if !is && len(m.has) == m.most {
		if !errors.Is(err, ErrFull) {
			m.t.Fatalf("%s has no room: %v", tuple, err)
		}
		return
	}
	if err != nil {
		m.t.Fatal(err)
	}
	k.owners++
	k.natted = k.natted || natted
	m.has[tuple] = k
}

func (m *model) release() {
	tuple, written := m.pick()
	k, is := m.has[tuple]
	if err := m.Peers.Release(written); (err == nil) != is {
		m.t.Fatalf("%s is there: %v, and released: %v", tuple, is, err)
	}
	if k.owners--; is && k.owners == 0 {
		delete(m.has, tuple)
	} else if is {
		m.has[tuple] = k
	}
}

// killed ends the process within a call, and starts the next one.
func (m *model) killed() {
	tuple, _ := m.pick()
	_, is, err := m.Peers.lookup(tuple)
	switch {
	case err != nil:
	case is && m.random.IntN(2) == 0: // within the last Release
		err = m.Peers.m.Delete(tuple.key())
	case is: // within clear
		m.Peers.near.words.store(m.Peers.near.home(tuple)*wordsPerNear+1, 0)
	case len(m.has) < m.most: // within the first Acquire
		e := bpf.PeerEntry{Owners: 1, Place: m.Peers.near.vacancy(tuple)}
		err = m.Peers.m.Update(tuple.key(), e, ebpf.UpdateNoExist)
	}
	if err == nil {
		err = m.Reset()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	clear(m.has)
}

// keepalive wants one to end as the model says, and nowhere else.
func (m *model) keepalive(tuple Tuple) {
	k, is := m.has[tuple]
	before := m.count(m.t)
	run(m.t, m.xdp, tuple, []byte{0xff})
	after := m.count(m.t)
	want := before
	switch {
	case !is:
		want.StrangerDropped++
		want.Events, want.EventsLost = after.Events, after.EventsLost // a budget of their own
	case !k.natted:
		want.KeepaliveNotNatted++
	case after.KeepaliveAnswered > before.KeepaliveAnswered:
		want.KeepaliveAnswered++
	default:
		want.KeepaliveLimited++
	}
	if after != want {
		m.t.Fatalf("a keepalive of %s, known %v as %+v: counters were %+v, are %+v", tuple, is, k, before, after)
	}
	if k.keepalives++; is {
		m.has[tuple] = k
	}
}

// compare wants the view to list what the model has.
func (m *model) compare() {
	left := len(m.has)
	err := m.Peers.Each(func(p Peer) {
		left--
		if got := (known{p.Owners, p.NATted, p.Keepalives}); got != m.has[p.Tuple] {
			m.t.Fatalf("%s is %+v, want %+v", p.Tuple, got, m.has[p.Tuple])
		}
	})
	if err != nil || left != 0 {
		m.t.Fatalf("%d are missing (%v)", left, err)
	}
}

// Whatever comes and goes, and however a process ended: XDP knows the tuples
// that have an owner, and no other.
func TestPeersAreAsTheirModel(t *testing.T) {
	m := newModel(t, 4500)
	for step := range 6000 {
		switch n := m.random.IntN(1000); {
		case n == 0:
			m.killed()
		case n < 400+200*(step/1000%2): // it fills, and empties
			m.acquire()
		default:
			m.release()
		}
		m.keepalive(m.all[m.random.IntN(len(m.all))])
		if step%100 == 0 {
			m.compare()
			for _, tuple := range m.all {
				m.keepalive(tuple)
			}
		}
	}
	for _, tuple := range m.all {
		for range m.has[tuple].owners {
			m.Set.release(t, tuple)
		}
	}
	for at := range m.Peers.near.words {
		if w := m.Peers.near.words.load(at); at%wordsPerNear == 1 && w != 0 {
			t.Errorf("word %d is %#x, and nobody is left", at, w)
		}
	}
}
