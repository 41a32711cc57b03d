package gateway

import (
	"context"
	"fmt"
	"net/netip"

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
	var pools []netip.Prefix
	for _, p := range d.Config.Pools {
		pools = append(pools, p.Addresses)
	}
	n := d.Names
	device, err := tun.Open(tun.Config{Name: n.TUN, Table: n.Table, Mark: n.mark(), Routes: pools})
	if err != nil {
		return fmt.Errorf("data plane: %w", err)
	}
	d.own(device.Close)
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
