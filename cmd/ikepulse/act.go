package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/control"
	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

func initiateCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "initiate", Category: "Act", Usage: "bring a connection's tunnel up, and wait for it",
		UsageText: "CONNECTION",
		Description: `Does nothing where the tunnel is up. A peer that does not answer is given up after
the retransmissions of dpd.retransmit; Ctrl-C stops waiting, not the attempt.

Example: ikepulse initiate berlin`,
		Action: func(c *cli.Context) error {
			name, err := oneArgument(c, "the name of a connection")
			if err != nil {
				return err
			}
			i := instanceOf(c)
			if _, err := i.daemon.Act(c.Context, "initiate", name); err != nil {
				return i.notRunning(err)
			}
			_, err = fmt.Fprintf(e.stdout, "%s is up\n", name)
			return err
		},
	}
}

const whoDescription = "WHO is " + whoText + `; "*" is everybody.

`

func terminateCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "terminate", Category: "Act", Usage: "delete tunnels",
		UsageText:   "WHO",
		Description: whoDescription + "Example: ikepulse terminate anna@example.org",
		Action:      func(c *cli.Context) error { return act(c, e, "deleting") },
	}
}

func probeCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "probe", Category: "Act", Usage: "ask peers for a sign of life, now",
		UsageText:   "WHO",
		Description: whoDescription + "Example: ikepulse probe berlin && ikepulse events",
		Action:      func(c *cli.Context) error { return act(c, e, "probing") },
	}
}

// act has the daemon do what the command is called to all that match.
func act(c *cli.Context, e env, doing string) error {
	whom, err := oneArgument(c, `a connection, a peer, an address, an SPI, or "*"`)
	if err != nil {
		return err
	}
	i := instanceOf(c)
	n, err := i.daemon.Act(c.Context, c.Command.Name, whom)
	if err != nil {
		return i.notRunning(err)
	}
	if n == 0 {
		return i.nobody(c.Context, who(whom))
	}
	_, err = fmt.Fprintf(e.stdout, "%s %s\n", doing, count(n, "IKE SA"))
	return err
}

// nobody tells whom there is instead.
func (i instance) nobody(ctx context.Context, who who) error {
	var list []gateway.Peer
	err := i.daemon.Get(ctx, "/v1/peers", &list)
	if errors.Is(err, control.ErrNotRunning) {
		return fmt.Errorf("nothing matches %q: without the daemon only addresses and SPIs are known", who)
	}
	if err != nil {
		return err
	}
	var names []string
	for _, p := range list {
		for _, name := range []string{p.Connection, p.Identity} {
			if name != "" && !slices.Contains(names, name) && len(names) <= shownNames {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("nothing matches %q: there is no tunnel", who)
	}
	slices.Sort(names)
	if len(names) > shownNames {
		names = append(names[:shownNames], "…")
	}
	for n := range names {
		names[n] = plain(names[n])
	}
	return fmt.Errorf("nothing matches %q; there are: %s", who, strings.Join(names, ", "))
}

// shownNames keeps a hint on one line.
const shownNames = 10
