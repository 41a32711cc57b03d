package ike

import (
	"context"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/shard"
)

// Snapshots hold no instants but ages, in the unit that their key names.
type (
	// Peer is an IKE SA.
	Peer = shard.Peer
	// SA is a Child SA under its inbound SPI.
	SA = shard.ChildView
	// Down is a connection that is to be up and is not.
	Down = shard.Down
	// Liveness is what is known of a peer's life.
	Liveness = shard.Liveness
)

// Status sums up a gateway.
type Status struct {
	UpMS          int64  `json:"up_ms"` // since New
	EventsDropped uint64 `json:"events_dropped"`
	shard.Status
}

// Peers describes all IKE SAs, half-open ones included.
func (g *Gateway) Peers(ctx context.Context) ([]Peer, error) { return g.group.Peers(ctx) }

// SAs describes all Child SAs.
func (g *Gateway) SAs(ctx context.Context) ([]SA, error) {
	peers, err := g.group.Peers(ctx)
	var out []SA
	for _, p := range peers {
		if p.Child != nil {
			out = append(out, *p.Child)
		}
	}
	return out, err
}

// Status asks all parts of the gateway how they are.
func (g *Gateway) Status(ctx context.Context) (Status, error) {
	st, err := g.group.Status(ctx)
	return Status{UpMS: time.Duration(g.clock() - g.began).Milliseconds(), EventsDropped: g.hub.dropped.Load(), Status: st}, err
}
