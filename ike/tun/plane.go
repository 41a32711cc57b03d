// Package tun is the user-space data plane: ESP is sealed and opened here, and
// inner packets come from and go to this host's network stack by one TUN
// interface. It needs no kernel IPsec, only /dev/net/tun.
//
// A [Device] is the interface, with the routes, rules and addresses around it.
// A [Plane] has the tunnels on it: one [Shard] for each of the gateway's
// shards, which alone touches the keys and windows of its tunnels, and one
// table, shared by all, that finds the tunnel for an inner packet.
//
// Packets of a tunnel go out in UDP, so no raw socket is needed. Outer ECN is
// neither read nor set: RFC 6040 calls that the compatibility mode.
package tun

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Plane is the tunnels of a gateway on one Device.
type Plane struct {
	device  *Device
	send    func(p wire.Packet) error
	stamp   func(spi uint32, now int64)
	deliver atomic.Pointer[Deliver]

	mu     sync.RWMutex // over table, shards
	table  table
	shards map[int]*Shard

	noTunnel, malformed, readErrors atomic.Uint64
}

// Deliver hands a packet that a tunnel is to carry to the shard that owns the
// tunnel, which calls Transmit with it. It copies the packet and does not
// block.
type Deliver func(shard int, inner []byte)

// New makes a plane without tunnels. send puts an ESP packet on the wire, and
// stamp records that a packet of an inbound SPI was authenticated; neither may
// block, and all shards call them, at the same time.
func New(d *Device, send func(p wire.Packet) error, stamp func(spi uint32, now int64)) *Plane {
	return &Plane{device: d, send: send, stamp: stamp, table: newTable(), shards: map[int]*Shard{}}
}

// Shard is the part of the plane that belongs to a shard, the same at each
// call.
func (p *Plane) Shard(index int) *Shard {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.shards[index]
	if !ok {
		s = &Shard{plane: p, index: index, tunnels: map[uint32]*tunnel{}}
		p.shards[index] = s
	}
	return s
}

// maxPacket is the most that an IP packet can be.
const maxPacket = 1 << 16

// Serve reads inner packets and delivers them until ctx ends, which is no
// error. When somebody has deleted the interface it waits for it to be made
// anew.
func (p *Plane) Serve(ctx context.Context, deliver Deliver) error {
	p.deliver.Store(&deliver)
	for {
		file := p.device.file.Load()
		err := p.read(ctx, file, deliver)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if file != p.device.file.Load() {
			continue
		}
		p.readErrors.Add(1)
		select {
		case <-ctx.Done():
		case <-p.device.anew:
		}
	}
}

// read delivers what comes by one file, until ctx ends or the file fails.
func (p *Plane) read(ctx context.Context, file *os.File, deliver Deliver) error {
	if err := file.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = file.SetReadDeadline(time.Unix(1, 0)) // fails if closed, and then so has the read
	})
	defer stop()
	buf := make([]byte, maxPacket)
	var found []*tunnel
	for {
		n, err := file.Read(buf)
		switch {
		case err == nil:
			found = p.forward(buf[:n], found, deliver)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		default:
			return err
		}
	}
}

// forward gives an inner packet to the shard of the tunnel that it belongs to.
// found is memory to use again.
func (p *Plane) forward(inner []byte, found []*tunnel, deliver Deliver) []*tunnel {
	src, dst, ok := addressesOf(inner)
	if !ok {
		p.malformed.Add(1)
		return found
	}
	found = p.find(found[:0], src, dst)
	if len(found) == 0 {
		p.noTunnel.Add(1)
		return found
	}
	deliver(found[0].shard, inner)
	return found
}

// find appends the tunnels whose selectors hold the addresses to found, the
// narrowest first and of those the newest. The longest prefix of the plan wins,
// also where it has no tunnel: a virtual address that nobody has, or a network
// whose tunnel is not up, is not in the wider one of another peer.
func (p *Plane) find(found []*tunnel, src, dst netip.Addr) []*tunnel {
	least, ok := p.device.net.plan.Load().Tunnel(dst)
	if !ok {
		return found
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.table.find(found, src, dst, least)
}

func (p *Plane) enter(t *tunnel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table.add(t)
}

func (p *Plane) leave(t *tunnel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table.remove(t)
}
