package halfopen

import (
	"cmp"
	"container/list"
	"hash/maphash"
	"net/netip"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// Limits are counts of half-open SAs. They take nothing away from tunnels that
// are up.
type Limits struct {
	CookiesFrom int // from here on everybody must show a cookie; at most Max
	PerSource   int // never more than this of one source that completes none
	Max         int // nor of all
}

// Auto is what suits a gateway that holds so many tunnels at most; a value that
// is set stays, as far as Max allows.
func (l Limits) Auto(tunnels int) Limits {
	if l.Max == 0 {
		l.Max = min(max(tunnels/4, 4096), 65536)
	}
	if l.CookiesFrom == 0 {
		// Few enough that a small gateway is not worked to death unproven, and
		// enough that the clients of one minute are not asked.
		l.CookiesFrom = min(max(tunnels/256, 32), 4096)
	}
	if l.PerSource == 0 {
		l.PerSource = DefaultPerSource
	}
	l.CookiesFrom, l.PerSource = min(l.CookiesFrom, l.Max), min(l.PerSource, l.Max)
	return l
}

// DefaultPerSource is enough for a household or an office that comes back at
// once. Many addresses that answer cookies and complete nothing fill Max with
// it, but not one.
const DefaultPerSource = 64

const (
	// unprovenPerSource is how many a source may have without a cookie: a
	// household that comes back at once.
	unprovenPerSource = 3
	// evictableAfter is how long somebody who was answered has time for his
	// IKE_AUTH. Without it, newcomers and those whom they evict would take
	// turns for ever, and nobody would complete.
	evictableAfter = 2 * time.Second
	// evictableWhereFlowing is the same while handshakes of that source are
	// being completed: its clients may be slow, or an IKE_AUTH lost and sent
	// again after 4 s, and who waits has a place soon. Once none is completed,
	// because somebody there has taken the places for nothing, it does not hold.
	evictableWhereFlowing = 10 * time.Second
	// refusedFor is how long a refused public value keeps its place, so that
	// bad values cannot be tried one after the other.
	refusedFor = 10 * time.Second
	// declinedFor is how long an offer that cannot be taken keeps its place, or
	// one whose group is not ours, if it came without a cookie. That costs no
	// key exchange, but more than a cookie: many of them are a reason for one.
	declinedFor = time.Second
	// completionFactor is how many times PerSource a source may come to have,
	// and Max/completionShare is the most.
	completionFactor = 64
	completionShare  = 4
)

// Key names a first message: where it came from and what it says but for its
// cookie.
type Key struct {
	SPI    uint64
	Remote netip.AddrPort
	Digest uint64
}

// Verdict is what to do with a first message.
type Verdict uint8

const (
	Accept       Verdict = iota // it has a place, to be given back by Done
	Known                       // it has a place already: it is a retransmission
	Ignored                     // so it has, and there is nothing to say to it now
	DemandCookie                // answer with a cookie and keep nothing
	SourceFull                  // no answer: its source has all the places that it may have
	Full                        // no answer: all places are taken
)

func (v Verdict) String() string {
	return [...]string{"accept", "known", "ignored", "demand_cookie", "source_full", "full"}[v]
}

// Place is that of one half-open SA.
type Place struct {
	key    Key
	source source
	state  placeState
	proven bool          // a cookie has been shown
	asked  bool          // a retransmission is on its way to the SA
	since  mono.Time     // of its answer, or refusal
	inAll  *list.Element // in answered, refused or declined
	inOwn  *list.Element // in its source's idle
}

type placeState uint8

const (
	waiting  placeState = iota // for its answer
	answered                   // its peer has time for IKE_AUTH
	refused                    // its SA is gone, and it is kept for a time
	free
)

// Key is the first message's.
func (p *Place) Key() Key { return p.key }

// Places are the half-open SAs of a gateway, from the first message to a valid
// IKE_AUTH. They have at most Max entries. They are owned by one goroutine, or
// stand behind one lock.
type Places struct {
	limits      Limits
	demand      demand
	completions completions
	byKey       map[Key]*Place
	sources     map[source]*perSource
	answered    list.List // of *Place, the longest answered first
	refused     list.List // of *Place, the longest refused first
	declined    list.List // likewise
	limited     limited
}

// perSource is what one source has.
type perSource struct {
	places int
	idle   list.List // of *Place, answered or refused, the longest first
}

// NewPlaces returns places that are all free.
func NewPlaces(l Limits) *Places {
	return &Places{limits: l, demand: newDemand(), completions: completions{seed: maphash.MakeSeed()},
		byKey: map[Key]*Place{}, sources: map[source]*perSource{}}
}

// Limits are those that hold.
func (p *Places) Limits() Limits { return p.limits }

// Admit decides over a first message; proven says that it bears a valid cookie.
// What it accepts has a place, for which another may have had to go: the SA of
// the victim is to be dropped. A Known one is to be followed by Repeated when
// its SA has seen it.
func (p *Places) Admit(now mono.Time, key Key, proven bool) (v Verdict, place, victim *Place) {
	p.expire(now)
	from := sourceOf(key.Remote.Addr())
	if old := p.byKey[key]; old != nil {
		return p.again(now, old, proven), old, nil
	}
	if !proven && p.wantsCookie(now, from) {
		return DemandCookie, nil, nil
	}
	// Whoever would need another's place has shown a cookie: both limits are
	// above those from which it is demanded.
	have := p.sources[from]
	if have != nil && have.places >= p.allowed(now, from) {
		if victim = oldest(now, &have.idle, p.patience(now, from)); victim == nil {
			p.limited.turnAway(now, from)
			return SourceFull, nil, nil
		}
	} else if len(p.byKey) >= p.limits.Max {
		if victim = p.oldestOfAll(now); victim == nil {
			return Full, nil, nil
		}
	}
	if victim != nil {
		p.remove(victim)
	}
	return Accept, p.add(key, from, proven), victim
}

// again is a retransmission. Where cookies are demanded, the sender of one whose
// SA still waits for its answer is asked for his: with it he comes before those
// who have shown none.
func (p *Places) again(now mono.Time, place *Place, proven bool) Verdict {
	switch {
	case place.state == refused:
		return Ignored
	case place.state == waiting && !place.proven && !proven && p.demand.on(now, place.source):
		p.demand.of(now, place.source)
		return DemandCookie
	case place.asked:
		return Ignored
	}
	place.proven = place.proven || proven
	place.asked = true
	return Known
}

// Repeated tells that the SA has seen its retransmission.
func (p *Places) Repeated(place *Place) { place.asked = false }

// wantsCookie reports whether somebody who shows none is to be asked for one,
// and keeps in mind why. That he has been asked is a reason, too: his message
// without one may still be on its way.
func (p *Places) wantsCookie(now mono.Time, from source) bool {
	if len(p.byKey) >= p.limits.CookiesFrom {
		p.demand.ofAll(now)
	}
	have := p.sources[from]
	if p.demand.on(now, from) || have != nil && have.places >= min(unprovenPerSource, p.limits.PerSource) {
		p.demand.of(now, from)
		return true
	}
	return false
}

// Press demands cookies of everybody for a time: there is more to do than can
// be done at once.
func (p *Places) Press(now mono.Time) { p.demand.ofAll(now) }

// Pressed reports whether everybody is asked for a cookie.
func (p *Places) Pressed(now mono.Time) bool { return now < p.demand.all }

// allowed is how many places a source may have. Each handshake that it has
// completed of late allows one more, so that those behind a carrier's NAT get
// in as fast as they complete; whoever completes none has what is configured.
func (p *Places) allowed(now mono.Time, from source) int {
	grown := min(p.limits.PerSource+p.completions.recent(now, from), completionFactor*p.limits.PerSource,
		p.limits.Max/completionShare)
	return max(p.limits.PerSource, grown)
}

// patience is how long those of a source may be idle where others wait.
func (p *Places) patience(now mono.Time, from source) time.Duration {
	if p.completions.flowing(now, from) {
		return evictableWhereFlowing
	}
	return evictableAfter
}

// oldestOfAll is one that was refused before one that may still come back.
func (p *Places) oldestOfAll(now mono.Time) *Place {
	if victim := oldest(now, &p.refused, evictableAfter); victim != nil {
		return victim
	}
	return oldest(now, &p.answered, evictableAfter)
}

// oldest is the one that has been idle for longest, if that is so long.
func oldest(now mono.Time, idle *list.List, long time.Duration) *Place {
	if e := idle.Front(); e != nil {
		if place := e.Value.(*Place); now.Sub(place.since) >= long {
			return place
		}
	}
	return nil
}

func (p *Places) add(key Key, from source, proven bool) *Place {
	place := &Place{key: key, source: from, proven: proven}
	p.byKey[key] = place
	have := p.sources[from]
	if have == nil {
		have = &perSource{}
		p.sources[from] = have
	}
	have.places++
	return place
}

// Answered tells that the first message has its answer.
func (p *Places) Answered(now mono.Time, place *Place) { p.rest(now, place, answered, &p.answered) }

// Refuse tells that the public value of a first message is none. Its SA goes;
// the place stays taken for a time.
func (p *Places) Refuse(now mono.Time, place *Place) { p.rest(now, place, refused, &p.refused) }

// Decline tells that a first message is answered with a refusal. Its SA goes; the
// place of somebody who has shown no cookie stays taken for a moment.
func (p *Places) Decline(now mono.Time, place *Place) {
	if place.proven {
		p.Done(place)
		return
	}
	p.rest(now, place, refused, &p.declined)
}

func (p *Places) rest(now mono.Time, place *Place, state placeState, among *list.List) {
	if place.state != waiting {
		return
	}
	place.state, place.since = state, now
	place.inAll = among.PushBack(place)
	place.inOwn = p.sources[place.source].idle.PushBack(place)
}

// Completed gives back the place of somebody who has proved who he is.
func (p *Places) Completed(now mono.Time, place *Place) {
	if place.state == answered {
		p.completions.add(now, place.source)
	}
	p.Done(place)
}

// Done gives a place back, since its SA is gone. A second Done does nothing, nor
// does one of a place that is kept for a refusal.
func (p *Places) Done(place *Place) {
	if place.state == waiting || place.state == answered {
		p.remove(place)
	}
}

func (p *Places) remove(place *Place) {
	have := p.sources[place.source]
	if place.inAll != nil {
		p.answered.Remove(place.inAll) // a list leaves alone what is another's
		p.refused.Remove(place.inAll)
		p.declined.Remove(place.inAll)
		have.idle.Remove(place.inOwn)
	}
	place.state = free
	delete(p.byKey, place.key)
	if have.places--; have.places == 0 {
		delete(p.sources, place.source)
	}
}

// expire gives back what was kept for a refusal.
func (p *Places) expire(now mono.Time) {
	for place := oldest(now, &p.refused, refusedFor); place != nil; place = oldest(now, &p.refused, refusedFor) {
		p.remove(place)
	}
	for place := oldest(now, &p.declined, declinedFor); place != nil; place = oldest(now, &p.declined, declinedFor) {
		p.remove(place)
	}
}

// Taken is the number of places that are taken.
func (p *Places) Taken(now mono.Time) int {
	p.expire(now)
	return len(p.byKey)
}

// Calls reports whether somebody at an address has a place.
func (p *Places) Calls(from netip.Addr) bool { return p.sources[sourceOf(from)] != nil }

// FromSource is what one source has, as it is shown.
type FromSource struct {
	Source     string `json:"source"` // an IPv4 address, or an IPv6 /64
	HalfOpen   int    `json:"half_open"`
	Allowed    int    `json:"allowed"`     // half_open.per_source, and one for each that it has completed of late
	TurnedAway uint64 `json:"turned_away"` // first messages beyond that, in the last minutes
}

// Largest are the sources that were turned away of late, the most often first,
// and then those that have most, n in all.
func (p *Places) Largest(now mono.Time, n int) []FromSource {
	p.limited.forget(now)
	shown := make([]FromSource, 0, n)
	show := func(s source, turnedAway uint64) {
		f := FromSource{Source: s.String(), Allowed: p.allowed(now, s), TurnedAway: turnedAway}
		if have := p.sources[s]; have != nil {
			f.HalfOpen = have.places
		}
		shown = append(shown, f)
	}
	often := slices.SortedFunc(slices.Values(p.limited), func(a, b limitedSource) int { return cmp.Compare(b.times, a.times) })
	for _, l := range often[:min(len(often), n)] {
		show(l.source, l.times)
	}
	for _, s := range p.most(n - len(shown)) {
		show(s, 0)
	}
	return shown
}

// most are the n sources that have most places and were not turned away.
func (p *Places) most(n int) (largest []source) {
	more := func(a, b source) int { return cmp.Compare(p.sources[b].places, p.sources[a].places) }
	for s := range p.sources {
		if n == 0 || len(largest) == n && more(largest[n-1], s) <= 0 ||
			slices.ContainsFunc(p.limited, func(l limitedSource) bool { return l.source == s }) {
			continue
		}
		at, _ := slices.BinarySearchFunc(largest, s, more)
		largest = slices.Insert(largest, at, s)
		largest = largest[:min(len(largest), n)]
	}
	return largest
}
