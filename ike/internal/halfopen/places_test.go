package halfopen

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// v4 is the nth of many addresses.
func v4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0xc6120000+n)))
}

// began is when a test begins.
const began = mono.Time(time.Hour)

// desk admits first messages, each of which is a new one.
type desk struct {
	t      *testing.T
	now    mono.Time
	places *Places
	spi    uint64
}

func newDesk(t *testing.T, l Limits) *desk {
	return &desk{t: t, now: began, places: NewPlaces(l)}
}

func (d *desk) key(from netip.Addr) Key {
	d.spi++
	return Key{SPI: d.spi, Remote: netip.AddrPortFrom(from, 500)}
}

// admit wants a verdict for a new message, and gives its place.
func (d *desk) admit(what string, from netip.Addr, proven bool, want Verdict) (place, victim *Place) {
	d.t.Helper()
	v, place, victim := d.places.Admit(d.now, d.key(from), proven)
	if v != want || (place != nil) != (v == Accept || v == Known) {
		d.t.Errorf("%s: %v, want %v", what, v, want)
	}
	return place, victim
}

func TestPlaces(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 10, PerSource: 5, Max: 15})
	var mine []*Place
	take := func(what string, from netip.Addr, proven bool) {
		t.Helper()
		if p, _ := d.admit(what, from, proven, Accept); p != nil {
			mine = append(mine, p)
		}
	}
	for range 3 {
		take("few of a source", v4(1), false)
	}
	d.admit("a fourth of one source", v4(1), false, DemandCookie)
	d.admit("an IPv4-mapped form of it", netip.AddrFrom16(v4(1).As16()), false, DemandCookie)
	take("with a cookie", v4(1), true)
	take("with a cookie", v4(1), true)
	d.admit("a source that hoards", v4(1), true, SourceFull)
	for n := range uint32(5) {
		take("more sources", v4(10+n), false)
	}
	d.admit("above the threshold, a new source", v4(20), false, DemandCookie)
	for n := range uint32(5) {
		take("above it, with a cookie", v4(20+n), true)
	}
	d.admit("full", v4(30), true, Full)
	d.admit("full, no cookie", v4(30), false, DemandCookie)
	d.places.Done(mine[len(mine)-1])
	d.places.Done(mine[len(mine)-1]) // a second time
	take("room again", v4(30), true)
	if n := d.places.Taken(d.now); n != 15 {
		t.Errorf("%d places are taken, want 15", n)
	}
	if got := d.places.Largest(d.now, 2); len(got) != 2 || got[0] != (FromSource{v4(1).String(), 5, 5, 1}) || got[1].HalfOpen != 1 {
		t.Errorf("the largest are %v", got)
	}
	for _, p := range mine {
		d.places.Done(p)
	}
	if d.places.Taken(d.now) != 0 || len(d.places.sources) != 0 || d.places.answered.Len() != 0 {
		t.Errorf("%d places and %d sources are left", d.places.Taken(d.now), len(d.places.sources))
	}
}

// TestLimitedAreNamed: who was turned away is named for some minutes, also when
// he has nothing half-open any more; of many those of late, the most often first.
func TestLimitedAreNamed(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 1000, PerSource: 1, Max: 1000})
	turnAway := func(n uint32, times int) {
		p, _ := d.admit("a place", v4(n), true, Accept)
		for range times {
			d.admit("one more", v4(n), true, SourceFull)
		}
		d.places.Done(p)
	}
	turnAway(1, 3)
	d.now = d.now.Add(time.Minute)
	turnAway(2, 5)
	d.admit("a place", v4(3), true, Accept)
	if got := d.places.Largest(d.now, 9); !slices.Equal(got, []FromSource{{v4(2).String(), 0, 1, 5}, {v4(1).String(), 0, 1, 3}, {v4(3).String(), 1, 1, 0}}) {
		t.Errorf("named %v", got)
	}
	if got := d.places.Largest(d.now, 1); len(got) != 1 || got[0].TurnedAway != 5 {
		t.Errorf("the first is %v", got)
	}
	d.now = d.now.Add(limitedTime - time.Minute)
	if got := d.places.Largest(d.now, 9); len(got) != 2 || got[0].TurnedAway != 5 {
		t.Errorf("minutes later: %v", got)
	}
	for n := range uint32(limitedEntries) {
		d.now++
		turnAway(100+n, 1)
	}
	got := d.places.Largest(d.now, 100)
	if len(got) != limitedEntries+1 || slices.ContainsFunc(got, func(f FromSource) bool { return f.TurnedAway == 5 }) {
		t.Errorf("of many: %v", got)
	}
}

// TestLimitedAreFew: sources that are turned away one after the other, as soon as
// the machine is up, are not kept beyond a number, nor is one counted on whom
// nothing was heard of for long.
func TestLimitedAreFew(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 10, PerSource: 1, Max: 10})
	d.now = 1
	for n := range uint32(3 * limitedEntries) {
		d.now++
		d.places.limited.turnAway(d.now, sourceOf(v4(n)))
	}
	got := d.places.Largest(d.now, 100)
	if len(got) != limitedEntries || slices.ContainsFunc(got, func(f FromSource) bool { return f.TurnedAway != 1 }) {
		t.Errorf("named %v", got)
	}
	d.now = d.now.Add(limitedTime)
	last := sourceOf(v4(3*limitedEntries - 1))
	d.places.limited.turnAway(d.now, last)
	if got := d.places.Largest(d.now, 100); !slices.Equal(got, []FromSource{{last.String(), 0, 1, 1}}) {
		t.Errorf("minutes later: %v", got)
	}
}

// TestLargest: of many sources those with most places, the largest first, and no
// more than are asked for.
func TestLargest(t *testing.T) {
	const sources = 40
	d := newDesk(t, Limits{CookiesFrom: 10000, PerSource: 100, Max: 10000})
	for n := range uint32(sources) {
		for range 1 + n {
			d.admit("a place", v4(n), true, Accept)
		}
	}
	for _, n := range []int{0, 1, 5, sources, sources + 5} {
		got := d.places.Largest(d.now, n)
		if len(got) != min(n, sources) {
			t.Errorf("%d are asked for, and %d shown", n, len(got))
		}
		for i, f := range got {
			if want := (FromSource{v4(sources - 1 - uint32(i)).String(), sources - i, 100, 0}); f != want {
				t.Errorf("of %d number %d is %v, want %v", n, i, f, want)
			}
		}
	}
}

// TestDemandHasAMemory: who was asked for a cookie may have a first message
// without one on its way for ten seconds after the cause has gone, or after he
// was asked; and no longer is anybody asked.
func TestDemandHasAMemory(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cause func(d *desk) []*Place
		other Verdict // of a source that has nothing to do with it
	}{
		{"all", func(d *desk) (all []*Place) {
			for n := range uint32(10) {
				p, _ := d.admit("a client", v4(100+n), false, Accept)
				all = append(all, p)
			}
			return all
		}, DemandCookie},
		{"one source", func(d *desk) (all []*Place) {
			for range unprovenPerSource {
				p, _ := d.admit("a client", v4(1), false, Accept)
				all = append(all, p)
			}
			return all
		}, Accept},
		{"work to do", func(d *desk) []*Place { d.places.Press(d.now); return nil }, DemandCookie},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t, Limits{CookiesFrom: 10, PerSource: 5, Max: 15})
			causes := tt.cause(d)
			d.admit("at the cause", v4(1), false, DemandCookie)
			for _, p := range causes {
				d.places.Done(p)
			}
			d.now = d.now.Add(demandTime - 1)
			d.admit("ten seconds later", v4(1), false, DemandCookie)
			if p, _ := d.admit("of another source", v4(2), false, tt.other); p != nil {
				d.places.Done(p)
			}
			d.now++
			p, _ := d.admit("after that, of a third", v4(3), false, Accept)
			d.places.Done(p)
			d.admit("of who was asked just now", v4(1), false, DemandCookie)
			d.now = d.now.Add(demandTime)
			d.admit("ten seconds after he was asked", v4(1), false, Accept)
		})
	}
}

// TestDemandLastsWhileItsCauseDoes: ten seconds are counted from the last time
// that there were too many.
func TestDemandLastsWhileItsCauseDoes(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 1, PerSource: 5, Max: 15})
	p, _ := d.admit("the first", v4(1), false, Accept)
	for range 100 {
		d.now = d.now.Add(time.Second)
		d.admit("another", v4(2), false, DemandCookie)
	}
	d.places.Done(p)
	d.now = d.now.Add(demandTime - 1)
	d.admit("another", v4(3), false, DemandCookie)
}

// TestPressed: it is over ten seconds after the last cause.
func TestPressed(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 10, PerSource: 5, Max: 15})
	want := func(what string, want bool) {
		t.Helper()
		if got := d.places.Pressed(d.now); got != want {
			t.Errorf("%s: pressed %v, want %v", what, got, want)
		}
	}
	want("at first", false)
	d.places.Press(d.now)
	want("at once", true)
	d.now = d.now.Add(demandTime - 1)
	want("for ten seconds", true)
	d.now++
	want("after them", false)
}

// TestKnown: a message that has a place is its own retransmission, whatever the
// limits say meanwhile, and takes no other. One of them is on its way to the SA
// at a time.
func TestKnown(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 1, PerSource: 1, Max: 1})
	key := d.key(v4(1))
	_, place, _ := d.places.Admit(d.now, key, false)
	d.places.Answered(d.now, place)
	for _, proven := range []bool{false, true} {
		for _, want := range []Verdict{Known, Ignored, Ignored} {
			if v, got, _ := d.places.Admit(d.now, key, proven); v != want || got != place {
				t.Errorf("its retransmission: %v, want %v", v, want)
			}
		}
		d.places.Repeated(place)
	}
	other := key
	other.Digest++
	if v, _, _ := d.places.Admit(d.now, other, true); v != SourceFull {
		t.Errorf("another message with its SPI: %v", v)
	}
	d.places.Done(place)
	if v, again, _ := d.places.Admit(d.now, key, true); v != Accept || again == place {
		t.Errorf("once it is done: %v", v)
	}
	d.places.Done(place) // late: it is another's now
	if d.places.Taken(d.now) != 1 {
		t.Error("a late Done took another's place")
	}
}

// TestKnownIsAskedForACookie: who waits for his answer without a cookie is asked
// for one with everybody, so that he need not wait behind those who have shown
// theirs; who has shown it, or has been answered, is not.
func TestKnownIsAskedForACookie(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 10, PerSource: 5, Max: 10})
	key := d.key(v4(1))
	want := func(what string, proven bool, want Verdict) {
		t.Helper()
		v, place, _ := d.places.Admit(d.now, key, proven)
		if v != want {
			t.Errorf("%s: %v, want %v", what, v, want)
		}
		d.places.Repeated(place)
	}
	_, place, _ := d.places.Admit(d.now, key, false)
	want("nobody is asked", false, Known)
	d.places.Press(d.now)
	want("everybody is", false, DemandCookie)
	want("here it is", true, Known)
	want("once more without it, on its way", false, Known)
	want("and once more", false, Known)
	d.places.Done(place)
	d.places.Admit(d.now, key, true)
	want("a new one that came with it", false, Known)
	// Being asked again is a reason, too.
	key = d.key(v4(9))
	_, place, _ = d.places.Admit(d.now.Add(demandTime), key, false)
	d.places.demand.of(d.now.Add(demandTime), place.source)
	d.now = d.now.Add(2*demandTime - 1)
	want("at the end of the demand", false, DemandCookie)
	d.now++
	want("after it", false, DemandCookie)
	d.places.Done(place)
	key = d.key(v4(2))
	d.now = d.now.Add(demandTime)
	_, place, _ = d.places.Admit(d.now, key, false)
	d.places.Press(d.now)
	d.places.Answered(d.now, place)
	want("it has been answered", false, Known)
}

// TestEviction: only a proven newcomer may evict, and only somebody who has been
// answered two seconds ago and has not come back.
func TestEviction(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit Limits
		other netip.Addr // of those who have the places
		full  Verdict
	}{
		{"of the same source", Limits{CookiesFrom: 100, PerSource: 3, Max: 100}, v4(1), SourceFull},
		{"of all", Limits{CookiesFrom: 3, PerSource: 3, Max: 3}, v4(2), Full},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t, tt.limit)
			var held []*Place
			for range 3 {
				p, _ := d.admit("a place", tt.other, true, Accept)
				held = append(held, p)
			}
			d.now = d.now.Add(time.Minute)
			d.admit("nobody was answered", v4(1), true, tt.full)
			d.places.Answered(d.now, held[1])
			d.now = d.now.Add(time.Second)
			d.places.Answered(d.now, held[0])
			d.now = d.now.Add(time.Second - 1)
			d.admit("answered just now", v4(1), true, tt.full)
			d.now++
			d.admit("without a cookie", v4(1), false, DemandCookie)
			if _, victim := d.admit("with one", v4(1), true, Accept); victim != held[1] {
				t.Errorf("the victim is %v, want the one answered first", victim)
			}
			d.admit("the next is not old enough", v4(1), true, tt.full)
			d.now = d.now.Add(time.Second)
			if _, victim := d.admit("now it is", v4(1), true, Accept); victim != held[0] {
				t.Errorf("the victim is %v", victim)
			}
			d.now = d.now.Add(time.Minute)
			d.admit("the third was never answered", v4(1), true, tt.full)
			if d.places.Taken(d.now) != 3 {
				t.Errorf("%d places are taken", d.places.Taken(d.now))
			}
		})
	}
}

// TestNoEvictionBelowTheLimit: while there is room nobody has to go.
func TestNoEvictionBelowTheLimit(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 100, PerSource: 3, Max: 100})
	p, _ := d.admit("a place", v4(1), true, Accept)
	d.places.Answered(d.now, p)
	d.now = d.now.Add(time.Minute)
	for range 2 {
		if _, victim := d.admit("there is room", v4(1), true, Accept); victim != nil {
			t.Error("somebody had to go")
		}
	}
}

// TestRefusedValueKeepsItsPlace: bad public values one after the other do not
// get a key exchange each; and they lock nobody out who has shown a cookie.
func TestRefusedValueKeepsItsPlace(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 100, PerSource: 5, Max: 100})
	cost := 0
	for range 5000 {
		if v, p, _ := d.places.Admit(d.now, d.key(v4(1)), false); v == Accept {
			cost++
			d.places.Refuse(d.now, p)
			d.places.Done(p) // its SA is gone; the place stays
		}
		d.now = d.now.Add(time.Millisecond)
	}
	if cost != unprovenPerSource {
		t.Errorf("5,000 bad values in 5 seconds cost %d key exchanges, want %d", cost, unprovenPerSource)
	}
	cost = 0
	for range 5000 {
		if v, p, _ := d.places.Admit(d.now, d.key(v4(2)), true); v == Accept {
			cost++
			d.places.Refuse(d.now, p)
			d.places.Done(p)
		}
		d.now = d.now.Add(time.Millisecond)
	}
	if cost != 5+5+5 { // at 0, 2 and 4 s
		t.Errorf("with a cookie they cost %d key exchanges, want 15", cost)
	}
	d.now = d.now.Add(evictableAfter)
	d.admit("his neighbour", v4(2), true, Accept)

	key := d.key(v4(3))
	_, p, _ := d.places.Admit(d.now, key, true)
	d.places.Refuse(d.now, p)
	d.now = d.now.Add(refusedFor - 1)
	if v, _, _ := d.places.Admit(d.now, key, true); v != Ignored {
		t.Errorf("the same again: %v", v)
	}
	d.now++
	if v, _, _ := d.places.Admit(d.now, key, true); v != Accept {
		t.Errorf("the same after ten seconds: %v", v)
	}
	d.places.Done(p) // late
	if n := d.places.Taken(d.now); n != 2 {
		t.Errorf("%d places are taken, want 2", n)
	}
}

// TestCompletionsGiveTime: while a source completes handshakes its slow clients
// have more time, and no longer.
func TestCompletionsGiveTime(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 100, PerSource: 1, Max: 100})
	var held []*Place
	hold := func() {
		p, _ := d.admit("a place", v4(1), true, Accept)
		d.places.Answered(d.now, p)
		held = append(held, p)
	}
	complete := func() {
		hold()
		d.places.Completed(d.now, held[len(held)-1])
		held = held[:len(held)-1]
	}
	complete()
	hold()
	for range 2 * int(evictableWhereFlowing/time.Second) { // one after the other, the limit grows with them
		d.now = d.now.Add(flowTime / 2)
		complete()
		if d.now.Sub(held[0].since) >= evictableWhereFlowing {
			break
		}
		for len(held) < d.places.allowed(d.now, sourceOf(v4(1))) {
			hold()
		}
		d.admit("nobody is old enough", v4(1), true, SourceFull)
		d.places.Done(held[len(held)-1])
		held = held[:len(held)-1]
	}
	for len(held) < d.places.allowed(d.now, sourceOf(v4(1))) {
		hold()
	}
	if _, victim := d.admit("the first is now", v4(1), true, Accept); victim != held[0] {
		t.Error("another had to go")
	}
	d.admit("the next is not", v4(1), true, SourceFull)
	d.now = d.now.Add(flowTime)
	d.admit("it is, where nobody completes", v4(1), true, Accept)
}

// TestCompletionsAllowMore: a source whose handshakes are completed has a higher
// limit, up to a bound and for a time; others have not.
func TestCompletionsAllowMore(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 2000, PerSource: 4, Max: 2000})
	fill := func(from netip.Addr) (n int) {
		for {
			v, place, _ := d.places.Admit(d.now, d.key(from), true)
			if v != Accept {
				return n
			}
			n++
			defer d.places.Done(place)
		}
	}
	complete := func(n int) {
		for range n {
			p, _ := d.admit("a client", v4(1), true, Accept)
			d.places.Answered(d.now, p)
			d.places.Completed(d.now, p)
			d.places.Completed(d.now, p) // counts once
		}
	}
	complete(3)
	if n := fill(v4(1)); n != 7 {
		t.Errorf("after 3 completed: %d places, want 7", n)
	}
	if n := fill(v4(2)); n != 4 {
		t.Errorf("another source has %d places, want 4", n)
	}
	d.now = d.now.Add(completionTime)
	complete(2)
	if n := fill(v4(1)); n != 9 {
		t.Errorf("after 3 and 2 completed: %d places, want 9", n)
	}
	d.now = d.now.Add(completionTime)
	if n := fill(v4(1)); n != 6 {
		t.Errorf("a minute after the 2: %d places, want 6", n)
	}
	complete(1000)
	if n := fill(v4(1)); n != completionFactor*4 {
		t.Errorf("after a thousand: %d places, want %d", n, completionFactor*4)
	}
	d.places.limits.Max = 800
	if n := fill(v4(1)); n != 800/completionShare {
		t.Errorf("where there are few: %d places, want %d", n, 800/completionShare)
	}
	d.places.limits.Max = 2000
	d.now = d.now.Add(2 * completionTime)
	if n := fill(v4(1)); n != 4 {
		t.Errorf("long after: %d places, want 4", n)
	}
	complete(1)
	complete(2)
	if n := fill(v4(1)); n != 7 {
		t.Errorf("after 3 more: %d places, want 7", n)
	}
}

// beside is a source that shares the entry of another's completions.
func (d *desk) beside(s source) source {
	for other := (source{bits: 1 << 40}); ; other.bits++ {
		if d.places.completions.entry(other) == d.places.completions.entry(s) {
			return other
		}
	}
}

// TestNewcomerTakesOver: each completion of another takes one from who has the
// entry, those of the minute before first, and the next after the last has it.
func TestNewcomerTakesOver(t *testing.T) {
	for _, c := range []struct{ before, now int }{{0, 3}, {3, 0}, {2, 2}} {
		d := newDesk(t, Limits{CookiesFrom: 100, PerSource: 4, Max: 2000})
		mine := sourceOf(v4(1))
		other := d.beside(mine)
		add := func(s source, n int) {
			for range n {
				d.places.completions.add(d.now, s)
			}
		}
		want := func(what string, s source, want int) {
			t.Helper()
			if got := d.places.completions.recent(d.now, s); got != want {
				t.Errorf("%+v, %s: %d completed of late, want %d", c, what, got, want)
			}
		}
		add(mine, c.before)
		d.now = d.now.Add(completionTime)
		add(mine, c.now)
		for left := c.before + c.now; left > 0; left-- {
			want("he who has it", mine, left)
			want("the other", other, 0)
			add(other, 1)
		}
		want("when none is left", mine, 0)
		want("the other, before it is his", other, 0)
		add(other, 2)
		want("the other", other, 2)
		want("he who had it", mine, 0)
	}
}

// TestPatience: a source has more of it just after it has completed one; who
// shares its entry has not.
func TestPatience(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 100, PerSource: 4, Max: 2000})
	mine := sourceOf(v4(1))
	d.places.completions.add(d.now, mine)
	for _, c := range []struct {
		name   string
		after  time.Duration
		source source
		want   time.Duration
	}{
		{"at once", 0, mine, evictableWhereFlowing},
		{"just before it is over", flowTime - 1, mine, evictableWhereFlowing},
		{"then", flowTime, mine, evictableAfter},
		{"of the same entry", 0, d.beside(mine), evictableAfter},
		{"of another", 0, sourceOf(v4(2)), evictableAfter},
	} {
		if got := d.places.patience(d.now.Add(c.after), c.source); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestManySmallSources: one address each, completed by the ten thousand, do not
// make a carrier's NAT forgotten; and asking changes nothing.
func TestManySmallSources(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 100000, PerSource: 4, Max: 100000})
	complete := func(from netip.Addr, n int) {
		for range n {
			p, _ := d.admit("a client", from, true, Accept)
			d.places.Answered(d.now, p)
			d.places.Completed(d.now, p)
		}
	}
	complete(v4(1), 200)
	for n := range uint32(20000) {
		complete(v4(1000+n), 1)
		d.places.allowed(d.now, sourceOf(v4(100000+n)))
	}
	if n := d.places.allowed(d.now, sourceOf(v4(1))); n < 4+180 {
		t.Errorf("%d places are allowed, want nearly %d", n, 4+200)
	}
}

// TestRefusedValuesFillNothing: many sources that show cookies and send values
// that are none take all places, but not from those who have shown theirs.
func TestRefusedValuesFillNothing(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 10, PerSource: 5, Max: 50})
	for n := range uint32(50) {
		p, _ := d.admit("a bad value", v4(n), true, Accept)
		d.places.Refuse(d.now, p)
	}
	d.now = d.now.Add(2*time.Second - 1)
	d.admit("nobody is old enough", v4(1000), true, Full)
	d.now++
	for n := range uint32(50) {
		if _, victim := d.admit("with a cookie", v4(1000+n), true, Accept); victim == nil || victim.source != sourceOf(v4(n)) {
			t.Fatalf("client %d takes the place of %v", n, victim)
		}
	}
	d.admit("all are taken by others now", v4(2000), true, Full)
}

// TestDeclinedOffers: many of them are a reason for cookies, of all and of one
// source, and each holds its place for a moment only.
func TestDeclinedOffers(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 10, PerSource: 5, Max: 100})
	decline := func(from netip.Addr, proven bool) Verdict {
		v, p, _ := d.places.Admit(d.now, d.key(from), proven)
		if v == Accept {
			before := d.places.Taken(d.now)
			d.places.Decline(d.now, p)
			if after := d.places.Taken(d.now); (after < before) != proven {
				t.Errorf("with a cookie %v: %d places of %d are still taken", proven, after, before)
			}
			d.places.Done(p)
		}
		return v
	}
	got := map[Verdict]int{}
	for n := range uint32(1000) {
		got[decline(v4(n), false)]++
	}
	if got[Accept] != 10 || got[DemandCookie] != 990 {
		t.Errorf("spoofed: %v", got)
	}
	clear(got)
	for range 1000 { // a carrier's NAT whose clients all guess another group first
		got[decline(v4(5000), true)]++
	}
	if got[Accept] != 1000 {
		t.Errorf("of one source with a cookie: %v", got)
	}
	d.now = d.now.Add(declinedFor - 1)
	if n := d.places.Taken(d.now); n != 10 {
		t.Errorf("%d places are taken, want 10", n)
	}
	d.now++
	if n := d.places.Taken(d.now); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}

func TestIPv6IsCountedBySixtyFour(t *testing.T) {
	d := newDesk(t, Limits{CookiesFrom: 100, PerSource: 2, Max: 100})
	addr := netip.MustParseAddr
	d.admit("one", addr("2001:db8:0:1::1"), false, Accept)
	d.admit("two", addr("2001:db8:0:1:ffff::2"), false, Accept)
	d.admit("third of one /64", addr("2001:db8:0:1::3"), false, DemandCookie)
	d.admit("the /64 beside it", addr("2001:db8:0:2::1"), false, Accept)
	// A v6 prefix whose number is that of an IPv4 address is not its twin.
	d.admit("one", v4(1), true, Accept)
	d.admit("two", v4(1), true, Accept)
	b := v4(1).As4()
	twin := netip.AddrFrom16([16]byte(append([]byte{0, 0, 0, 0, b[0], b[1], b[2], b[3]}, make([]byte, 8)...)))
	d.admit("counted as the other", twin, true, Accept)
	if got := d.places.Largest(d.now, 9); got[0].HalfOpen != 2 || !slices.ContainsFunc(got, func(h FromSource) bool { return h.Source == "2001:db8:0:1::/64" }) {
		t.Errorf("shown as %v", got)
	}
}

// TestBalance: whatever comes and goes, what is counted is what is there, and
// nothing is left at the end.
func TestBalance(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	l := Limits{CookiesFrom: 50, PerSource: 6, Max: 80}
	d := newDesk(t, l)
	open := map[*Place]netip.Addr{}
	anyOf := func() *Place {
		for p := range open {
			return p
		}
		return nil
	}
	for range 50000 {
		d.now = d.now.Add(time.Duration(rng.IntN(100)) * time.Millisecond)
		p := anyOf()
		switch what := rng.IntN(6); {
		case what < 3 || p == nil:
			from := v4(rng.Uint32N(60))
			v, place, victim := d.places.Admit(d.now, d.key(from), rng.IntN(2) == 0)
			delete(open, victim)
			if v == Accept {
				open[place] = from
			}
		case what == 3:
			d.places.Answered(d.now, p)
		case what == 4 && p.state != refused:
			d.places.Refuse(d.now, p)
			if p.state == refused {
				delete(open, p)
			}
		default:
			d.places.Done(p)
			delete(open, p)
		}
		each := map[netip.Addr]int{}
		for _, a := range open {
			each[a]++
		}
		taken := d.places.Taken(d.now)
		if taken != len(open)+d.places.refused.Len() || taken > l.Max || len(each) > 0 && slices.Max(slices.Collect(maps.Values(each))) > l.PerSource {
			t.Fatalf("%d taken, %d open, %d refused: %v", taken, len(open), d.places.refused.Len(), each)
		}
	}
	for p := range open {
		d.places.Done(p)
	}
	if d.now = d.now.Add(refusedFor); d.places.Taken(d.now) != 0 || len(d.places.sources) != 0 || d.places.answered.Len() != 0 {
		t.Errorf("%d places and %d sources are left", d.places.Taken(d.now), len(d.places.sources))
	}
}

// TestFlood: spoofed sources fill neither memory nor the room of those who
// answer a cookie, and a thousand real sources leave room for others.
func TestFlood(t *testing.T) {
	l := Limits{}.Auto(1 << 18)
	d := newDesk(t, l)
	for n := range uint32(200000) {
		d.places.Admit(d.now, d.key(v4(n)), false)
	}
	if d.places.Taken(d.now) != l.CookiesFrom || len(d.places.sources) != l.CookiesFrom {
		t.Errorf("spoofed flood: %d half-open of %d sources, want %d", d.places.Taken(d.now), len(d.places.sources), l.CookiesFrom)
	}
	for range 100 {
		for n := range uint32(900) {
			d.places.Admit(d.now, d.key(v4(1<<20+n)), true)
		}
	}
	d.admit("an honest client during the flood", v4(1<<21), true, Accept)
	for n := range uint32(200000) {
		d.places.Admit(d.now, d.key(v4(1<<22+n)), true)
	}
	if d.places.Taken(d.now) != l.Max || len(d.places.sources) > l.Max {
		t.Errorf("proven flood: %d half-open of %d sources, want %d", d.places.Taken(d.now), len(d.places.sources), l.Max)
	}
}

func TestAuto(t *testing.T) {
	for tunnels, want := range map[int]Limits{
		1:       {32, 64, 4096},
		256:     {32, 64, 4096},
		80000:   {312, 64, 20000},
		1 << 18: {1024, 64, 65536},
		1 << 22: {4096, 64, 65536},
	} {
		if got := (Limits{}).Auto(tunnels); got != want {
			t.Errorf("for %d: %+v, want %+v", tunnels, got, want)
		}
	}
	if got := (Limits{7, 8, 9}).Auto(1 << 18); got != (Limits{7, 8, 9}) {
		t.Errorf("what is set becomes %+v", got)
	}
	for _, l := range []Limits{{Max: 10}, {CookiesFrom: 100, PerSource: 100, Max: 10}} {
		if got := l.Auto(1 << 18); got != (Limits{10, 10, 10}) {
			t.Errorf("%+v with few places: %+v", l, got)
		}
	}
	if got := (Limits{CookiesFrom: 10000, PerSource: 10000}).Auto(256); got != (Limits{4096, 4096, 4096}) {
		t.Errorf("set above what is allowed: %+v", got)
	}
}

// TestCarrierNAT is 4,000 clients behind one address with 64 places, each with
// the usual retransmissions and a round trip of half a second: all are up within
// a minute. Where newcomers evict the oldest outright, 320 are.
func TestCarrierNAT(t *testing.T) {
	const clients, trip = 4000, 500 * time.Millisecond
	d := newDesk(t, Limits{}.Auto(1<<18))
	type event struct {
		at     mono.Time
		client int
		place  *Place // IKE_AUTH of this place; nil: the first message again
	}
	var todo []event
	add := func(e event) {
		at, _ := slices.BinarySearchFunc(todo, e, func(a, b event) int { return int(a.at - b.at) })
		todo = slices.Insert(todo, at, e)
	}
	keys := make([]Key, clients)
	tries := make([]int, clients)
	up := make([]bool, clients)
	proven := make([]bool, clients)
	for i := range clients {
		keys[i] = d.key(v4(1))
		add(event{at: began.Add(time.Duration(i) * time.Second / clients), client: i})
	}
	done, last := 0, began
	for len(todo) > 0 {
		e := todo[0]
		todo, d.now = todo[1:], e.at
		switch {
		case up[e.client]:
		case e.place != nil:
			if e.place.state != free {
				d.places.Completed(d.now, e.place)
				up[e.client] = true
				done++
				last = d.now
			}
		default:
			v, place, _ := d.places.Admit(d.now, keys[e.client], proven[e.client])
			if v == DemandCookie {
				proven[e.client] = true
				add(event{at: d.now.Add(trip), client: e.client})
				continue
			}
			if v == Accept {
				d.places.Answered(d.now, place)
				add(event{at: d.now.Add(trip), client: e.client, place: place})
			}
			if n := tries[e.client]; n < 5 {
				pause := []float64{4, 7.2, 12.96, 23.3, 42}[n]
				add(event{at: d.now.Add(time.Duration(pause * float64(time.Second))), client: e.client})
			}
			tries[e.client]++
		}
	}
	if done != clients || last.Sub(began) > time.Minute {
		t.Errorf("%d of %d are up, the last after %v", done, clients, last.Sub(began))
	}
}

func BenchmarkAdmit(b *testing.B) {
	p := NewPlaces(Limits{}.Auto(1 << 18))
	n := uint32(0)
	for b.Loop() {
		n++
		v, place, _ := p.Admit(began, Key{SPI: uint64(n), Remote: netip.AddrPortFrom(v4(n), 500)}, true)
		if v != Accept {
			b.Fatal(v)
		}
		p.Answered(began, place)
		p.Done(place)
	}
}
