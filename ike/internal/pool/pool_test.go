package pool

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
)

var (
	anyV4 = netip.IPv4Unspecified()
	anyV6 = netip.IPv6Unspecified()
	ip    = netip.MustParseAddr
)

func newPool(t testing.TB, remember int, prefixes ...string) *Pool {
	t.Helper()
	var ps []netip.Prefix
	for _, s := range prefixes {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	p, err := New(ps, remember)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// lease wants a certain address to be leased.
func lease(t *testing.T, p *Pool, identity, want, expect string) Lease {
	t.Helper()
	l, ok := p.Lease(identity, ip(want))
	if !ok || l.Addr != ip(expect) {
		t.Errorf("%s asked for %s and got %v %v, want %s", identity, want, l.Addr, ok, expect)
	}
	return l
}

// all leases everything of a family, each to another identity.
func all(p *Pool, family netip.Addr) []string {
	var got []string
	for n := 0; ; n++ {
		l, ok := p.Lease(fmt.Sprintf("peer %d", n), family)
		if !ok {
			return got
		}
		got = append(got, l.Addr.String())
	}
}

func TestWhatAPrefixHolds(t *testing.T) {
	for _, c := range []struct {
		prefixes []string
		family   netip.Addr
		want     []string
	}{
		{[]string{"10.99.0.0/30"}, anyV4, []string{"10.99.0.1", "10.99.0.2"}},
		{[]string{"10.99.0.7/29"}, anyV4, []string{"10.99.0.1", "10.99.0.2", "10.99.0.3", "10.99.0.4", "10.99.0.5", "10.99.0.6"}},
		{[]string{"10.99.0.0/31"}, anyV4, []string{"10.99.0.0", "10.99.0.1"}},
		{[]string{"10.99.0.9/32"}, anyV4, []string{"10.99.0.9"}},
		{[]string{"255.255.255.252/30"}, anyV4, []string{"255.255.255.253", "255.255.255.254"}},
		{[]string{"255.255.255.255/32", "10.0.0.1/32"}, anyV4, []string{"255.255.255.255", "10.0.0.1"}},
		{[]string{"10.99.0.0/30", "2001:db8::/64", "10.98.0.0/30"}, anyV4, []string{"10.99.0.1", "10.99.0.2", "10.98.0.1", "10.98.0.2"}},
		{[]string{"10.99.0.0/30"}, anyV6, nil},
		{[]string{"2001:db8::/126"}, anyV6, []string{"2001:db8::1", "2001:db8::2", "2001:db8::3"}},
		{[]string{"2001:db8::/127"}, anyV6, []string{"2001:db8::", "2001:db8::1"}},
		{[]string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"}, anyV6,
			[]string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}},
		{nil, anyV4, nil},
	} {
		if got := all(newPool(t, 10, c.prefixes...), c.family); !slices.Equal(got, c.want) {
			t.Errorf("%v: leased %v, want %v", c.prefixes, got, c.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range [][]netip.Prefix{
		{{}},
		{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.99.0.0/16")},
		{netip.MustParsePrefix("2001:db8::/64"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/64")},
		{netip.MustParsePrefix("::ffff:10.0.0.0/104")},
	} {
		if _, err := New(c, 1); err == nil {
			t.Errorf("%v was taken", c)
		}
	}
}

// TestReplacement is INITIAL_CONTACT: the new SA has the old one's address,
// and the old one's late Release neither ends nor moves the lease.
func TestReplacement(t *testing.T) {
	p := newPool(t, 10, "10.99.0.0/29")
	old := lease(t, p, "anna", "0.0.0.0", "10.99.0.1")
	young := lease(t, p, "anna", "0.0.0.0", "10.99.0.1")
	if p.Live() != 1 {
		t.Errorf("%d leases, want 1", p.Live())
	}
	if p.Release(old) {
		t.Error("the replaced lease could be released")
	}
	lease(t, p, "berta", "10.99.0.1", "10.99.0.2")
	if p.Release(Lease{Addr: ip("10.99.0.6"), Generation: young.Generation}) {
		t.Error("released an address that was never leased, by another's generation")
	}
	if !p.Release(young) || p.Live() != 1 {
		t.Errorf("released, %d leases left, want 1", p.Live())
	}
	if p.Release(young) {
		t.Error("released twice")
	}
	if p.Release(Lease{}) || p.Release(Lease{Addr: ip("10.99.0.1")}) || p.Release(Lease{Addr: ip("10.99.0.6"), Generation: 1}) {
		t.Error("released what was never leased")
	}
}

func TestSticky(t *testing.T) {
	p := newPool(t, 2, "10.99.0.0/29")
	a := lease(t, p, "anna", "0.0.0.0", "10.99.0.1")
	b := lease(t, p, "berta", "0.0.0.0", "10.99.0.2")
	p.Release(a)
	p.Release(b)
	lease(t, p, "carla", "0.0.0.0", "10.99.0.3")
	lease(t, p, "dora", "10.99.0.1", "10.99.0.4") // rests for anna
	b = lease(t, p, "berta", "0.0.0.0", "10.99.0.2")
	a = lease(t, p, "anna", "0.0.0.0", "10.99.0.1")
	p.Release(a)
	p.Release(b)
	p.Release(lease(t, p, "emma", "0.0.0.0", "10.99.0.5")) // a third holder to remember: anna is forgotten
	lease(t, p, "fanny", "10.99.0.1", "10.99.0.1")
	lease(t, p, "anna", "0.0.0.0", "10.99.0.6")
	// Only what rests is left: the longest goes first.
	lease(t, p, "gerda", "0.0.0.0", "10.99.0.2")
	lease(t, p, "berta", "0.0.0.0", "10.99.0.5")
	if l, ok := p.Lease("emma", anyV4); ok {
		t.Errorf("%v of a pool that is used up", l.Addr)
	}
}

func TestWanted(t *testing.T) {
	p := newPool(t, 10, "10.99.0.0/29", "2001:db8::/64")
	lease(t, p, "anna", "10.99.0.2", "10.99.0.2")
	lease(t, p, "anna", "10.99.0.5", "10.99.0.2") // has one that lives
	lease(t, p, "anna", "2001:db8::77", "2001:db8::77")
	lease(t, p, "berta", "10.99.0.2", "10.99.0.1")   // taken
	lease(t, p, "carla", "10.99.0.0", "10.99.0.3")   // the network's
	lease(t, p, "dora", "10.99.0.7", "10.99.0.4")    // the broadcast address
	lease(t, p, "emma", "192.168.1.1", "10.99.0.5")  // not ours
	lease(t, p, "emma", "2001:db8::", "2001:db8::1") // anycast
	f := lease(t, p, "fanny", "0.0.0.0", "10.99.0.6")
	p.Release(f)
	lease(t, p, "fanny", "10.99.0.2", "10.99.0.6") // hers again, as what she wants is not to be had
}

// TestChangeOfMind: who comes back and wants another free address gets it, and
// his old one is anybody's.
func TestChangeOfMind(t *testing.T) {
	p := newPool(t, 10, "10.99.0.0/29")
	p.Release(lease(t, p, "anna", "0.0.0.0", "10.99.0.1"))
	lease(t, p, "anna", "10.99.0.5", "10.99.0.5")
	lease(t, p, "berta", "0.0.0.0", "10.99.0.1")
}

// TestEndOfTheAddressSpace: behind the last address of all there is no cursor,
// and what lies before it is not lost.
func TestEndOfTheAddressSpace(t *testing.T) {
	p := newPool(t, 0, "255.255.255.254/31")
	for range 3 {
		a := lease(t, p, "anna", "0.0.0.0", "255.255.255.254")
		b := lease(t, p, "berta", "0.0.0.0", "255.255.255.255")
		p.Release(a)
		p.Release(b)
	}
}

// TestMappedAddresses: an IPv6 address that has an IPv4 one in it is leased as
// what it is.
func TestMappedAddresses(t *testing.T) {
	p := newPool(t, 10, "::/64")
	l := lease(t, p, "anna", "::ffff:10.99.0.1", "::ffff:10.99.0.1")
	if !p.Release(l) {
		t.Error("it could not be released")
	}
}

// model predicts a pool of one family by the book.
type model struct {
	capacity, remember int
	live               map[string]Lease
	resting            []string // longest first
	last               map[string]netip.Addr
	peak               int
}

func (m *model) holderOf(a netip.Addr) string {
	for who, l := range m.live {
		if l.Addr == a {
			return who
		}
	}
	for _, who := range m.resting {
		if m.last[who] == a {
			return who
		}
	}
	return ""
}

func (m *model) unrest(who string) {
	m.resting = slices.DeleteFunc(m.resting, func(x string) bool { return x == who })
}

// expect is what Lease must do: the address, or the zero Addr for any that is
// nobody's.
func (m *model) expect(who string, want netip.Addr, leasable bool) (a netip.Addr, ok bool) {
	if l, ok := m.live[who]; ok {
		return l.Addr, true
	}
	switch rests := slices.Contains(m.resting, who); {
	case leasable && m.holderOf(want) == "":
		m.unrest(who)
		return want, true
	case rests:
		m.unrest(who)
		return m.last[who], true
	case m.capacity > len(m.live)+len(m.resting):
		return netip.Addr{}, true
	case len(m.resting) > 0:
		a = m.last[m.resting[0]]
		m.resting = m.resting[1:]
		return a, true
	}
	return netip.Addr{}, false
}

func (m *model) release(who string) {
	m.last[who] = m.live[who].Addr
	delete(m.live, who)
	m.resting = append(m.resting, who)
	if len(m.resting) > m.remember {
		m.resting = m.resting[1:]
	}
}

func TestAgainstModel(t *testing.T) {
	for _, c := range []struct {
		prefixes []string
		capacity int
		remember int
		wants    string
	}{
		{[]string{"10.99.0.0/28", "10.98.0.0/30", "10.97.0.3/32"}, 14 + 2 + 1, 5, "10.99.0.0"},
		{[]string{"10.99.0.0/28"}, 14, 0, "10.99.0.0"},
		{[]string{"10.99.0.0/28"}, 14, 100, "10.99.0.0"},
		{[]string{"2001:db8::/124", "2001:db9::/126"}, 15 + 3, 6, "2001:db8::"},
	} {
		rng := rand.New(rand.NewPCG(1, uint64(c.remember)))
		p := newPool(t, c.remember, c.prefixes...)
		m := &model{capacity: c.capacity, remember: c.remember, live: map[string]Lease{}, last: map[string]netip.Addr{}}
		base := ip(c.wants)
		family := anyV4
		if base.Is6() {
			family = anyV6
		}
		var stale []Lease
		for range 30000 {
			who := fmt.Sprintf("peer %d", rng.IntN(2*c.capacity))
			switch rng.IntN(5) {
			case 0, 1: // release
				l, ok := m.live[who]
				if p.Release(l) != ok {
					t.Fatalf("%s released %v: want %v", who, l, ok)
				}
				if ok {
					m.release(who)
					stale = append(stale, l)
				}
			case 2: // release what is over
				if len(stale) > 0 && p.Release(stale[rng.IntN(len(stale))]) {
					t.Fatal("a lease that was over could be released")
				}
			default:
				want, leasable := family, false
				if rng.IntN(2) == 0 {
					n := rng.IntN(17)
					want = nth(base, n)
					leasable = n >= 1 && n <= 15 && (base.Is6() || n < 15)
				}
				stale = m.lease(t, p, who, want, leasable, stale)
			}
			m.check(t, p)
		}
	}
}

func (m *model) lease(t *testing.T, p *Pool, who string, want netip.Addr, leasable bool, stale []Lease) []Lease {
	t.Helper()
	expected, ok := m.expect(who, want, leasable)
	l, got := p.Lease(who, want)
	switch {
	case got != ok:
		t.Fatalf("%s, wants %v: leased %v, want %v", who, want, got, ok)
	case !ok:
		return stale
	case expected.IsValid() && l.Addr != expected:
		t.Fatalf("%s, wants %v: got %v, want %v", who, want, l.Addr, expected)
	case !expected.IsValid() && m.holderOf(l.Addr) != "":
		t.Fatalf("%s got %v, which is %s's", who, l.Addr, m.holderOf(l.Addr))
	}
	if old, ok := m.live[who]; ok {
		stale = append(stale, old)
	}
	m.live[who] = l
	return stale
}

func (m *model) check(t *testing.T, p *Pool) {
	t.Helper()
	if p.Live() != len(m.live) {
		t.Fatalf("%d live, want %d", p.Live(), len(m.live))
	}
	m.peak = max(m.peak, len(m.live)+len(m.resting)+1)
	if n := len(p.v4.records) + len(p.v6.records); n > m.peak {
		t.Fatalf("%d records for at most %d addresses in use or remembered", n, m.peak)
	}
}

func nth(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}

// TestMemoryIsBounded: a peer who comes with another name or another wish each
// time leaves no more behind than is to be remembered.
func TestMemoryIsBounded(t *testing.T) {
	p := newPool(t, 16, "2001:db8::/64", "10.0.0.0/8")
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 20000 {
		b := ip("2001:db8::").As16()
		for i := 8; i < 16; i++ {
			b[i] = byte(rng.Uint32())
		}
		who := fmt.Sprintf("peer %d", n)
		for _, want := range []netip.Addr{netip.AddrFrom16(b), netip.AddrFrom4([4]byte{10, b[13], b[14], b[15]})} {
			if l, ok := p.Lease(who, want); ok {
				p.Release(l)
			}
		}
	}
	for _, s := range []*space{&p.v4, &p.v6} {
		if len(s.records) > 20 || len(s.byAddr) > 20 || len(s.holders) > 20 {
			t.Errorf("%d records, %d addresses, %d holders", len(s.records), len(s.byAddr), len(s.holders))
		}
	}
}

// TestNothingIsLeftOfWhatIsAhead: an address that the pool will still come to, asked
// for and given back, leaves nothing behind but the record for the next one.
func TestNothingIsLeftOfWhatIsAhead(t *testing.T) {
	p := newPool(t, 0, "192.168.0.0/29", "10.0.0.0/29") // the second is the lower one
	lease(t, p, "anna", "0.0.0.0", "192.168.0.1")
	for _, want := range []string{"192.168.0.2", "192.168.0.6", "10.0.0.1", "10.0.0.6"} {
		p.Release(lease(t, p, "berta", want, want))
		if len(p.v4.byAddr) != 1 || len(p.v4.records) != 2 || p.v4.free.len != 0 {
			t.Errorf("%s: %d addresses, %d records and %d free are left", want, len(p.v4.byAddr), len(p.v4.records), p.v4.free.len)
		}
	}
	lease(t, p, "carla", "0.0.0.0", "192.168.0.2")
}

func BenchmarkLeaseAndRelease(b *testing.B) {
	p := newPool(b, 1<<16, "10.0.0.0/8")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const held = 1 << 18
	names := make([]string, held)
	for n := range names {
		names[n] = fmt.Sprintf("peer-%d@example.org", n)
		p.Lease(names[n], anyV4)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for n := 0; b.Loop(); n++ {
		l, _ := p.Lease(names[n%held], anyV4)
		p.Release(l)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/held, "B/lease+name")
}
