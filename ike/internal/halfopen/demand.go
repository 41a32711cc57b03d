package halfopen

import (
	"hash/maphash"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

const (
	// demandTime is how long cookies are demanded after the last cause. A
	// client that was asked sends its request again with the cookie; the one
	// without may still be on its way, and is not to be taken for a new one.
	demandTime = 10 * time.Second
	// demandBuckets is fixed, so that no number of sources takes memory. Two
	// sources in one bucket cost each other a round trip.
	demandBuckets = 4096
)

// demand remembers from whom a cookie is wanted, and until when.
type demand struct {
	seed    maphash.Seed
	all     mono.Time
	buckets [demandBuckets]mono.Time
}

func newDemand() demand { return demand{seed: maphash.MakeSeed()} }

func (d *demand) bucket(s source) *mono.Time {
	return &d.buckets[maphash.Comparable(d.seed, s)%demandBuckets]
}

func (d *demand) ofAll(now mono.Time) { d.all = now.Add(demandTime) }

func (d *demand) of(now mono.Time, s source) { *d.bucket(s) = now.Add(demandTime) }

// on reports whether a source must show a cookie.
func (d *demand) on(now mono.Time, s source) bool { return now < d.all || now < *d.bucket(s) }
