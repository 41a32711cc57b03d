// Package shard owns the gateway's SAs: event loops that feed them packets,
// commands and time, and carry out what they ask for through the edges that
// the package declares.
//
// A [Group] has a number of shards, each one goroutine with its own SAs. Our
// IKE SPIs carry the index of their shard in the highest byte, our inbound ESP
// SPIs are told apart by a function that the owner of the slots gives, and an
// IKE_SA_INIT request goes by a keyed hash. So any socket may receive anything:
// its reader puts each datagram into the inbox of its owner. Beside the shards
// run a registrar, which owns identities and their leases, and workers for key
// exchanges. They all talk by messages, and none waits for another.
package shard

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/directory"
	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

// Config is what a Group is made of. It is not written after NewGroup.
type Config struct {
	Edges  Edges
	Policy *policy.Set
	Pools  []directory.Pool
	// Listen are our addresses; a tunnel that we begin comes from the first
	// of its peer's family.
	Listen            []netip.Addr
	IKEPort, NATTPort uint16
	ForceEncap        bool
	HalfOpen          time.Duration
	Limits            halfopen.Limits
	Shards            int
	MaxSAs            int // over all shards, half-open ones apart
	Workers           int
	JobBytes          int // of key exchanges that may wait, with what waits for them
	// Rand is safe for concurrent use and never fails.
	Rand io.Reader
	// Clock reads CLOCK_BOOTTIME, After is time.After; both are arguments for
	// the sake of tests.
	Clock func() mono.Time
	After func(time.Duration) <-chan time.Time
	// Sink takes events. Every shard calls it, and it must not block.
	Sink func(Event)
	// Surge is told of surges, by one goroutine. It must not block.
	Surge func(Surge)
}

// Group is all shards and what serves them.
type Group struct {
	conf      Config
	seed      maphash.Seed
	shards    []*Shard
	registrar *registrar
	workers   *workers
	lookups   *lookups
	gate      gate
	absent    atomic.Pointer[[]netip.Addr] // of our addresses; nil: none

	carriers      map[*policy.Connection]*atomic.Int32 // tunnels that are up; the map itself stays as it is
	total         atomic.Int64                         // tunnels' places that are taken
	undeliverable atomic.Uint64                        // datagrams for no shard
	tally         tally                                // of what is judged where it is read
	done          chan struct{}                        // closed when Run returns
}

// NewGroup makes a group, whose Run is to be called once.
func NewGroup(c Config) (*Group, error) {
	if c.Shards < 1 || c.Shards > MaxShards {
		return nil, errors.New("the number of shards must be from 1 to 256")
	}
	cookies, err := halfopen.NewCookies(c.Rand)
	if err != nil {
		return nil, err
	}
	g := &Group{conf: c, carriers: map[*policy.Connection]*atomic.Int32{}, seed: maphash.MakeSeed(), done: make(chan struct{}), workers: newWorkers(c.JobBytes, c.Rand, c.Clock)}
	g.gate.cookies, g.gate.surges.began, g.gate.surges.read = cookies, make(chan struct{}, 1), &g.tally
	g.gate.places, g.gate.failures = halfopen.NewPlaces(c.Limits), halfopen.NewFailures()
	g.gate.replies = halfopen.NewReplies(halfopen.RepliesPerSecond)
	who, err := directory.New(c.Pools)
	if err != nil {
		return nil, err
	}
	g.registrar = &registrar{wake: make(chan struct{}, 1), clock: c.Clock, tell: g.order, directory: who}
	for _, conn := range c.Policy.Connections {
		g.carriers[conn] = new(atomic.Int32)
	}
	g.lookups = newLookups(&g.conf)
	g.shards = make([]*Shard, c.Shards)
	for i := range g.shards {
		g.shards[i] = newShard(g, i)
	}
	return g, nil
}

// Run runs the loops until ctx ends and all SAs have been deleted, which takes
// five seconds at most. It returns when everything that it started has ended.
func (g *Group) Run(ctx context.Context) {
	defer close(g.done)
	served, stopServing := context.WithCancel(context.Background())
	var servants, loops sync.WaitGroup
	// The servants end when the last shard has.
	servants.Go(func() { g.registrar.run(served) })
	servants.Go(func() { g.watch(served) })
	for range g.conf.Workers {
		servants.Go(func() { g.workers.run(served) })
	}
	for range g.lookups.most() {
		servants.Go(func() { g.lookups.run(served) })
	}
	for _, s := range g.shards {
		loops.Go(s.run) // ends after beginClosing
	}
	<-ctx.Done()
	for _, s := range g.shards {
		s.ending.Store(true)
		s.rouse()
	}
	loops.Wait()
	stopServing()
	servants.Wait()
}

// reserve takes a tunnel's place, if there is one.
func (g *Group) reserve() bool {
	if g.total.Add(1) > int64(g.conf.MaxSAs) {
		g.total.Add(-1)
		return false
	}
	return true
}

// owner is the shard that calls a connection's peer.
func (g *Group) owner(c *policy.Connection) *Shard { return g.shards[g.ownerIndex(c)] }

func (g *Group) ownerIndex(c *policy.Connection) int {
	return int(maphash.String(g.seed, c.Name) % uint64(len(g.shards)))
}

// carried reports whether a connection has a tunnel that is up, whoever called.
func (g *Group) carried(c *policy.Connection) bool { return g.carriers[c].Load() > 0 }

// call has a connection's owner bring it up; wait may be nil.
func (g *Group) call(c *policy.Connection, wait chan<- error) bool {
	s := g.owner(c)
	return s.offer(func(now mono.Time) { s.dialers.call(now, c, wait) })
}

// Errors of Group's methods.
var (
	ErrUnknown = errors.New("no such connection")
	ErrBusy    = errors.New("too much to do")
	ErrStopped = errors.New("the gateway has stopped")
)

// Initiate brings a connection's tunnel up, and waits until it is, or has
// failed. It does nothing where we have one up.
func (g *Group) Initiate(ctx context.Context, name string) error {
	conn := g.conf.Policy.ByName(name)
	if conn == nil {
		return ErrUnknown
	}
	wait := make(chan error, 1)
	if !g.call(conn, wait) {
		return ErrBusy
	}
	select {
	case err := <-wait:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-g.done:
		return ErrStopped
	}
}

// Terminate deletes the SAs that match, and tells how many they are, with the
// connections that were to be called again. The exchanges that this takes may
// last longer.
func (g *Group) Terminate(ctx context.Context, match Match) (int, error) {
	idle := 0
	for _, s := range g.shards {
		n, err := ask(ctx, s, func(mono.Time) int { return s.dialers.terminate(match) })
		idle += n
		if err != nil {
			return idle, err
		}
	}
	n, err := g.each(ctx, match, func(s *Shard, now mono.Time, e *entry) {
		switch c := e.sa.Conn(); {
		case e.dial != nil:
			s.dialers.terminated(e.dial)
		case c != nil && exact(c): // else it is not whom we call
			owner := g.owner(c)
			owner.post(func(mono.Time) { owner.dialers.terminated(owner.dialers.of(c)) })
		}
		s.do(now, e, sa.Terminate{})
	})
	return idle + n, err
}

// Probe asks the peers of the SAs that match for a sign of life.
func (g *Group) Probe(ctx context.Context, match Match) (int, error) {
	return g.each(ctx, match, func(s *Shard, now mono.Time, e *entry) { s.do(now, e, sa.Probe{}) })
}

// each has every shard do something to its SAs that match.
func (g *Group) each(ctx context.Context, match Match, do func(*Shard, mono.Time, *entry)) (int, error) {
	total := 0
	for _, s := range g.shards {
		n, err := ask(ctx, s, func(now mono.Time) int {
			hits := s.matching(match)
			for _, e := range hits {
				if !e.gone {
					s.onMessage(now, func(now mono.Time) { do(s, now, e) })
				}
			}
			return len(hits)
		})
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// ask has a shard answer a question.
func ask[T any](ctx context.Context, s *Shard, question func(now mono.Time) T) (answer T, err error) {
	reply := make(chan T, 1)
	if !s.offer(func(now mono.Time) { reply <- question(now) }) {
		return answer, ErrBusy
	}
	select {
	case answer = <-reply:
		return answer, nil
	case <-ctx.Done():
		return answer, ctx.Err()
	case <-s.group.done:
		return answer, ErrStopped
	}
}
