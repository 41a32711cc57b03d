package main

import (
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

func statsCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "stats", Category: "XDP", Usage: "every counter: frames by reason, sockets, IKE",
		UsageText: "[--all] [--json]",
		Description: `XDP's counters are kept from when it was loaded, the daemon's from its start;
those that are 0 are left out. Works without the daemon, from the pins.

Example: ikepulse stats | grep keepalive`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "print counters that are 0, too"}, jsonFlag},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			st, err := instanceOf(c).status(c.Context)
			if err != nil {
				return err
			}
			if st.Daemon == nil && st.XDP == nil {
				return &codeError{exitDegraded, errNothing}
			}
			if c.Bool("json") {
				return printJSON(e.stdout, statsOf(st))
			}
			return renderStats(e.stdout, e.terminal, statsOf(st), c.Bool("all"))
		},
	}
}

// stat is one counter, wherever it is kept.
type stat struct {
	Where   string `json:"where"` // xdp, ike, dataplane, or a socket's address
	Name    string `json:"name"`
	Count   uint64 `json:"count"`
	Verdict string `json:"verdict,omitempty"` // of XDP's
}

// statsOf gathers an instance's counters, those of a kind in a fixed order.
func statsOf(st *gateway.Status) []stat {
	out := []stat{}
	if st.XDP != nil {
		for _, c := range st.XDP.Counters {
			out = append(out, stat{"xdp", c.Name, c.Frames, c.Verdict})
		}
	}
	if st.Daemon == nil {
		return out
	}
	for _, s := range st.Sockets {
		at := s.Local.String()
		out = append(out, stat{at, "ike", s.IKE, ""}, stat{at, "esp", s.ESP, ""}, stat{at, "keepalives", s.Keepalives, ""},
			stat{at, "short", s.Short, ""}, stat{at, "read_errors", s.ReadErrors, ""}, stat{at, "sent", s.Sent, ""},
			stat{at, "send_errors", s.SendErrors, ""})
	}
	out = append(out, sorted("dataplane", st.Dataplane.Counters)...)
	return append(out, sorted("ike", st.IKE.Counters)...)
}

// sorted lists counters by their names.
func sorted(where string, counters map[string]uint64) (out []stat) {
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		out = append(out, stat{where, name, counters[name], ""})
	}
	return out
}
