package main

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ikepulse/ikepulse/cmd/internal/control"
	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/loader"
)

func sasCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "sas", Category: "Look", Usage: "the tunnels: a line an inbound SPI",
		UsageText: "[WHO] [--sort KEY] [--limit N] [--alarm] [--json]",
		Description: `IDLE is how long nothing was seen with the SPI, authentic or not; PROOF how long
ago the peer proved that he lives, and by what; NEXT what happens then. ALARM is
"unauthenticated" where ESP comes and none of it is authentic, "moved" where some
came from another address, both within the last minute. Without the daemon the
pins tell what they know.

WHO is ` + whoText + `.

Example: ikepulse sas --sort proof --limit 10`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "sort", Value: "peer", Usage: "by `KEY`: peer, idle, proof or up, the longest first"},
			&cli.IntFlag{Name: "limit", Usage: "print `N` lines at most"},
			&cli.BoolFlag{Name: "alarm", Usage: "only those with an alarm"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			who, err := whoOf(c)
			if err = errors.Join(err, checkSort(c.String("sort"))); err != nil {
				return err
			}
			rows, err := sasOf(c)
			if err != nil {
				return err
			}
			rows = slices.DeleteFunc(rows, func(r saRow) bool { return !who.is(r.From, r.Peer, r.Connection, r.InSPI) })
			if len(rows) == 0 && who != everybody {
				return instanceOf(c).nobody(c.Context, who)
			}
			rows = pick(rows, c.String("sort"), c.Int("limit"), c.Bool("alarm"))
			if !c.Bool("json") {
				return renderSAs(e.stdout, e.terminal, rows)
			}
			all := make([]any, len(rows))
			for i, r := range rows {
				all[i] = r.source
			}
			return printJSON(e.stdout, all)
		},
	}
}

// saRow is a tunnel as far as it is known; what is not is empty.
type saRow struct {
	Peer          string
	Connection    string
	From          netip.AddrPort
	InSPI, OutSPI string
	UpMS, IdleMS  *int64
	ike.Liveness
	source any // what JSON shows
}

// sasOf asks the daemon or, without one, the pins.
func sasOf(c *cli.Context) (rows []saRow, err error) {
	i := instanceOf(c)
	var list []ike.SA
	err = i.daemon.Get(c.Context, "/v1/sas", &list)
	for _, s := range list {
		rows = append(rows, saRow{s.Identity, s.Connection, s.Remote, s.InSPI, s.OutSPI, &s.UpMS, s.IdleMS, s.Liveness, s})
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return rows, err
	}
	err = i.fromPins(func(loaded *loader.Instance) error {
		list, err := gateway.TrackedSAs(loaded.Maps())
		for _, s := range list {
			rows = append(rows, saRow{From: s.Remote, InSPI: s.InSPI, IdleMS: s.IdleMS,
				Liveness: ike.Liveness{ProofMS: s.ProofMS, Proof: s.Proof, Alarm: s.Alarm}, source: s})
		}
		return err
	})
	return rows, err
}

// longest sorts ages, those that never began first.
func longest(a, b *int64) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return cmp.Compare(*b, *a)
}

func byPeer(a, b saRow) int {
	return cmp.Or(strings.Compare(a.Peer, b.Peer), a.From.Compare(b.From), strings.Compare(a.InSPI, b.InSPI))
}

// orders are what sas can be sorted by.
var orders = map[string]func(a, b saRow) int{
	"peer":  byPeer,
	"idle":  func(a, b saRow) int { return cmp.Or(longest(a.IdleMS, b.IdleMS), byPeer(a, b)) },
	"proof": func(a, b saRow) int { return cmp.Or(longest(a.ProofMS, b.ProofMS), byPeer(a, b)) },
	"up":    func(a, b saRow) int { return cmp.Or(longest(a.UpMS, b.UpMS), byPeer(a, b)) },
}

func checkSort(key string) error {
	if orders[key] == nil {
		return usage("--sort %q: one of peer, idle, proof, up", key)
	}
	return nil
}

// pick sorts and shortens; limit 0 is all.
func pick(rows []saRow, key string, limit int, alarms bool) []saRow {
	if alarms {
		rows = slices.DeleteFunc(rows, func(r saRow) bool { return r.Alarm == "" })
	}
	slices.SortFunc(rows, orders[key])
	if limit > 0 && limit < len(rows) {
		rows = rows[:limit]
	}
	return rows
}
