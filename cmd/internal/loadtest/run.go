package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ikepulse/ikepulse/ike"
)

const (
	// vanguard is how many peers call before it is known that anybody answers.
	vanguard = 16
	// silence is how long the vanguard waits: its messages have gone out three
	// times by then, at 0 s, 4 s and 11.2 s.
	silence = 12 * time.Second
	// busyPause is how long a handshake waits that this process has no time for.
	busyPause = 10 * time.Millisecond
)

// errSilent ends the handshakes of a vanguard that nobody answers.
var errSilent = errors.New(noAnswer)

// run is one test while it runs.
type run struct {
	Config
	wire    *wire
	gateway *ike.Gateway
	// initiate brings a peer's tunnel up: the gateway does.
	initiate func(ctx context.Context, name string) error
	pace     pace
	*scores
}

func newRun(ctx context.Context, c Config) (*run, error) {
	w, err := openWire(ctx, c.Gateway)
	if err != nil {
		return nil, err
	}
	conf := c.ike()
	r := &run{Config: c, wire: w, pace: pace{rate: c.Rate}, scores: newScores()}
	if r.gateway, err = ike.New(conf, w.edges(conf.Shards)); err != nil {
		return nil, errors.Join(err, w.close())
	}
	r.initiate = r.gateway.Initiate
	return r, nil
}

// Run makes the peers call, waits until each is up or refused, holds them, and
// deletes what is up, which takes five seconds at most. When ctx ends, what has
// been reached by then is reported. With an error the report is as far as the
// test has come.
func Run(ctx context.Context, c Config) (Report, error) {
	r, err := newRun(ctx, c)
	if err != nil {
		return Report{}, err
	}
	served, goodbye := context.WithCancel(context.Background())
	watched, unwatch := context.WithCancel(context.Background())
	var gateway, others sync.WaitGroup
	gateway.Go(func() { _ = r.gateway.Run(served) }) // ends after goodbye
	others.Go(func() { r.wire.serve(r.gateway.Deliver) })
	others.Go(func() { r.hear(r.gateway.Events(watched)) })
	others.Go(func() { r.watch(watched) })

	err = r.callAll(ctx)
	st, _ := r.status(served)
	report := r.report(st.Counters)
	r.hold(ctx, &report)
	r.note(func() { r.stage = "saying goodbye" })
	goodbye()
	gateway.Wait()
	unwatch()
	err = errors.Join(err, r.wire.close())
	others.Wait()
	return report, err
}

// callAll begins all handshakes and waits for their ends. The first of them go
// ahead: if nobody answers them, no others follow.
func (r *run) callAll(ctx context.Context) error {
	calls, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var peers sync.WaitGroup
	defer peers.Wait()
	ahead := min(vanguard, r.Peers)
	r.note(func() { r.began, r.end = time.Now(), time.Now() })
	r.call(calls, &peers, 0, ahead)
	select {
	case <-r.wire.answered:
	case <-ctx.Done():
		return nil
	case <-time.After(silence):
		stop(errSilent)
		return r.silent(ahead)
	}
	r.call(calls, &peers, ahead, r.Peers)
	return nil
}

// call begins the handshakes of some peers, as it is planned.
func (r *run) call(ctx context.Context, peers *sync.WaitGroup, from, to int) {
	r.pace.begin(time.Now())
	for n := from; n < to && r.pace.wait(ctx) && r.wire.enter(ctx); n++ {
		r.pace.begun(time.Now())
		r.note(func() { r.begun++ })
		peers.Go(func() { r.handshake(ctx, n) }) // ends with its handshake, or ctx
	}
}

// handshake brings one peer's tunnel up, and takes note of how that went.
func (r *run) handshake(ctx context.Context, n int) {
	limited, cancel := ctx, context.CancelFunc(func() {})
	if r.Timeout > 0 {
		limited, cancel = context.WithTimeout(ctx, r.Timeout)
	}
	defer cancel()
	for {
		began := time.Now()
		err := r.initiate(limited, name(n))
		if busy(err) && sleep(limited, busyPause) {
			if err != ike.ErrBusy { // but what it wraps
				r.note(func() { r.retries++ })
			}
			continue
		}
		if busy(err) { // to its end, so it will never have a first message
			r.wire.leave()
		}
		r.ended(ctx, n, time.Since(began), err)
		return
	}
}

// ended takes note of the end of a handshake.
func (r *run) ended(ctx context.Context, n int, took time.Duration, err error) {
	r.note(func() {
		r.end = time.Now()
		complaint := r.complaints[name(n)]
		switch {
		case err == nil:
			r.up = append(r.up, took)
		case context.Cause(ctx) == errSilent:
			r.failed[noAnswer]++
		case ctx.Err() != nil:
			r.unfinished[complaint]++
		case busy(err), errors.Is(err, context.DeadlineExceeded):
			r.failed[cmp.Or(complaint, "not up within "+r.Timeout.String())]++
		default:
			r.failed[reason(err)]++
		}
	})
}

// silent says that the gateway is, or that nothing was sent to it.
func (r *run) silent(ahead int) error {
	if err := r.wire.failure(); err != nil {
		return fmt.Errorf("nobody has answered the first %d peers within %v, and not all could be sent: %w", ahead, silence, err)
	}
	return fmt.Errorf("%v has answered none of the first %d peers within %v, so no others have called: does a gateway listen there at UDP port %d, and has it a route back to %v?",
		r.Gateway, ahead, silence, ikePort, r.Sources[0])
}

// hold waits, and counts what has stayed up.
func (r *run) hold(ctx context.Context, report *Report) {
	if r.Hold == 0 || report.Up == 0 || ctx.Err() != nil {
		return
	}
	r.note(func() { r.stage = "holding them for " + r.Hold.String() })
	began := time.Now()
	sleep(ctx, r.Hold)
	report.HoldMS = time.Since(began).Milliseconds()
	if st, ok := r.status(context.Background()); ok {
		report.UpAfterHold = &st.Up
	}
}

// status asks until there is an answer: while all call at once, a shard may have
// too much to do.
func (r *run) status(ctx context.Context) (ike.Status, bool) {
	for {
		st, err := r.gateway.Status(ctx)
		if err == nil || !busy(err) {
			return st, err == nil
		}
		sleep(ctx, busyPause)
	}
}

// sleep waits; false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
