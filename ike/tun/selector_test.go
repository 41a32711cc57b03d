package tun

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// between selects a range of addresses, any protocol and port.
func between(start, end string) wire.Selector {
	return wire.Selector{EndPort: 65535, Start: netip.MustParseAddr(start), End: netip.MustParseAddr(end)}
}

// subnets selects networks.
func subnets(ss ...string) (out []wire.Selector) {
	for _, s := range ss {
		p := netip.MustParsePrefix(s)
		out = append(out, wire.Selector{EndPort: 65535, Start: p.Addr(), End: barrier.LastOf(p)})
	}
	return out
}

func TestPrefixesOf(t *testing.T) {
	for _, c := range []struct {
		in   []wire.Selector
		want string
	}{
		{subnets("10.0.0.0/8"), "[10.0.0.0/8]"},
		{subnets("0.0.0.0/0"), "[0.0.0.0/0]"},
		{subnets("::/0", "10.99.0.7/32", "2001:db8::/128"), "[::/0 10.99.0.7/32 2001:db8::/128]"},
		{[]wire.Selector{between("10.0.0.1", "10.0.0.6")}, "[10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32]"},
		{[]wire.Selector{between("9.255.255.255", "10.0.0.0")}, "[9.255.255.255/32 10.0.0.0/32]"},
		{[]wire.Selector{between("255.255.255.254", "255.255.255.255")}, "[255.255.255.254/31]"},
		{subnets("10.1.0.0/16", "10.2.0.0/16", "10.1.0.0/16"), "[10.1.0.0/16 10.2.0.0/16]"}, // by protocol, say
		{[]wire.Selector{between("2001:db8::1", "2001:db8::2")}, "[2001:db8::1/128 2001:db8::2/128]"},
		{nil, "[]"},
	} {
		if got := fmt.Sprint(prefixesOf(c.in, 100)); got != c.want {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
	if got := prefixesOf([]wire.Selector{between("0.0.0.1", "255.255.255.254")}, 7); len(got) != 7 {
		t.Errorf("%d prefixes, limit 7", len(got))
	}
}

// TestPrefixesAreExact: every address of a range is in exactly one prefix, and
// none other is.
func TestPrefixesAreExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		lo, hi := rng.IntN(1024), rng.IntN(1024)
		if lo > hi {
			lo, hi = hi, lo
		}
		at := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }
		ps := prefixesOf([]wire.Selector{{Start: at(lo), End: at(hi)}}, 1000)
		for n := range 1024 {
			hits := 0
			for _, p := range ps {
				if p.Masked() != p {
					t.Fatalf("%v is not masked", p)
				}
				if p.Contains(at(n)) {
					hits++
				}
			}
			if want := lo <= n && n <= hi; hits > 1 || want != (hits == 1) {
				t.Fatalf("%v-%v: %v is in %d of %v", at(lo), at(hi), at(n), hits, ps)
			}
		}
	}
}

func TestRoutesOf(t *testing.T) {
	got, err := routesOf(subnets("0.0.0.0/0", "10.2.0.0/16", "::/0"))
	if err != nil || fmt.Sprint(got) != "[0.0.0.0/0 10.2.0.0/16 ::/0]" {
		t.Errorf("%v %v", got, err)
	}
	many := []wire.Selector{between("0.0.0.1", "255.255.255.254"), between("::1", "::ffff")}
	if got, err := routesOf(many); err == nil {
		t.Errorf("%d routes were taken", len(got))
	}
	if got, err := routesOf(many[:1]); err != nil || len(got) != 62 {
		t.Errorf("%d routes, %v; want 62", len(got), err)
	}
}

// entryOf is a tunnel for the table only.
func entryOf(t *testing.T, shard int, local, remote []wire.Selector) *tunnel {
	t.Helper()
	routes, err := routesOf(remote)
	if err != nil {
		t.Fatal(err)
	}
	return &tunnel{shard: shard, local: local, remote: remote, routes: routes}
}

func TestTable(t *testing.T) {
	wide := entryOf(t, 0, subnets("10.0.0.0/8"), subnets("10.0.0.0/8"))
	narrow := entryOf(t, 1, subnets("10.1.0.0/16"), subnets("10.2.0.0/16"))
	newer := entryOf(t, 2, subnets("10.1.0.0/16"), subnets("10.2.0.0/16"))
	other := entryOf(t, 3, subnets("10.3.0.0/16"), subnets("10.2.0.0/16"))
	v6 := entryOf(t, 4, subnets("2001:db8:1::/48"), subnets("2001:db8:2::/48", "2001:db8:3::/48"))
	all := entryOf(t, 5, subnets("0.0.0.0/0"), subnets("0.0.0.0/0"))
	tab := newTable()
	find := func(src, dst string) (shards []int) {
		for _, x := range tab.find(nil, netip.MustParseAddr(src), netip.MustParseAddr(dst), 0) {
			shards = append(shards, x.shard)
		}
		return shards
	}
	check := func(src, dst string, want ...int) {
		t.Helper()
		if got := find(src, dst); !slices.Equal(got, want) {
			t.Errorf("%s to %s: shards %v, want %v", src, dst, got, want)
		}
	}
	check("10.1.0.1", "10.2.0.1")
	for _, x := range []*tunnel{wide, narrow, newer, other, v6, all} {
		tab.add(x)
	}
	check("10.1.0.1", "10.2.0.1", 2, 1, 0, 5)
	check("10.3.0.1", "10.2.0.1", 3, 0, 5)
	check("10.9.0.1", "10.2.0.1", 0, 5)
	check("192.0.2.1", "198.51.100.1", 5)
	for least, want := range map[int]int{16: 2, 17: 0} {
		if got := tab.find(nil, netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1"), least); len(got) != want {
			t.Errorf("with %d bits or more: %d tunnels, want %d", least, len(got), want)
		}
	}
	check("2001:db8:1::1", "2001:db8:3::1", 4)
	check("2001:db8:9::1", "2001:db8:3::1")
	check("2001:db8:1::1", "2001:db8:4::1")
	tab.remove(newer)
	check("10.1.0.1", "10.2.0.1", 1, 0, 5)
	for _, x := range []*tunnel{all, v6, wide, narrow, other} {
		tab.remove(x)
	}
	check("10.1.0.1", "10.2.0.1")
	if len(tab.byPrefix) != 0 || tab.v4 != [129]int{} || tab.v6 != [129]int{} {
		t.Errorf("left: %v %v %v", tab.byPrefix, tab.v4, tab.v6)
	}
}

func FuzzAddressesOf(f *testing.F) {
	f.Add([]byte{0x45, 19: 1})
	f.Add([]byte{0x60, 39: 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if src, dst, ok := addressesOf(b); ok && (src.BitLen() != dst.BitLen() || len(b) < 20) {
			t.Errorf("%v to %v of %x", src, dst, b)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	tab := newTable()
	for n := range 100000 {
		a := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		tab.add(&tunnel{local: subnets("0.0.0.0/0"), routes: []netip.Prefix{netip.PrefixFrom(a, 32)}})
	}
	var found []*tunnel
	src := netip.MustParseAddr("192.0.2.1")
	for n := 0; b.Loop(); n++ {
		found = tab.find(found[:0], src, netip.AddrFrom4([4]byte{10, byte(n >> 16 & 1), byte(n >> 8), byte(n)}), 16)
	}
}
