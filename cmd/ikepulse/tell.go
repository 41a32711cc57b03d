package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ikepulse/ikepulse/cmd/internal/control"
	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

// tellLimit is how long detach waits for a daemon that does not answer: it
// does its own part in any case.
const tellLimit = 5 * time.Second

// told is what detach has to say to a running daemon, and to ask it.
type told struct {
	ctx    context.Context
	daemon *control.Client // nil: none runs
	err    error           // why it could not be told
}

func (i instance) tell(ctx context.Context) *told {
	if !i.running {
		return &told{}
	}
	return &told{ctx: ctx, daemon: i.daemon}
}

// giveUp keeps the daemon from attaching to an interface that has refused so
// far, and tells whether it would have.
func (t *told) giveUp(name string) (tried bool) {
	t.talk(func(ctx context.Context) error {
		n, err := t.daemon.Act(ctx, "detach", name)
		tried = n > 0
		return err
	})
	return tried
}

// waiting are the interfaces that the daemon is trying.
func (t *told) waiting() []string {
	if x := t.status().XDP; x != nil {
		return x.Waiting
	}
	return nil
}

// without tells whether the daemon runs without XDP, and so has nothing to do
// with what is pinned.
func (t *told) without() bool {
	st := t.status()
	return st.Daemon != nil && st.XDP == nil
}

func (t *told) status() (st gateway.Status) {
	t.talk(func(ctx context.Context) error { return t.daemon.Get(ctx, "/v1/status", &st) })
	return st
}

// talk has no daemon to talk to where none runs, or one that has no socket
// because it follows another. After what else goes wrong it says no more.
func (t *told) talk(f func(context.Context) error) {
	if t.daemon == nil || t.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.ctx, tellLimit)
	defer cancel()
	if err := f(ctx); err != nil && !errors.Is(err, control.ErrNotRunning) {
		t.err = err
	}
}

// failed says that the daemon does not know.
func (t *told) failed() error {
	if t.err == nil {
		return nil
	}
	return fmt.Errorf("the daemon could not be told: %w; where it was refused so far, it tries again", t.err)
}
