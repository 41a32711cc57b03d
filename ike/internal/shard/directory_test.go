package shard

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

// A peer that comes again after a crash replaces its old SA, in whichever shard
// that is, keeps its address, and what the old SA leaves late is not its own.
func TestInitialContactReplacesInAnotherShard(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(4)
		crossed := false
		for i := range 20 {
			before := gateway.peers()[0]
			gateway.happened()
			client.vanish()
			client = w.site(clientAddr, 1, home("anna@example.org"))
			client.initiate()
			w.after(time.Second)
			gateway.wantEventsInAnyOrder("child up", "closed: replaced", "established")
			st, peers := gateway.status(), gateway.peers()
			if st.Up != 1 || st.Leases["office"] != 1 || len(gateway.held().tracked) != 1 || gateway.held().records != 1 {
				t.Fatalf("round %d: %+v; %s", i, st, gateway.leftovers())
			}
			if was, is := before.Child.RemoteTS[0], peers[0].Child.RemoteTS[0]; was != is {
				t.Errorf("round %d: the address was %s and is %s", i, was, is)
			}
			crossed = crossed || before.Shard != peers[0].Shard
		}
		if !crossed {
			t.Error("20 SAs were all in one shard")
		}
		client.stop()
		w.after(time.Second)
		gateway.wantOrderly()
	})
}

// Another identity replaces nobody.
func TestInitialContactOfAnother(t *testing.T) {
	inBubble(t, func(w *world) {
		_, gateway := w.pair(2)
		w.site("10.7.0.3", 1, home("bert@example.org")).initiate()
		if st := gateway.status(); st.Up != 2 || st.Leases["office"] != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// registry is a directory without its goroutine, and a shard that only takes
// what it is told.
func registry(t *testing.T, pools ...Pool) (*directory, *Shard) {
	t.Helper()
	d, err := newDirectory(pools)
	if err != nil {
		t.Fatal(err)
	}
	return d, &Shard{wake: make(chan struct{}, 1), table: newTable(), conf: &Config{Clock: func() mono.Time { return 1 }}}
}

func office(prefixes ...string) Pool {
	p := Pool{Name: "office", DNS: []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("2001:db8::53")}}
	for _, s := range prefixes {
		p.Prefixes = append(p.Prefixes, netip.MustParsePrefix(s))
	}
	return p
}

var anyIPv4 = []netip.Addr{netip.IPv4Unspecified()}

// admit enters an SA, and gives the answer, if there is one yet.
func (d *directory) admitNow(s *Shard, spi uint64, st sa.Admit) (got *sa.Admitted) {
	d.admit(s, spi, st, func(a sa.Admitted) { got = &a })
	return got
}

func TestLateLeave(t *testing.T) {
	d, s := registry(t, office("10.99.0.0/30")) // room for two
	st := sa.Admit{Identity: "anna", InitialContact: true, Pools: []string{"office"}, Want: anyIPv4}
	first := d.admitNow(s, 1, st)
	var second *sa.Admitted
	d.admit(s, 2, st, func(a sa.Admitted) { second = &a })
	if first == nil || second != nil || len(s.mail.filling) != 1 {
		t.Errorf("first %v, second %v before the first has left; %d messages", first, second, len(s.mail.filling))
	}
	d.remove(1)
	if second == nil || !slices.Equal(first.Addrs, second.Addrs) {
		t.Fatalf("leased %v, then %v", first, second)
	}
	if n := d.pools["office"].pool.Live(); n != 1 || len(d.claims) != 1 || len(d.identities["anna"].claims) != 1 {
		t.Errorf("after the late leave: %d leases, %d claims", n, len(d.claims))
	}
	other := d.admitNow(s, 3, sa.Admit{Identity: "bert", Pools: []string{"office"}, Want: anyIPv4})
	if other.Err != nil || other.Addrs[0] == second.Addrs[0] {
		t.Errorf("another gets %v %v", other.Addrs, other.Err)
	}
	d.remove(2)
	d.remove(2)
	d.remove(3)
	if n := d.pools["office"].pool.Live(); n != 0 || len(d.claims)+len(d.identities) != 0 {
		t.Errorf("at the end: %d leases, %d claims, %d identities", n, len(d.claims), len(d.identities))
	}
}

// Contact after contact, quicker than the old SAs leave: the last one counts,
// and is answered when all before it have left.
func TestContactsOvertake(t *testing.T) {
	d, s := registry(t, office("10.99.0.0/28"))
	st := sa.Admit{Identity: "anna", InitialContact: true, Pools: []string{"office"}, Want: anyIPv4}
	answered := make([]bool, 4)
	for i := range answered {
		d.admit(s, uint64(i), st, func(sa.Admitted) { answered[i] = true })
	}
	for i := range 3 {
		if answered[3] {
			t.Errorf("answered although %d is still there", i)
		}
		d.remove(uint64(i))
	}
	if !answered[3] || d.pools["office"].pool.Live() != 1 || len(d.claims) != 1 {
		t.Errorf("answered %v, %d leases, %d claims", answered, d.pools["office"].pool.Live(), len(d.claims))
	}
	d.remove(3)
	if len(d.identities) != 0 || d.pools["office"].pool.Live() != 0 {
		t.Errorf("%d identities are left", len(d.identities))
	}
}

// Two devices with one identity do not share an address, and each has its own
// again when it comes again.
func TestOneIdentityTwoDevices(t *testing.T) {
	d, s := registry(t, office("10.99.0.0/28"))
	st := sa.Admit{Identity: "anna", Pools: []string{"office"}, Want: anyIPv4}
	a, b := d.admitNow(s, 1, st), d.admitNow(s, 2, st)
	if a.Addrs[0] == b.Addrs[0] || len(s.mail.filling) != 0 {
		t.Errorf("leased %v and %v; %d messages", a.Addrs, b.Addrs, len(s.mail.filling))
	}
	d.remove(1)
	if again := d.admitNow(s, 3, st); again.Addrs[0] != a.Addrs[0] {
		t.Errorf("leased %v, then %v", a.Addrs, again.Addrs)
	}
	st.InitialContact = true
	var last sa.Admitted
	d.admit(s, 4, st, func(a sa.Admitted) { last = a })
	d.remove(2)
	d.remove(3)
	if len(last.Addrs) != 1 || last.Addrs[0] != a.Addrs[0] || len(s.mail.filling) != 2 || len(d.claims) != 1 {
		t.Errorf("leased %v; %d messages, %d claims", last.Addrs, len(s.mail.filling), len(d.claims))
	}
	if n := d.pools["office"].pool.Live(); n != 1 {
		t.Errorf("%d leases", n)
	}
}

func TestLeases(t *testing.T) {
	small := Pool{Name: "small", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.98.0.1/32")}}
	d, s := registry(t, small, office("10.99.0.0/28", "2001:db8:1::/64"))
	pools := []string{"small", "office"}
	both := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	a := d.admitNow(s, 1, sa.Admit{Identity: "anna", Pools: pools, Want: both})
	if fmt.Sprint(a.Addrs, a.DNS, a.Err) != "[10.98.0.1 2001:db8:1::1] [2001:db8::53] <nil>" {
		t.Errorf("%v %v %v", a.Addrs, a.DNS, a.Err)
	}
	b := d.admitNow(s, 2, sa.Admit{Identity: "bert", Pools: pools, Want: anyIPv4})
	if fmt.Sprint(b.Addrs, b.DNS, b.Err) != "[10.99.0.1] [10.0.0.53] <nil>" {
		t.Errorf("%v %v %v", b.Addrs, b.DNS, b.Err)
	}
	if c := d.admitNow(s, 3, sa.Admit{Identity: "cleo", Pools: pools[:1], Want: anyIPv4}); c.Err == nil || len(c.Addrs) > 0 {
		t.Errorf("from a pool that is empty: %v %v", c.Addrs, c.Err)
	}
	if e := d.admitNow(s, 4, sa.Admit{Identity: "dora"}); e.Err != nil || len(e.Addrs) > 0 {
		t.Errorf("who wants nothing gets %v %v", e.Addrs, e.Err)
	}
	if _, err := newDirectory([]Pool{office("10.0.0.0/8", "10.0.0.0/16")}); err == nil {
		t.Error("a pool that overlaps itself is accepted")
	}
}

// A message that panics costs the directory nothing but that message.
func TestDirectoryPanic(t *testing.T) {
	d, s := registry(t)
	d.do(func(mono.Time) { d.admitNow(s, 1, sa.Admit{Identity: "anna", Pools: []string{"none"}, Want: anyIPv4}) })
	if d.panics != 1 {
		t.Errorf("%d panics", d.panics)
	}
}
