package halfopen

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// v4 is the nth of many addresses.
func v4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0xc6120000+n)))
}

func TestLimits(t *testing.T) {
	l := NewLimits(Thresholds{Cookie: 10, CookiePrefix: 3, Max: 15, MaxPrefix: 5})
	admit := func(what string, a netip.Addr, proven bool, want Verdict) {
		t.Helper()
		if got := l.Admit(a, proven); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	for range 3 {
		admit("few of a source", v4(1), false, Accept)
	}
	admit("a fourth of one source", v4(1), false, DemandCookie)
	admit("an IPv4-mapped form of it", netip.AddrFrom16(v4(1).As16()), false, DemandCookie)
	admit("another source meanwhile", v4(2), false, Accept)
	admit("with a cookie", v4(1), true, Accept)
	admit("with a cookie", v4(1), true, Accept)
	admit("a source that hoards", v4(1), true, Drop)
	for n := range uint32(4) {
		admit("more sources", v4(10+n), false, Accept)
	}
	if l.Total() != 10 {
		t.Fatalf("%d half-open, want 10", l.Total())
	}
	admit("above the threshold, a new source", v4(20), false, DemandCookie)
	for n := range uint32(5) {
		admit("above it, with a cookie", v4(20+n), true, Accept)
	}
	admit("full", v4(30), true, Drop)
	admit("full, no cookie", v4(30), false, DemandCookie)
	l.Done(v4(20))
	admit("room again", v4(30), true, Accept)
	for range 5 {
		l.Done(v4(1))
	}
	admit("below the thresholds again", v4(1), false, DemandCookie) // 10 in all
	l.Done(v4(10))
	admit("below the thresholds again", v4(1), false, Accept)
}

func TestIPv6IsCountedBySixtyFour(t *testing.T) {
	l := NewLimits(Thresholds{Cookie: 100, CookiePrefix: 2, Max: 100, MaxPrefix: 100})
	addr := netip.MustParseAddr
	l.Admit(addr("2001:db8:0:1::1"), false)
	l.Admit(addr("2001:db8:0:1:ffff::2"), false)
	if got := l.Admit(addr("2001:db8:0:1::3"), false); got != DemandCookie {
		t.Errorf("third of one /64: %v", got)
	}
	if got := l.Admit(addr("2001:db8:0:2::1"), false); got != Accept {
		t.Errorf("the /64 beside it: %v", got)
	}
	// A v6 prefix whose number is that of an IPv4 address is not its twin.
	l.Admit(v4(1), false)
	l.Admit(v4(1), false)
	b := v4(1).As4()
	twin := netip.AddrFrom16([16]byte(append([]byte{0, 0, 0, 0, b[0], b[1], b[2], b[3]}, make([]byte, 8)...)))
	if got := l.Admit(twin, false); got != Accept {
		t.Errorf("%v was counted as %v: %v", twin, v4(1), got)
	}
}

// TestLimitsBalance: whatever comes and goes, the count is that of the
// accepted, an unasked Done changes nothing, and nothing is left at the end.
func TestLimitsBalance(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	conf := Thresholds{Cookie: 50, CookiePrefix: 3, Max: 80, MaxPrefix: 6}
	l := NewLimits(conf)
	open := map[netip.Addr]int{}
	total := 0
	for range 50000 {
		a := v4(rng.Uint32N(60))
		if rng.IntN(2) == 0 {
			l.Done(a)
			if open[a] > 0 {
				open[a]--
				total--
			}
		} else if l.Admit(a, rng.IntN(2) == 0) == Accept {
			open[a]++
			total++
		}
		if l.Total() != total || total > conf.Max || open[a] > conf.MaxPrefix {
			t.Fatalf("counted %d, want %d; %d of %v", l.Total(), total, open[a], a)
		}
	}
	for a, n := range open {
		for range n {
			l.Done(a)
		}
	}
	if l.Total() != 0 || len(l.prefixes) != 0 {
		t.Errorf("%d half-open and %d prefixes left", l.Total(), len(l.prefixes))
	}
}

// TestFlood: spoofed sources fill neither memory nor the room of those who
// answer a cookie, and a thousand real sources leave room for others.
func TestFlood(t *testing.T) {
	l := NewLimits(Defaults)
	for n := range uint32(200000) {
		l.Admit(v4(n), false)
	}
	if l.Total() != Defaults.Cookie || len(l.prefixes) != Defaults.Cookie {
		t.Errorf("spoofed flood: %d half-open in %d prefixes, want %d", l.Total(), len(l.prefixes), Defaults.Cookie)
	}
	for range 100 {
		for n := range uint32(1000) {
			l.Admit(v4(1<<20+n), true)
		}
	}
	if got := l.Admit(v4(1<<21), true); got != Accept {
		t.Errorf("an honest client during the flood: %v", got)
	}
	for n := range uint32(200000) {
		l.Admit(v4(1<<22+n), true)
	}
	if l.Total() != Defaults.Max || len(l.prefixes) > Defaults.Max {
		t.Errorf("proven flood: %d half-open in %d prefixes, want %d", l.Total(), len(l.prefixes), Defaults.Max)
	}
}
