package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/control"
	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/loader"
)

// instance is the one that a command line is about: its daemon, if one runs,
// and its pins, if something is loaded.
type instance struct {
	names   gateway.Names
	running bool  // a daemon holds the instance's lock
	unseen  error // why it could not be seen whether one does
	daemon  *control.Client
}

func instanceOf(c *cli.Context) instance {
	names := gateway.NamesOf(c.String("instance"))
	running, err := names.Find()
	if err != nil {
		err = fmt.Errorf("cannot tell whether the daemon runs: %w", err)
	}
	return instance{names, running, err, control.NewClient(names.Socket)}
}

// notRunning gives its exit code to the end of a command that needs the daemon.
func (i instance) notRunning(err error) error {
	if !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	if i.unseen != nil {
		return i.unseen
	}
	follows := false
	if i.running { // and has no socket
		_ = i.pins(func(loaded *loader.Instance) error { // without pins nothing follows
			follows = loaded.Maps().Meta.Follow
			return nil
		})
	}
	if follows {
		return errors.New("what runs here is ikepulse follow: the tunnels are another daemon's, which is to be asked")
	}
	return &codeError{exitDegraded, err}
}

// status asks the daemon or, without one, the pins.
func (i instance) status(ctx context.Context) (*gateway.Status, error) {
	var st gateway.Status
	err := i.daemon.Get(ctx, "/v1/status", &st)
	if !errors.Is(err, control.ErrNotRunning) {
		return &st, err
	}
	if i.unseen != nil {
		return nil, i.unseen
	}
	st = gateway.Status{Instance: i.names.Instance, State: gateway.NotRunning, Problems: []string{}}
	err = i.pins(func(loaded *loader.Instance) (err error) {
		if st.XDP, err = gateway.DescribeXDP(loaded); err != nil {
			return err
		}
		misfits, err := loaded.Unfit()
		st.Problems = append(st.Problems, gateway.Misfits(misfits)...)
		return err
	})
	if left := i.names.BarriersLeft(); left && !i.running {
		st.Problems = append(st.Problems, "a daemon that was killed has left its barriers: what its tunnels covered is blocked, until the next start or \"ikepulse detach --all\"")
	}
	if i.running && st.XDP != nil && st.XDP.Follow {
		st.State = gateway.Following
		if blind := gateway.FollowProblems(st.XDP); len(blind) > 0 {
			st.State, st.Problems = gateway.Degraded, append(st.Problems, blind...)
		}
	}
	if errors.Is(err, loader.ErrNoBPFFS) {
		st.Problems = []string{noBPFFS}
	}
	if errors.Is(err, loader.ErrNotLoaded) {
		err = nil
	}
	return &st, err
}

// hasXDP is an error where a running daemon went on without: it would not know
// what is loaded behind its back.
func (i instance) hasXDP(ctx context.Context) error {
	st, err := i.status(ctx)
	if err == nil && st.Daemon != nil && st.XDP == nil {
		err = errors.New("the running daemon goes without XDP (ikepulse status says why): put that right and restart it, and it attaches by itself")
	}
	return err
}

const noBPFFS = "no bpffs is mounted here, so nothing that is pinned can be seen (if this is ip netns exec, use --netns)"

// pins calls f with what is pinned.
func (i instance) pins(f func(*loader.Instance) error) error {
	loaded, err := loader.Open(i.names.Instance)
	if err != nil {
		return err
	}
	return errors.Join(f(loaded), loaded.Close())
}

// fromPins calls f for a command whose daemon does not run. Without pins there
// is nothing to tell.
func (i instance) fromPins(f func(*loader.Instance) error) error {
	if i.unseen != nil {
		return i.unseen
	}
	err := i.pins(f)
	if errors.Is(err, loader.ErrNotLoaded) {
		return &codeError{exitDegraded, errNothing}
	}
	return err
}

// errNothing ends a command that has nobody to ask.
var errNothing = errors.New("the daemon is not running, and nothing is loaded")

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
