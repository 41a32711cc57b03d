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
		UsageText: "[WHO] [--json]",
		Description: `NAT is who stands behind one. KEEPALIVES are those of the address, and how long ago
the last came; they prove nothing. Without the daemon the pins tell which addresses
are known. A peer in the state "no child" has an IKE SA and no Child SA: nothing gets
through, and the log says why.

WHO is ` + whoText + `.

Example: ikepulse peers | grep connecting`,
		Flags: []cli.Flag{jsonFlag},
		Action: func(c *cli.Context) error {
			who, err := whoOf(c)
			if err != nil {
				return err
			}
			rows, err := peersOf(c)
			if err != nil {
				return err
			}
			rows = slices.DeleteFunc(rows, func(r peerRow) bool {
				return !who.is(r.From, append(r.spis, r.Peer, r.Connection)...)
			})
			if len(rows) == 0 && who != everybody {
				return instanceOf(c).nobody(c.Context, who)
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
	spis       []string // ours
	source     any      // what JSON shows
}

// peersOf asks the daemon or, without one, the pins.
func peersOf(c *cli.Context) (rows []peerRow, err error) {
	i := instanceOf(c)
	var list []gateway.Peer
	err = i.daemon.Get(c.Context, "/v1/peers", &list)
	for _, p := range list {
		spis := []string{p.SPI}
		if p.Child != nil {
			spis = append(spis, p.Child.InSPI)
		}
		rows = append(rows, peerRow{p.Identity, p.Connection, p.State, p.Remote, p.PeerNATted, p.LocalNATted, &p.UpMS,
			p.Liveness, p.Keepalives, spis, p})
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
