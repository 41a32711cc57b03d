package shard

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
)

// job is a key exchange for an SA of a shard.
type job struct {
	shard *Shard
	spi   uint64
	step  sa.Agree
}

// workers compute key exchanges, so that no loop waits for one. Their queue is
// bounded, and who finds it full is told so at once.
type workers struct {
	queue  chan job
	rand   io.Reader
	panics atomic.Uint64
}

func newWorkers(queue int, rand io.Reader) *workers {
	return &workers{queue: make(chan job, queue), rand: rand}
}

// offer queues a job, unless the queue is full.
func (w *workers) offer(j job) bool {
	select {
	case w.queue <- j:
		return true
	default:
		return false
	}
}

// run does jobs until ctx ends; those still queued then are nobody's.
func (w *workers) run(ctx context.Context) {
	for {
		select {
		case j := <-w.queue:
			agreed := w.agree(j.step)
			j.shard.post(func(now mono.Time) { j.shard.tell(now, j.spi, agreed) })
		case <-ctx.Done():
			return
		}
	}
}

// agree makes a key pair where there is none, and the shared secret where
// there is a peer's value, which is looked at before anything is computed for
// it. A panic counts as a refusal of that value.
func (w *workers) agree(st sa.Agree) (a sa.Agreed) {
	defer func() {
		if r := recover(); r != nil {
			w.panics.Add(1)
			a = sa.Agreed{Err: fmt.Errorf("key exchange: panic: %v", r)}
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
func (s *Shard) agree(e *entry, st sa.Agree) error {
	spi := e.sa.SPI()
	if s.group.workers.offer(job{s, spi, st}) {
		return nil
	}
	s.count[cJobsRefused]++
	if e.sa.Role() == sa.Responder {
		return ErrBusy
	}
	s.post(func(now mono.Time) { s.tell(now, spi, sa.Agreed{Private: st.Private, Err: ErrBusy}) })
	return nil
}
