package gateway

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/test/require"
)

// entry is a hot entry.
type entry struct{ spi, seen, auth uint32 }

// eyes are a sight on entries of a test's making, a look each step, which is
// four ticks.
type eyes struct {
	*sight
	entries []entry
	view    view
	now     uint32
	counts  []int // of every look
}

func newEyes(entries ...entry) *eyes {
	e := &eyes{entries: entries, view: view{[]uint32{7}, true}, now: 1000}
	e.sight = &sight{fresh: 8, each: func(f func(slot, spi, seen, auth uint32)) {
		for i, one := range e.entries {
			f(uint32(i), one.spi, one.seen, one.auth)
		}
	}, peer: func(uint32) netip.Addr { return netip.Addr{} }, ours: func(netip.Addr) bool { return false }}
	return e
}

func (e *eyes) step(looks int, change func(look int, all []entry)) *eyes {
	for n := range looks {
		e.now += 4
		change(n, e.entries)
		e.counts = append(e.counts, e.look(e.now, e.view))
	}
	return e
}

// last is what the last look found, and what any did.
func (e *eyes) last(t *testing.T, what string, want int, everMore bool) {
	t.Helper()
	if got := e.counts[len(e.counts)-1]; got != want || int(e.blind.Load()) != want || !everMore && slices.Max(e.counts) > want {
		t.Errorf("%s: %v, want %d at the end", what, e.counts, want)
	}
}

func TestSight(t *testing.T) {
	still := func(int, []entry) {}
	auth := func(e *eyes) func(int, []entry) { // every packet is authenticated, none seen
		return func(_ int, all []entry) {
			for i := range all {
				all[i].auth = e.now
			}
		}
	}
	both := func(e *eyes, late uint32) func(int, []entry) {
		return func(_ int, all []entry) {
			for i := range all {
				all[i].seen, all[i].auth = e.now-late, e.now
			}
		}
	}

	e := newEyes(entry{spi: 5}, entry{spi: 6})
	e.step(9, both(e, 0)).last(t, "all is seen", 0, false)
	e = newEyes(entry{spi: 5}, entry{spi: 6})
	e.step(9, both(e, 12)).last(t, "all is seen, and authenticated late", 0, false)
	e = newEyes(entry{spi: 5, seen: 900, auth: 900})
	e.step(9, func(_ int, all []entry) { all[0].seen = e.now }).last(t, "a forger sends", 0, false)
	e = newEyes(entry{spi: 5, seen: 900, auth: 900})
	e.step(9, still).last(t, "nobody sends", 0, false)

	e = newEyes(entry{spi: 5}, entry{spi: 6, seen: 990, auth: 990}, entry{spi: 7, seen: 1000, auth: 1000})
	e.step(9, func(_ int, all []entry) {
		all[0].auth, all[1].auth, all[2].seen, all[2].auth = e.now, e.now, e.now, e.now
	}).
		last(t, "two are not seen", 2, false)
	// The first look is at new attachments, the second finds suspects, the
	// three after it see one tick move alone.
	if want := []int{0, 0, 0, 0, 2, 2, 2, 2, 2}; !slices.Equal(e.counts, want) {
		t.Errorf("found by look: %v, want %v", e.counts, want)
	}
	e.step(99, still).last(t, "they fall silent", 2, false)
	e.step(1, func(_ int, all []entry) { all[0].seen = e.now }).last(t, "one is seen", 1, true)
	e.step(1, func(_ int, all []entry) { all[1] = entry{spi: 9, auth: e.now} }).last(t, "the other's slot has a new owner", 0, true)

	e = newEyes(entry{spi: 5, seen: 990, auth: 990})
	e.step(3, still).step(1, auth(e)).step(9, still).last(t, "the daemon had stood still, and the peer went", 0, false)
	e = newEyes(entry{spi: 5, seen: 990, auth: 990})
	e.step(3, still).step(1, auth(e)).step(9, both(e, 0)).last(t, "the daemon had stood still", 0, false)

	e = newEyes(entry{spi: 5})
	e.step(200, func(n int, all []entry) {
		if n%20 == 0 {
			all[0].auth = e.now
		}
	}).last(t, "one sends seldom", 1, false)
	e = newEyes(entry{spi: 5})
	e.step(400, func(n int, all []entry) {
		if n%100 == 0 {
			all[0].auth = e.now
		}
	}).last(t, "one is forgotten, so seldom does he send", 0, false)

	e = newEyes(entry{spi: 5, seen: 1<<32 - 9, auth: 1<<32 - 9})
	e.now = 1<<32 - 9
	e.step(9, auth(e)).last(t, "the tick wraps", 1, false)

	e = newEyes(entry{spi: 5})
	e.ours = func(netip.Addr) bool { return true }
	e.step(9, auth(e)).last(t, "the peer is on this host", 0, false)
}

// TestSightThroughOtherLinks: what was found holds for the interfaces that XDP
// was on, and where one is missing that is the fault.
func TestSightThroughOtherLinks(t *testing.T) {
	e := newEyes(entry{spi: 5})
	auth := func(_ int, all []entry) { all[0].auth = e.now }
	e.step(9, auth).last(t, "not seen", 1, false)
	e.view = view{[]uint32{7, 8}, true}
	e.step(4, auth).last(t, "attached to another interface", 0, true)
	e.step(1, auth).last(t, "not seen there either", 1, true)
	e.view.whole = false
	e.step(9, auth).last(t, "an interface is missing", 0, true)
	e.view.whole = true
	e.step(3, auth).last(t, "it is back", 0, true)
}

// TestSightOfMany: the memory is bounded, and what fills it makes room.
func TestSightOfMany(t *testing.T) {
	all := make([]entry, 3*maxSuspects)
	for i := range all {
		all[i].spi = uint32(i + 1)
	}
	e := newEyes(all...)
	everybody := func(_ int, all []entry) {
		for i := range all {
			all[i].auth = e.now
		}
	}
	e.step(9, everybody).last(t, "more than are kept", maxSuspects, false)
	if len(e.suspects) != maxSuspects {
		t.Errorf("%d suspects", len(e.suspects))
	}

	e = newEyes(all...)
	for i := range all {
		all[i] = entry{spi: uint32(i + 1), seen: 990, auth: 990}
	}
	e.step(2, func(int, []entry) {}).step(1, everybody) // all of it, after the daemon has stood still
	e.step(patience+9, func(_ int, all []entry) { all[len(all)-1].auth = e.now }).last(t, "one among many", 1, false)
}

func TestSightProblem(t *testing.T) {
	x := &XDP{Attachments: []Attachment{{Interface: "eth0"}, {Interface: "eth1"}}}
	for blind, says := range map[int]string{0: "", 1: "XDP on eth0, eth1 does not see the ESP of 1 tunnel that arrives", 23: "of 23 tunnels that",
		maxSuspects: "of 4096 tunnels or more that"} {
		x.Blind = blind
		if p := sightProblem(x); !strings.Contains(p, says) || (p == "") != (blind == 0) {
			t.Errorf("%d: %q", blind, p)
		}
	}
}

func TestHostAddress(t *testing.T) {
	require.Have(t, "root", "netns")
	if !isolated {
		t.Fatal("root, but no namespaces to test in")
	}
	dev := pair(t, "h0")
	address, err := netlink.ParseAddr("198.51.100.77/24")
	if err == nil {
		err = errors.Join(netlink.AddrAdd(dev, address), netlink.LinkSetUp(dev))
	}
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{"198.51.100.77": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "198.51.100.254": false, "2001:db8::9": false} {
		if got := hostAddress(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	if hostAddress(netip.Addr{}) {
		t.Error("no address at all")
	}
}
