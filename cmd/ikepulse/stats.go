package main

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

func statsCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "stats", Category: "XDP", Usage: "every counter: frames by reason, sockets, IKE",
		UsageText: "[--all] [--rate TIME | --watch TIME] [--json]",
		Description: `XDP's counters are kept from when it was loaded, the daemon's from its start;
those that are 0 are left out. Works without the daemon, from the pins. Events are
what XDP tells the daemon of; where none reads they are lost after some 10,000.
A rate is what a counter gained a second between two readings, by the time that
passed between them; "reset" is one that began anew meanwhile.

Example: ikepulse stats --rate 1s | grep keepalive`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "print counters that are 0, too"},
			&cli.DurationFlag{Name: "rate", Usage: "read twice, `TIME` apart, and print rates beside the totals"},
			&cli.DurationFlag{Name: "watch", Usage: "the same every `TIME`, until Ctrl-C"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON, with --watch a line of it each time"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			p, err := paceOf(c)
			if err != nil {
				return err
			}
			first, err := read(c)
			if err == nil && first.empty() {
				err = &codeError{exitDegraded, errNothing}
			}
			if err != nil {
				return err
			}
			o := statsOutput{e, c.Bool("json"), c.Bool("all")}
			if p.every == 0 {
				return o.totals(statsOf(first.status))
			}
			return p.follow(c.Context, first, func() (reading, error) { return read(c) }, func(rates []rated, at reading) error {
				switch {
				case p.repeat:
					return o.block(rates, at)
				case at.empty():
					return &codeError{exitDegraded, errNothing}
				}
				return o.rates(rates)
			})
		},
	}
}

// statsOutput is how counters are printed.
type statsOutput struct {
	env
	json, all bool
}

func (o statsOutput) totals(stats []stat) error {
	if o.json {
		return printJSON(o.stdout, stats)
	}
	return renderStats(o.stdout, o.terminal, stats, o.all)
}

func (o statsOutput) rates(rates []rated) error {
	if o.json {
		return printJSON(o.stdout, rates)
	}
	return renderRates(o.stdout, o.terminal, rates, o.all)
}

// block is one of several.
func (o statsOutput) block(rates []rated, at reading) error {
	if o.json {
		return json.NewEncoder(o.stdout).Encode(rates)
	}
	if err := renderRatesHead(o.stdout, rates, at); err != nil || len(rates) == 0 {
		return err
	}
	return o.rates(rates)
}

// whereXDP is the place of the counters that outlive the daemon.
const whereXDP = "xdp"

// whereEvents is the place of what the daemon has read of XDP's events.
const whereEvents = "xdp_events"

// stat is one counter, wherever it is kept.
type stat struct {
	Where   string `json:"where"` // xdp, xdp_events, ike, dataplane, or a socket's address
	Name    string `json:"name"`
	Count   uint64 `json:"count"`
	Verdict string `json:"verdict,omitempty"` // of XDP's
}

// statsOf gathers an instance's counters, those of a kind in a fixed order.
func statsOf(st *gateway.Status) []stat {
	out := []stat{}
	if st.XDP != nil {
		for _, c := range st.XDP.Counters {
			out = append(out, stat{whereXDP, c.Name, c.Frames, c.Verdict})
		}
		out = append(out, stat{whereXDP, "events", st.XDP.Events, ""}, stat{whereXDP, "events_lost", st.XDP.EventsLost, ""})
	}
	if st.Daemon == nil {
		return out
	}
	if e := st.XDPEvents; e != nil {
		out = append(out, stat{whereEvents, "drift", e.Drift, ""}, stat{whereEvents, "stranger", e.Stranger, ""},
			stat{whereEvents, "old", e.Old, ""})
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
