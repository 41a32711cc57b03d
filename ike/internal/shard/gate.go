package shard

import (
	"net/netip"
	"sync"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
)

// gate is what strangers are measured by, over all shards: a limit split among
// shards would be another for each number of them. It is behind a lock and not
// a message away, because a first message is judged by whoever has read it, and
// is to leave nothing behind that could wait for an answer; the lock is held
// for some 100 ns.
type gate struct {
	cookies *halfopen.Cookies // needs no lock
	surges  surges

	mu       sync.Mutex
	places   *halfopen.Places
	failures *halfopen.Failures
	replies  *halfopen.Replies
}

func (g *gate) admit(now mono.Time, key halfopen.Key, proven bool) (halfopen.Verdict, *halfopen.Place, *halfopen.Place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	verdict, place, victim := g.places.Admit(now, key, proven)
	g.surges.see(now, g.places)
	return verdict, place, victim
}

// press tells that there is more to do than can be done at once.
func (g *gate) press(now mono.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.places.Press(now)
	g.surges.see(now, g.places)
}

func (g *gate) answered(now mono.Time, place *halfopen.Place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.places.Answered(now, place)
}

func (g *gate) decline(now mono.Time, place *halfopen.Place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.places.Decline(now, place)
}

func (g *gate) refuse(now mono.Time, place *halfopen.Place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.places.Refuse(now, place)
}

func (g *gate) done(place *halfopen.Place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.places.Done(place)
}

// repeated tells that an SA has seen its first message again.
func (g *gate) repeated(place *halfopen.Place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.places.Repeated(place)
}

// completed tells that the peer of a first message has proved to be id.
func (g *gate) completed(now mono.Time, place *halfopen.Place, id policy.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.places.Completed(now, place)
	g.failures.Proved(place.Key().Remote.Addr(), id.String())
}

func (g *gate) failed(now mono.Time, from netip.Addr, claimed policy.ID) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failures.Failed(now, from, claimed.String())
}

// calls reports whether somebody at an address is calling us.
func (g *gate) calls(from netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.places.Calls(from)
}

func (g *gate) mayAnswer(now mono.Time, to netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.replies.Allow(now, to)
}
