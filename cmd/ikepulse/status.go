package main

import (
	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

func statusCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "status", Category: "Look", Usage: "how the gateway is; exit code 3 unless it is healthy",
		UsageText: "[--json]",
		Description: `Works without the daemon, also after its kill -9: then the pins tell what XDP
goes on doing.

Example: ikepulse status --json | jq .ike.up`,
		Flags: []cli.Flag{jsonFlag},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			st, err := instanceOf(c).status(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = printJSON(e.stdout, st)
			} else {
				err = renderStatus(e.stdout, st)
			}
			if err == nil && st.State != gateway.Healthy && st.State != gateway.Following {
				err = &codeError{code: exitDegraded}
			}
			return err
		},
	}
}
