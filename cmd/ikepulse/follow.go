package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/follow"
	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/loader"
)

func followCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "follow", Category: "XDP", Usage: "put XDP beside another IKE daemon",
		UsageText: "IFACE... [--every TIME] [--json]",
		Description: `For a gateway that runs strongSwan or libreswan with the kernel's IPsec: learns its
SAs from the kernel, absorbs the keepalives of their peers, and shows who is idle
and where packets come that none can authenticate. It speaks no IKE and changes
no SA. Keepalives are never answered: only the other daemon knows which peers are
behind a NAT. An interface that comes back, or lost XDP by force, has it again
within a second. XDP stays after it ends, until "ikepulse detach".

Example: ikepulse follow eth0 --every 30s`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "keepalive", Value: "absorb", Usage: "`MODE` for peers' keepalives: absorb or pass"},
			&cli.IntFlag{Name: "capacity", Usage: "room for `N` tunnels"},
			&cli.DurationFlag{Name: "every", Value: 10 * time.Second, Usage: "show every SA once in `TIME`, 0 for changes alone"},
			&cli.BoolFlag{Name: "json", Usage: "print a line of JSON for each fact"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usage("follow takes the names of interfaces: those by which the peers' packets come")
			}
			tell := (&followText{env: e}).tell
			if c.Bool("json") {
				tell = json.NewEncoder(e.stdout).Encode
			}
			outlastTerminal(c.Context, func() {})
			err := follow.Run(c.Context, follow.Options{
				Names: gateway.NamesOf(c.String("instance")), Interfaces: gateway.RealNames(c.Args().Slice()), Report: c.Duration("every"),
				XDP:  loader.Options{Instance: c.String("instance"), Capacity: c.Int("capacity"), Keepalive: c.String("keepalive")},
				Tell: func(f follow.Fact) error { return tell(f) },
			})
			if errors.Is(err, loader.ErrNoBPFFS) {
				err = fmt.Errorf("%w\n(that is for \"run\": what follow attaches is to outlive it)", err)
			}
			return err
		},
	}
}

// followText shows events as lines, and each report as a table.
type followText struct {
	env
	rows [][]string
}

func (t *followText) tell(v any) error {
	f := v.(follow.Fact)
	switch f.Event {
	case follow.EventSA:
		t.rows = append(t.rows, followRow(f.SA))
		return nil
	case follow.EventSummary:
		return t.report(f.Summary)
	}
	_, err := fmt.Fprintln(t.stdout, followLine(f))
	return err
}

func (t *followText) report(s *follow.Summary) error {
	err := table(t.stdout, t.terminal, []string{"FROM", "SPI-IN", "SPI-OUT", "REQID", "UP", "IDLE", "PROOF", "KEEPALIVES", "ALARM"}, t.rows)
	t.rows = nil
	if err == nil {
		_, err = fmt.Fprintln(t.stdout, followSum(s))
	}
	return err
}

func followRow(s *follow.SA) []string {
	proof := orDash(s.Proof)
	if s.ProofMS != nil {
		proof += " " + spanMS(*s.ProofMS)
	}
	keepalives := "-"
	if s.Keepalives > 0 {
		keepalives = fmt.Sprintf("%s, %s ago", thousands(s.Keepalives), ago(s.KeepaliveMS))
	}
	return []string{origin(s.Remote), s.InSPI, orDash(s.OutSPI), fmt.Sprint(s.Reqid), ago(s.UpMS), ago(s.IdleMS),
		proof, keepalives, orDash(s.Alarm)}
}

// origin is where packets come from; ESP without UDP has no ports.
func origin(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

func followSum(s *follow.Summary) string {
	return fmt.Sprintf("%s, %s; keepalives: %s absorbed, %s passed, %s from strangers; esp: %s known, %s unknown",
		count(s.SAs, "SA"), count(s.Alarms, "alarm"), thousands(s.Absorbed), thousands(s.Passed), thousands(s.Strangers),
		thousands(s.ESPKnown), thousands(s.ESPUnknown))
}

// followLine is a line an event.
func followLine(f follow.Fact) string {
	words := []string{f.Time.Local().Format(time.TimeOnly), fmt.Sprintf("%-15s", strings.ReplaceAll(f.Event, "_", " "))}
	if f.SA != nil {
		words = append(words, fmt.Sprintf("%s %s from %s", f.Protocol, f.InSPI, origin(f.Remote)))
	}
	if f.Summary != nil {
		words = append(words, count(f.SAs, "inbound SA"))
	}
	if f.Interface != "" {
		words = append(words, strings.TrimSpace(f.Interface+" "+f.Mode))
	}
	if f.Note != "" {
		words = append(words, plain(f.Note))
	}
	if f.Heard != "" {
		words = append(words, "at "+f.Heard)
	}
	if f.Error != "" {
		words = append(words, plain(f.Error))
	}
	if f.SA != nil && f.Why != "" {
		words = append(words, f.Why)
	}
	if f.Lost {
		words = append(words, "the kernel had dropped events")
	}
	return strings.Join(words, "  ")
}
