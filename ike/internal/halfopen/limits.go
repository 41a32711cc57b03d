package halfopen

import (
	"encoding/binary"
	"net/netip"
)

// Verdict is what to do with an IKE_SA_INIT request.
type Verdict uint8

const (
	Accept       Verdict = iota // go on; counted until Done
	DemandCookie                // answer with a cookie and keep nothing
	Drop                        // no answer: cookies do not help any more
)

func (v Verdict) String() string {
	return [...]string{"accept", "demand_cookie", "drop"}[v]
}

// Thresholds are counts of half-open SAs.
type Thresholds struct {
	Cookie       int // above it everybody must show a cookie
	CookiePrefix int // above it within one source prefix, that prefix must
	Max          int // never more than this, cookie or not
	MaxPrefix    int // nor more than this in one source prefix
}

// Defaults leaves a thousand clients and each household alone, and stops a
// thousand addresses that all answer cookies short of Max, so that others still
// get in.
var Defaults = Thresholds{Cookie: 1000, CookiePrefix: 3, Max: 50000, MaxPrefix: 32}

// Limits counts half-open SAs by source prefix, /32 for IPv4 and /64 for IPv6.
// It has at most Max entries, as an entry is there only while its prefix has
// half-open SAs. It is owned by one goroutine.
type Limits struct {
	thresholds Thresholds
	total      int
	prefixes   map[source]int32
}

// NewLimits returns limits with nothing counted.
func NewLimits(t Thresholds) *Limits {
	return &Limits{thresholds: t, prefixes: map[source]int32{}}
}

// Admit decides over a request that would make a new half-open SA; proven says
// that it carries a valid cookie. What it accepts must be given back by
// exactly one Done, when the SA is established or gone.
func (l *Limits) Admit(remote netip.Addr, proven bool) Verdict {
	from := sourceOf(remote)
	here := int(l.prefixes[from])
	switch t := l.thresholds; {
	case !proven && (l.total >= t.Cookie || here >= t.CookiePrefix):
		return DemandCookie
	case l.total >= t.Max || here >= t.MaxPrefix:
		return Drop
	}
	l.total++
	l.prefixes[from]++
	return Accept
}

// Done ends what Admit accepted.
func (l *Limits) Done(remote netip.Addr) {
	from := sourceOf(remote)
	switch l.prefixes[from] {
	case 0:
		return
	case 1:
		delete(l.prefixes, from)
	default:
		l.prefixes[from]--
	}
	l.total--
}

// Total is the number of half-open SAs.
func (l *Limits) Total() int { return l.total }

// source is whom a limit counts as one: an IPv4 address, or the /64 of an IPv6
// one, since that is what one host can choose from.
type source struct {
	bits uint64
	v6   bool
}

func sourceOf(a netip.Addr) source {
	b := a.As16()
	if a.Is4() || a.Is4In6() {
		return source{bits: uint64(binary.BigEndian.Uint32(b[12:]))}
	}
	return source{bits: binary.BigEndian.Uint64(b[:]), v6: true}
}
