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

func peersCommand(e env) *cli.Command {
	return &cli.Command{
		Name: "peers", Category: "Look", Usage: "the peers: a line an IKE SA, half-open ones included",
		UsageText: "[--json]",
		Description: `NAT is who stands behind one. Without the daemon the pins tell which addresses
are known, and their keepalives.

Example: ikepulse peers | grep connecting`,
		Flags: []cli.Flag{jsonFlag},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			rows, err := peersOf(c)
			if err != nil {
				return err
			}
			slices.SortFunc(rows, func(a, b peerRow) int {
				return cmp.Or(strings.Compare(a.Peer, b.Peer), a.From.Compare(b.From))
			})
			if !c.Bool("json") {
				return renderPeers(e.stdout, e.terminal, rows)
			}
			all := make([]any, len(rows))
			for i, r := range rows {
				all[i] = r.source
			}
			return printJSON(e.stdout, all)
		},
	}
}

// peerRow is a peer as far as it is known; what is not is empty.
type peerRow struct {
	Peer, Connection, State string
	From                    netip.AddrPort
	PeerNATted, LocalNATted bool
	UpMS                    *int64
	ike.Liveness
	keepalives *gateway.Keepalives
	source     any // what JSON shows
}

// peersOf asks the daemon or, without one, the pins.
func peersOf(c *cli.Context) (rows []peerRow, err error) {
	i := instanceOf(c)
	var list []gateway.Peer
	err = i.daemon.Get(c.Context, "/v1/peers", &list)
	for _, p := range list {
		rows = append(rows, peerRow{p.Identity, p.Connection, p.State, p.Remote, p.PeerNATted, p.LocalNATted, &p.UpMS,
			p.Liveness, p.Keepalives, p})
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return rows, err
	}
	err = i.fromPins(func(loaded *loader.Instance) error {
		list, err := gateway.TrackedPeers(loaded.Maps())
		for _, p := range list {
			rows = append(rows, peerRow{From: p.Remote, PeerNATted: p.PeerNATted, keepalives: &p.Keepalives, source: p})
		}
		return err
	})
	return rows, err
}
