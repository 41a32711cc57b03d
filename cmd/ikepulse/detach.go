package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/loader"
)

func detachCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "detach", Category: "XDP", Usage: "take XDP off interfaces",
		UsageText: "IFACE... | --all",
		Description: `With the last interface every trace goes: program, maps and pins, unless a
running daemon uses them. A running daemon does not attach it again by itself, nor
goes on trying where it was refused. To detach what is not attached is no error.

Example: ikepulse detach eth0`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "off every interface"}},
		Action: func(c *cli.Context) error {
			if c.Bool("all") == (c.NArg() > 0) {
				return usage("detach takes the names of interfaces, or --all")
			}
			i, names := instanceOf(c), gateway.RealNames(c.Args().Slice())
			if i.unseen != nil {
				return i.unseen
			}
			t := i.tell(c.Context)
			err := i.detach(e, t, names)
			var other *loader.MismatchError
			switch {
			case errors.Is(err, loader.ErrNoBPFFS):
				err = i.nothing(e, t, names, ": "+noBPFFS)
			case errors.Is(err, loader.ErrNotLoaded):
				err = i.nothing(e, t, names, "")
			case errors.As(err, &other) && c.Bool("all"):
				err = errors.Join(loader.Purge(other.Dir), i.removed(e, other.Dir))
			}
			return errors.Join(err, t.failed())
		},
	}
}

// nothing is pinned: a daemon may hold its program itself, and one that was
// killed before it had pins has left other things.
func (i instance) nothing(e env, t *told, ifnames []string, why string) error {
	if i.running {
		if len(ifnames) == 0 {
			ifnames = t.waiting()
		}
		for _, name := range ifnames {
			if !t.giveUp(name) {
				continue
			}
			if _, err := fmt.Fprintf(e.stdout, "%s: %s\n", name, notTried); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(e.stdout, "nothing is pinned: what the running daemon has attached, it takes along when it ends")
		return errors.Join(err, i.clear(e))
	}
	_, err := fmt.Fprintln(e.stdout, "nothing is attached"+why)
	return errors.Join(err, i.clear(e))
}

// detach takes the program off the interfaces, all if none is named.
func (i instance) detach(e env, t *told, ifnames []string) error {
	return i.pins(func(loaded *loader.Instance) error {
		attached, err := loaded.Attachments()
		if err != nil {
			return err
		}
		if len(ifnames) == 0 {
			for _, a := range attached {
				ifnames = append(ifnames, a.Interface)
			}
			for _, name := range t.waiting() {
				if !slices.Contains(ifnames, name) {
					ifnames = append(ifnames, name)
				}
			}
		}
		for _, name := range ifnames {
			if err := detachOne(e, t, loaded, name); err != nil {
				return err
			}
		}
		return i.removeLast(e, t, loaded)
	})
}

const notTried = "was not attached, and is no longer tried"

// detachOne tells the daemon first: what that attaches until it knows is
// detached then.
func detachOne(e env, t *told, loaded *loader.Instance, name string) error {
	tried := t.giveUp(name)
	what := "detached"
	if keepsTags(loaded, name) {
		what += ", its VLAN offload is on again"
	}
	err := loaded.Detach(name)
	if errors.Is(err, loader.ErrNotAttached) {
		if what, err = "was not attached", nil; tried {
			what = notTried
		}
	}
	if err == nil {
		_, err = fmt.Fprintf(e.stdout, "%s: %s\n", name, what)
	}
	return err
}

// keepsTags tells whether attaching has switched an interface's VLAN offload off.
func keepsTags(loaded *loader.Instance, name string) bool {
	attached, err := loaded.Attachments()
	return err == nil && slices.ContainsFunc(attached, func(a loader.Attachment) bool { return a.Interface == name && a.KeepsTags })
}

// removeLast removes every trace when nothing is attached and nobody uses it.
func (i instance) removeLast(e env, t *told, loaded *loader.Instance) error {
	attached, err := loaded.Attachments()
	if err != nil || slices.ContainsFunc(attached, func(a loader.Attachment) bool { return !a.Gone }) {
		return err
	}
	switch {
	case i.running && loaded.Maps().Meta.Follow:
		_, err := fmt.Fprintln(e.stdout, "ikepulse follow runs and keeps the maps; it sees no packet until \"ikepulse attach IFACE\"")
		return err
	case i.running && !t.without():
		_, err := fmt.Fprintln(e.stdout, "the daemon runs and keeps the maps, its records, rules and barriers; no keepalive is answered until \"ikepulse attach\"")
		return err
	}
	return errors.Join(loaded.Remove(), i.removed(e, loaded.Dir()))
}

// removed says that the pins are gone, and takes along what else there is.
func (i instance) removed(e env, dir string) error {
	_, err := fmt.Fprintf(e.stdout, "nothing is attached any more: removed %s\n", dir)
	return errors.Join(err, i.clear(e))
}

// clear takes along what a killed daemon has left, its records above all: they
// hold keys. What a running one needs stays.
func (i instance) clear(e env) error {
	err := i.names.Clear()
	if errors.Is(err, gateway.ErrRunning) {
		_, err = fmt.Fprintf(e.stdout, "a daemon of instance %s is running: its records, rules and barriers were left alone\n", i.names.Instance)
	}
	return err
}
