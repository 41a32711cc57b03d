package halfopen

import (
	"hash/maphash"
	"net/netip"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

const (
	failureEntries = 4096
	// forgetAfter is how long a failure counts after the last one.
	forgetAfter = 5 * time.Minute
	// Failures that cost nothing: a source may be a carrier's NAT with some
	// badly configured clients behind it; one identity from there is one of
	// them.
	freeOfSource = 16
	freeOfPair   = 3
	longestWait  = 16 * time.Second
)

// Failures remember who has failed to prove who he is: by source, and by source
// and claimed identity. Never by identity alone, so that nobody can lock out
// another, and only to let the next failure wait for its answer: a right AUTH
// never does. The memory is fixed; who falls out of it begins anew. It is owned
// by one goroutine.
type Failures struct {
	seed    maphash.Seed
	sources [failureEntries]failure
	pairs   [failureEntries]failure
}

type failure struct {
	who   uint64 // hash
	count int
	last  mono.Time
}

// NewFailures knows of none.
func NewFailures() *Failures { return &Failures{seed: maphash.MakeSeed()} }

// pair is an identity claimed by a source.
type pair struct {
	source  source
	claimed string
}

// Failed counts a failure, and tells how long its answer is to wait.
func (f *Failures) Failed(now mono.Time, from netip.Addr, claimed string) time.Duration {
	s := sourceOf(from)
	return max(wait(count(now, &f.sources, maphash.Comparable(f.seed, s))-freeOfSource),
		wait(count(now, &f.pairs, maphash.Comparable(f.seed, pair{s, claimed}))-freeOfPair))
}

// Proved forgets the failures of an identity that has been proved from there.
func (f *Failures) Proved(from netip.Addr, proved string) {
	who := maphash.Comparable(f.seed, pair{sourceOf(from), proved})
	if e := &f.pairs[who%failureEntries]; e.who == who {
		*e = failure{}
	}
}

func count(now mono.Time, table *[failureEntries]failure, who uint64) int {
	e := &table[who%failureEntries]
	if e.who != who || now.Sub(e.last) >= forgetAfter {
		*e = failure{who: who}
	}
	e.count++
	e.last = now
	return e.count
}

// wait doubles with each failure that is not free.
func wait(n int) time.Duration {
	if n < 1 {
		return 0
	}
	return min(time.Second<<min(n-1, 10), longestWait)
}
