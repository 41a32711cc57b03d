package gateway

import (
	"context"
	"errors"
	"fmt"

	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/ike/tun"
)

// Dataplane is what carries the packets, and what it has counted.
type Dataplane struct {
	Kind      string            `json:"kind"`
	Interface string            `json:"interface"`
	Counters  map[string]uint64 `json:"counters"`
}

// openDataplane makes the TUN interface: ESP is sealed and opened here.
func (d *daemon) openDataplane(context.Context) error {
	guard, err := newGuard(d.Names, d.Config, d.Log)
	if err != nil {
		return fmt.Errorf("barriers: %w", err)
	}
	n := d.Names
	device, err := tun.Open(tun.Config{Name: n.TUN, Table: n.Table, Mark: n.mark(),
		MTU: deviceMTU(d.Config), Routes: poolRoutes(d.Config), Plan: guard.plan})
	if err != nil {
		return errors.Join(fmt.Errorf("data plane: %w", err), guard.close(true))
	}
	d.own(func() error {
		// After a fault they stay until the next start, and so does what a
		// killed daemon has left to one that cannot start.
		if d.failed || !d.up && guard.left {
			return errors.Join(guard.close(true), device.Leave())
		}
		d.Log.Info("the barriers are taken away: what tunnels covered may go in the clear")
		return errors.Join(guard.close(false), device.Close())
	})
	d.guard = guard
	if err := guard.begin(device); err != nil {
		return fmt.Errorf("barriers: %w", err)
	}
	d.mindMarks()
	d.ipv6Off = tun.IPv6Off(device.Name())
	for _, problem := range ipv6Problems(d.ipv6Off, d.Config.Pools) {
		d.Log.Warn(problem)
	}
	d.plane = tun.New(device, d.endpoints.SendESP, d.ledger.Stamp)
	return nil
}

func (d *daemon) planeOf(shard int) ike.DataPlane { return d.plane.Shard(shard) }

func (d *daemon) servePlane(ctx context.Context) error {
	return d.plane.Serve(ctx, d.gateway.Transmit)
}

func (d *daemon) dataplane() Dataplane {
	c := d.plane.Counters()
	return Dataplane{Kind: d.Config.Dataplane, Interface: d.Names.TUN, Counters: map[string]uint64{
		"in": c.In, "in_bytes": c.InBytes, "out": c.Out, "out_bytes": c.OutBytes,
		"unknown_spi": c.UnknownSPI, "replay": c.Replay, "icv": c.ICV, "selector": c.Selector,
		"dummy": c.Dummy, "malformed": c.Malformed, "ecn": c.ECN,
		"no_tunnel": c.NoTunnel, "exhausted": c.Exhausted,
		"device_errors": c.DeviceErrors, "send_errors": c.SendErrors,
	}}
}
