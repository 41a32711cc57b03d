package shard

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/directory"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
)

// job is a key exchange for an SA of a shard.
type job struct {
	shard  *Shard
	spi    uint64
	step   sa.Agree
	source netip.Addr // as which it takes its turn
	size   int        // bytes that wait with it
	since  mono.Time  // when it was queued

	// Behind the workers' lock.
	rank  rank
	taken bool // it is being done, or is nobody's any more
}

// rank is who comes first: whom we call, then whoever has shown a cookie, then
// those who may be anybody.
type rank int

const (
	rankOurs rank = iota
	rankProven
	rankUnproven
	numRanks
)

const (
	// patience is how long a client waits that has sent its first message
	// three times: an answer that comes later finds nobody.
	patience = 20 * time.Second
	// pressedAfter is how long a key exchange may wait before everybody is
	// asked for a cookie.
	pressedAfter = 250 * time.Millisecond
	// jobBytes is about what a half-open SA takes beside its message.
	jobBytes = 3 << 10
)

// workers compute key exchanges, so that no loop waits for one. What waits for
// them is bounded by its bytes, and whoever finds no room is told at once. Of
// each rank the sources take turns: a thousand that show cookies and complete
// nothing cost the others a thousand key exchanges, and not their whole queue.
// What would be answered too late is not computed.
type workers struct {
	rand  io.Reader
	clock func() mono.Time
	max   int // bytes

	mu       sync.Mutex
	some     sync.Cond // there is a job, or the end
	ended    bool
	waiting  [numRanks]turns // some of the jobs taken
	jobs     int
	bytes    int
	unproven int // of bytes, those of that rank

	panics atomic.Uint64
}

func newWorkers(maxBytes int, rand io.Reader, clock func() mono.Time) *workers {
	w := &workers{max: maxBytes, rand: rand, clock: clock}
	w.some.L = &w.mu
	return w
}

// offer queues a job, unless there is no room for it. What has shown no cookie
// makes room for what has.
func (w *workers) offer(j *job) (ok bool, shed []*job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	room := w.max - w.bytes
	if j.rank != rankUnproven {
		room += w.unproven
	}
	if j.size > room {
		return false, nil
	}
	for w.bytes+j.size > w.max {
		shed = append(shed, w.take(rankUnproven))
	}
	w.jobs++
	w.bytes += j.size
	if j.rank == rankUnproven {
		w.unproven += j.size
	}
	w.waiting[j.rank].push(j)
	w.some.Signal()
	return true, shed
}

// promote lets a job come before those who have shown no cookie: as another one,
// which it returns, so that nothing large is left in their queue.
func (w *workers) promote(j *job) *job {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j.taken || j.rank != rankUnproven {
		return j
	}
	proven := *j
	proven.rank = rankProven
	w.unproven -= j.size
	*j = job{taken: true}
	w.waiting[rankProven].push(&proven)
	return &proven
}

// cancel forgets a job whose SA is gone.
func (w *workers) cancel(j *job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle(j)
}

// settle takes a job out of the count, once.
func (w *workers) settle(j *job) {
	if !j.taken {
		j.taken = true
		w.jobs--
		w.bytes -= j.size
		if j.rank == rankUnproven {
			w.unproven -= j.size
		}
	}
}

// head is the next job of a rank, nil if there is none.
func (w *workers) head(r rank) *job {
	return w.waiting[r].first(func(j *job) bool { return !j.taken })
}

// take is head, taken out.
func (w *workers) take(r rank) *job {
	j := w.head(r)
	w.waiting[r].pop()
	w.settle(j)
	return j
}

// next waits for a job, and tells whether it is too late for it; nil is the end.
func (w *workers) next() (j *job, late bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.ended {
		if r, late, ok := w.choose(); ok {
			return w.take(r), late
		}
		w.some.Wait()
	}
	return nil, false
}

// choose finds the rank whose turn it is: one whose next job is too late, which
// then does not wait behind the ranks before it, or else the first that has a
// job.
func (w *workers) choose() (r rank, late, ok bool) {
	now := w.clock()
	for r := rankProven; r < numRanks; r++ {
		if j := w.head(r); j != nil && now.Sub(j.since) > patience {
			return r, true, true
		}
	}
	for r := range numRanks {
		if w.head(r) != nil {
			return r, false, true
		}
	}
	return 0, false, false
}

// backlog is how many jobs wait, and how long the next of them has.
func (w *workers) backlog(now mono.Time) (jobs int, oldest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for r := range numRanks {
		if j := w.head(r); j != nil {
			oldest = max(oldest, now.Sub(j.since))
		}
	}
	return w.jobs, oldest
}

// run does jobs until ctx ends; those still queued then are nobody's.
func (w *workers) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = true
		w.some.Broadcast()
	})
	defer stop()
	for {
		j, late := w.next()
		switch {
		case j == nil:
			return
		case late:
			j.shed(cShedLate)
		default:
			agreed := w.agree(j.step)
			j.shard.post(func(now mono.Time) { j.shard.agreed(now, j.spi, agreed) })
		}
		// Where they share a processor, the loops come between two jobs.
		runtime.Gosched()
	}
}

// agree makes a key pair where there is none, and the shared secret where
// there is a peer's value, which is looked at before anything is computed for
// it. A panic counts as a refusal of that value.
func (w *workers) agree(st sa.Agree) (a sa.Agreed) {
	defer func() {
		if r := recover(); r != nil {
			w.panics.Add(1)
			a = sa.Agreed{Private: a.Private, Err: fmt.Errorf("key exchange: panic: %v", r)}
		}
	}()
	a.Private = st.Private
	if st.Peer != nil {
		if a.Err = suite.CheckPublic(st.Group, st.Peer); a.Err != nil {
			return a
		}
	}
	if a.Private == nil {
		if a.Private, a.Err = suite.Generate(st.Group, w.rand); a.Err != nil {
			return a
		}
	}
	if st.Peer != nil {
		a.Secret, a.Err = a.Private.Agree(st.Peer)
	}
	return a
}

// agree has the workers do a key exchange. A responder's SA that finds no room
// goes, since its peer will ask again; ours takes it for an exchange that has
// failed.
func (s *Shard) agree(now mono.Time, e *entry, st sa.Agree) error {
	w := s.group.workers
	j := &job{shard: s, spi: e.sa.SPI(), step: st, size: jobBytes, since: now}
	pd := e.pending
	if pd != nil {
		j.source = SourcePrefix(pd.place.Key().Remote.Addr())
		j.rank = pd.rank()
		j.size += pd.size
	}
	if _, oldest := w.backlog(now); oldest > pressedAfter {
		s.group.gate.press(now)
	}
	ok, shed := w.offer(j)
	for _, other := range shed {
		other.shed(cShedUnproven)
	}
	switch {
	case pd != nil && !ok:
		return ErrBusy
	case pd != nil:
		pd.job = j
		return nil
	case ok:
		return nil
	}
	s.count[cJobsRefused]++
	s.post(func(now mono.Time) { s.agreed(now, j.spi, sa.Agreed{Private: st.Private, Err: ErrBusy}) })
	return nil
}

// agreed gives an SA the outcome. A value that is none has cost something, and
// keeps its place for a time.
func (s *Shard) agreed(now mono.Time, spi uint64, a sa.Agreed) {
	e := s.table.bySPI[spi]
	if e == nil {
		a.Wipe()
		return
	}
	if a.Err != nil && e.pending != nil {
		s.count[cBadValues]++
		s.group.gate.refuse(now, e.pending.place)
	}
	if e.dial != nil && a.Secret != nil {
		s.agreedOurs(e, a)
		return
	}
	s.do(now, e, a)
}

// agreedOurs gives an SA of ours the outcome once it is known whether it is all that
// there is between the two. Who calls us at this moment may be the same peer.
func (s *Shard) agreedOurs(e *entry, a sa.Agreed) {
	spi, pair := e.sa.SPI(), e.dial.pair()
	// Looked at before the question goes on its way: whoever is no longer calling then
	// has asked for his admission before.
	called := s.group.gate.calls(e.sa.Path().Remote.Addr())
	s.group.registrar.note(func(d *directory.Directory) {
		a.Alone = !called && d.Alone(pair)
		s.post(func(now mono.Time) {
			if s.table.bySPI[spi] == nil {
				a.Wipe()
				return
			}
			s.tell(now, spi, a)
		})
	})
}

// shed drops the SA of a job that is not done.
func (j *job) shed(why counter) {
	s := j.shard
	s.post(func(now mono.Time) {
		if e := s.table.bySPI[j.spi]; e != nil {
			s.count[why]++
			s.drop(now, e)
		}
	})
}
