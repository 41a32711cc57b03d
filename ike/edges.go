package ike

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"

	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/shard"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// The edges of a gateway, and what they speak of. Their contracts stand at the
// definitions.
type (
	Tracker   = shard.Tracker
	DataPlane = shard.DataPlane
	Sender    = shard.Sender
	Store     = shard.Store
	Packet    = wire.Packet
	ChildSA   = sa.ChildSA
	Path      = sa.Path
)

// Edges are what a gateway acts through. All but Store, Logger and Rand must be
// given.
type Edges struct {
	Tracker Tracker
	// DataPlane makes one object for each shard, which is called by that
	// shard alone.
	DataPlane func(shard int) DataPlane
	Sender    Sender
	Store     Store // nil: nothing survives a restart
	// AllocSPI and FreeSPI give a shard's own part of the inbound SPIs; the
	// functions that they return are called by that shard alone. ESPShard
	// tells whose an SPI is, and any goroutine calls it.
	AllocSPI func(shard int) func(now int64) (spi uint32, ok bool)
	FreeSPI  func(shard int) func(spi uint32, now int64)
	ESPShard func(spi uint32) int
	// Resolve gives the addresses of a host's name, in the order in which they
	// are to be tried. It returns when ctx ends. Any goroutine calls it. It may be
	// nil where no host is a name.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	Logger  *slog.Logger // nil: no logs
	// Advise says in a few words what can be done about a refusal, or nothing: "".
	// It is nil where nobody is to be told. One goroutine calls it.
	Advise func(Refusal) string
	// Clock reads CLOCK_BOOTTIME in nanoseconds. Any goroutine calls it.
	Clock func() int64
	// Rand is safe for concurrent use and never fails; nil: crypto/rand.
	Rand io.Reader
}

func (e *Edges) check() error {
	if e.Tracker == nil || e.DataPlane == nil || e.Sender == nil || e.AllocSPI == nil || e.FreeSPI == nil ||
		e.ESPShard == nil || e.Clock == nil {
		return errors.New("ike: an edge is missing")
	}
	return nil
}
