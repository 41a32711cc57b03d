package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

func checkCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "check", Category: "Run", Usage: "say everything that is wrong with a configuration",
		UsageText: "[--config FILE] [--as ID [--from ADDRESS] [--to ID]]",
		Description: `Changes nothing and needs no root; as root it also says what this host lacks,
which is no error: the configuration may be for another.
With --as it says what a peer with that identity gets, and why; or why it is
refused, with exit code 1. It is refused, too, if it offers no suite of that
connection, or has another secret.

Example: ikepulse check --config ikepulse.yaml
         ikepulse check --config ikepulse.yaml --as anna@example.org --from 203.0.113.9`,
		Flags: []cli.Flag{
			configFlag,
			&cli.StringFlag{Name: "as", Usage: "the peer's identity, an `ID` as in the configuration"},
			&cli.StringFlag{Name: "from", Usage: "the `ADDRESS` that the peer calls from; default: one that is allowed"},
			&cli.StringFlag{Name: "to", Usage: "the `ID` of ours that the peer asks for; default: none"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			claim, asked, err := claimOf(c)
			if err != nil {
				return err
			}
			cfg, problems := config.Check(c.String("config"), gateway.Checks)
			if problems != nil {
				fmt.Fprintln(e.stdout, problems.Error())
				return &codeError{code: exitError}
			}
			if hidden := gateway.HiddenNetworks(cfg); len(hidden) > 0 {
				for _, text := range hidden {
					fmt.Fprintf(e.stdout, "%s: %s\n", c.String("config"), text)
				}
				return &codeError{code: exitError}
			}
			if asked {
				return checkPeer(e, c.String("config"), cfg, claim)
			}
			return renderChecked(e.stdout, checked{file: c.String("config"), cfg: cfg, memory: gateway.MemoryFor(cfg.XDP.Capacity),
				probes: probeRate(cfg), host: gateway.LookAtHost(cfg)})
		},
	}
}

// checked is what check says of a good configuration.
type checked struct {
	file   string
	cfg    *config.Config
	memory gateway.Memory
	probes rate
	host   []gateway.Finding // none: it was not looked at
}

// rate is how many probes a second a full gateway sends in the worst case.
type rate struct {
	forced, idle       float64
	maxSuppress, delay time.Duration // of the connection that needs most; 0: none
}

// probeRate assumes that all tunnels are of the connection that needs most.
func probeRate(cfg *config.Config) (r rate) {
	for _, c := range cfg.Connections {
		if c.DPD.Mode == "off" {
			continue
		}
		if s := c.DPD.MaxSuppress; s > 0 && (r.maxSuppress == 0 || s < r.maxSuppress) {
			r.maxSuppress, r.forced = s, float64(cfg.XDP.Capacity)/s.Seconds()
		}
		if d := c.DPD.Delay; d > 0 && (r.delay == 0 || d < r.delay) {
			r.delay, r.idle = d, float64(cfg.XDP.Capacity)/d.Seconds()
		}
	}
	return r
}
