package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/ike"
)

func eventsCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "events", Category: "Look", Usage: "what happens from now on, as it happens",
		UsageText: "[--json]",
		Description: `Ends with Ctrl-C or with the daemon. A reader who is too slow misses events; their
numbers (seq) show it. A drift is a packet with the SPI of a tunnel that came from
elsewhere, and that nobody had verified: it proves nothing until "moved" follows.
A refusal, of a peer or by one, is told each time; the log leaves some out.

Example: ikepulse events --json | jq 'select(.event == "refused").refusal'`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print a line of JSON for each"}},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			take := func(m json.RawMessage) error {
				var ev ike.Event
				if err := json.Unmarshal(m, &ev); err != nil {
					return err
				}
				return renderEvent(e.stdout, ev)
			}
			if c.Bool("json") {
				take = func(m json.RawMessage) error {
					_, err := fmt.Fprintf(e.stdout, "%s\n", m)
					return err
				}
			}
			i := instanceOf(c)
			err := i.daemon.Events(c.Context, func() {}, take)
			if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
				return nil
			}
			return i.notRunning(err)
		},
	}
}
