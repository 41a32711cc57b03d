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
	CookiesFrom int // from here on everybody must show a cookie
	PerSource   int // never more than this of one source that finishes none
	Max         int // nor of all
}

// Auto is what suits a gateway that holds so many tunnels at most; a value that
// is set stays.
func (l Limits) Auto(tunnels int) Limits {
	orElse := func(set, auto int) int {
		if set != 0 {
			return set
		}
		return auto
	}
	l.Max = orElse(l.Max, min(max(tunnels/4, 4096), 65536))
	// Few enough that a small gateway is not worked to death unproven, and
	// enough that the clients of one minute are not asked.
	l.CookiesFrom = orElse(l.CookiesFrom, min(max(tunnels/256, 32), 4096, l.Max))
	l.PerSource = orElse(l.PerSource, min(DefaultPerSource, l.Max))
	return l
}

// DefaultPerSource lets a carrier's NAT have as many clients in the middle of
// their handshake, and stops a thousand addresses that all answer cookies short
// of Max.
const DefaultPerSource = 64

const (
	// unprovenPerSource is how many a source may have without a cookie: a
	// household that comes back at once.
	unprovenPerSource = 3
	// evictableAfter is how long somebody who was answered has time for his
	// IKE_AUTH. Without it, newcomers and those whom they evict would take
	// turns for ever, and nobody would finish.
	evictableAfter = 2 * time.Second
	// finisherGrace is the same for those of a source whose handshakes are
	// finished: their IKE_AUTH may be lost, and is sent again after 4 s. Places
	// become free there without it.
	finisherGrace = 10 * time.Second
	// finisherFactor is how many times the limit of one source its limit grows
	// to, if its handshakes are finished: a carrier's NAT.
	finisherFactor = 64
	// refusedFor is how long a refused public value keeps its place, so that
	// bad values cannot be tried one after the other.
	refusedFor = 10 * time.Second
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
	Refused                     // it has been refused already: no answer
	DemandCookie                // answer with a cookie and keep nothing
	SourceFull                  // no answer: its source has all the places that one may have
	Full                        // no answer: all places are taken
)

func (v Verdict) String() string {
	return [...]string{"accept", "known", "refused", "demand_cookie", "source_full", "full"}[v]
}

// Place is that of one half-open SA.
type Place struct {
	key    Key
	source source
	since  mono.Time     // of its answer; of its refusal
	inAll  *list.Element // in answered or refused; nil: neither
	inOwn  *list.Element // among the answered of its source
	gone   bool
}

// Key is the first message's.
func (p *Place) Key() Key { return p.key }

func (p *Place) refused() bool { return p.inAll != nil && p.inOwn == nil }

// Places are the half-open SAs of a gateway, from the first message to a valid
// IKE_AUTH. They have at most Max entries. They are owned by one goroutine, or
// stand behind one lock.
type Places struct {
	limits    Limits
	demand    demand
	finishers finishers
	byKey     map[Key]*Place
	sources   map[source]*household
	answered  list.List // of *Place, the longest answered first
	refused   list.List // of *Place, the longest refused first
}

// household is what one source has.
type household struct {
	places     int
	answered   list.List // of *Place, the longest answered first
	turnedAway uint64
}

// NewPlaces returns places that are all free.
func NewPlaces(l Limits) *Places {
	return &Places{limits: l, demand: newDemand(), finishers: finishers{seed: maphash.MakeSeed()}, byKey: map[Key]*Place{}, sources: map[source]*household{}}
}

// Limits are those that hold.
func (p *Places) Limits() Limits { return p.limits }

// Admit decides over a first message; proven says that it bears a valid cookie.
// What it accepts has a place, for which another may have had to go: the SA of
// the victim is to be dropped.
func (p *Places) Admit(now mono.Time, key Key, proven bool) (v Verdict, place, victim *Place) {
	p.expire(now)
	if old := p.byKey[key]; old != nil {
		if old.refused() {
			return Refused, nil, nil
		}
		return Known, nil, nil
	}
	from := sourceOf(key.Remote.Addr())
	if !proven && p.wantsCookie(now, from) {
		return DemandCookie, nil, nil
	}
	home := p.sources[from]
	if home != nil && home.places >= p.allowed(now, from) {
		if victim = oldest(now, &home.answered, p.grace(now, from)); victim == nil || !proven {
			home.turnedAway++
			return SourceFull, nil, nil
		}
	} else if len(p.byKey) >= p.limits.Max {
		if victim = oldest(now, &p.answered, evictableAfter); victim == nil || !proven {
			return Full, nil, nil
		}
	}
	if victim != nil {
		p.Done(victim)
	}
	return Accept, p.add(key, from), victim
}

// allowed is how many places a source may have. Each handshake that it has
// finished of late allows one more, so that those behind a carrier's NAT get in
// as fast as they finish; whoever finishes none has what is configured.
func (p *Places) allowed(now mono.Time, from source) int {
	return min(p.limits.PerSource+p.finishers.lately(now, from), finisherFactor*p.limits.PerSource)
}

// wantsCookie reports whether somebody who shows none is to be asked for one,
// and keeps in mind why.
func (p *Places) wantsCookie(now mono.Time, from source) bool {
	if len(p.byKey) >= p.limits.CookiesFrom {
		p.demand.ofAll(now)
	}
	if home := p.sources[from]; home != nil && home.places >= min(unprovenPerSource, p.limits.PerSource) {
		p.demand.of(now, from)
	}
	return p.demand.on(now, from)
}

// Press demands cookies of everybody for a time: there is more to do than can
// be done at once.
func (p *Places) Press(now mono.Time) { p.demand.ofAll(now) }

// Pressed reports whether everybody is asked for a cookie.
func (p *Places) Pressed(now mono.Time) bool { return now < p.demand.all }

func (p *Places) grace(now mono.Time, from source) time.Duration {
	if p.finishers.lately(now, from) > 0 {
		return finisherGrace
	}
	return evictableAfter
}

// oldest is the one that was answered longest ago, at least so long, and has not
// come back.
func oldest(now mono.Time, answered *list.List, ago time.Duration) *Place {
	if e := answered.Front(); e != nil {
		if place := e.Value.(*Place); now.Sub(place.since) >= ago {
			return place
		}
	}
	return nil
}

func (p *Places) add(key Key, from source) *Place {
	place := &Place{key: key, source: from}
	p.byKey[key] = place
	home := p.sources[from]
	if home == nil {
		home = &household{}
		p.sources[from] = home
	}
	home.places++
	return place
}

// Answered tells that the first message has its answer.
func (p *Places) Answered(now mono.Time, place *Place) {
	if place.gone || place.inAll != nil {
		return
	}
	place.since = now
	place.inAll = p.answered.PushBack(place)
	place.inOwn = p.sources[place.source].answered.PushBack(place)
}

// Refuse tells that the public value of a first message is none. Its SA goes;
// the place stays taken for a time.
func (p *Places) Refuse(now mono.Time, place *Place) {
	if place.gone || place.inAll != nil {
		return
	}
	place.since = now
	place.inAll = p.refused.PushBack(place)
}

// Finished gives back the place of somebody who has proved who he is.
func (p *Places) Finished(now mono.Time, place *Place) {
	if !place.gone {
		p.finishers.finished(now, place.source)
	}
	p.Done(place)
}

// Done gives a place back, since its SA is gone. A second Done does nothing, nor
// does one of a place that is kept for a refusal.
func (p *Places) Done(place *Place) {
	if place.gone || place.refused() {
		return
	}
	if place.inAll != nil {
		p.answered.Remove(place.inAll)
		p.sources[place.source].answered.Remove(place.inOwn)
	}
	p.remove(place)
}

func (p *Places) remove(place *Place) {
	place.gone = true
	delete(p.byKey, place.key)
	home := p.sources[place.source]
	if home.places--; home.places == 0 {
		delete(p.sources, place.source)
	}
}

// expire gives back what was kept for a refusal.
func (p *Places) expire(now mono.Time) {
	for e := p.refused.Front(); e != nil && now.Sub(e.Value.(*Place).since) >= refusedFor; e = p.refused.Front() {
		p.remove(p.refused.Remove(e).(*Place))
	}
}

// Taken is the number of places that are taken.
func (p *Places) Taken(now mono.Time) int {
	p.expire(now)
	return len(p.byKey)
}

// Household is what one source has, as it is shown.
type Household struct {
	Source     string `json:"source"` // an IPv4 address, or an IPv6 /64
	HalfOpen   int    `json:"half_open"`
	Allowed    int    `json:"allowed"`     // half-open at the same time: half_open.per_source, and one for each it has finished of late
	TurnedAway uint64 `json:"turned_away"` // first messages beyond the limit of one source
}

// Largest are the n sources that have most, those first that were turned away.
func (p *Places) Largest(now mono.Time, n int) []Household {
	var largest []source
	for s := range p.sources {
		at, _ := slices.BinarySearchFunc(largest, s, func(a, b source) int {
			x, y := p.sources[a], p.sources[b]
			return cmp.Or(cmp.Compare(y.turnedAway, x.turnedAway), cmp.Compare(y.places, x.places), -1)
		})
		if at < n {
			largest = slices.Insert(largest, at, s)
			largest = largest[:min(len(largest), n)]
		}
	}
	all := make([]Household, len(largest))
	for i, s := range largest {
		home := p.sources[s]
		all[i] = Household{s.String(), home.places, p.allowed(now, s), home.turnedAway}
	}
	return all
}
