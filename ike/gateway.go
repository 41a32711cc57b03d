// Package ike is an IKEv2 gateway without sockets, maps and devices: those are
// edges that its caller gives. It negotiates, keeps and ends tunnels for a
// configuration, tells what happens as events and log lines, and what is as
// snapshots.
//
// A [Gateway] is made by [New] and lives as long as its Run. All its methods
// may be called by any goroutine, and none of them waits for a peer, except
// Initiate.
package ike

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/directory"
	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/shard"
)

// What Initiate, Terminate and the others may fail with.
var (
	ErrUnknown = shard.ErrUnknown // no connection of that name
	ErrStopped = shard.ErrStopped // Run has returned
	ErrBusy    = shard.ErrBusy    // too much is asked at once
)

// Gateway is an IKEv2 gateway.
type Gateway struct {
	group *shard.Group
	hub   *hub
	clock func() int64
	began int64
}

const (
	// halfOpenTime is how long a peer may take from IKE_SA_INIT to IKE_AUTH.
	halfOpenTime = 30 * time.Second
	// keyExchangeBytes is what may wait for a key exchange: some 40,000 clients.
	keyExchangeBytes = 128 << 20
)

// New makes a gateway. It starts nothing.
func New(c Config, e Edges) (*Gateway, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	if c.Capacity < 1 {
		return nil, errors.New("ike: the capacity must be positive")
	}
	set, err := c.policy()
	if err != nil {
		return nil, err
	}
	if e.Resolve == nil && c.named() {
		return nil, errors.New("ike: a host is a name, and nothing resolves it")
	}
	clock := func() mono.Time { return mono.Time(e.Clock()) }
	g := &Gateway{hub: newHub(e.logger(), clock, set, e.adviser()), clock: e.Clock, began: e.Clock()}
	conf := shard.Config{
		Edges: shard.Edges{Tracker: e.Tracker, DataPlane: e.DataPlane, Sender: e.Sender, Store: e.Store,
			AllocSPI: e.AllocSPI, FreeSPI: e.FreeSPI, ESPShard: e.ESPShard, Resolve: e.Resolve},
		Policy: set, Listen: c.Addresses,
		IKEPort: orDefault(c.IKEPort, 500), NATTPort: orDefault(c.NATTPort, 4500), ForceEncap: c.ForceEncap,
		HalfOpen: halfOpenTime, Limits: halfopen.Limits(c.HalfOpen).Auto(c.Capacity), Shards: c.Shards, MaxSAs: c.Capacity,
		Workers: runtime.GOMAXPROCS(0), JobBytes: keyExchangeBytes, Rand: e.Rand,
		Clock: clock, After: time.After, Sink: g.hub.sink, Surge: g.hub.surge,
	}
	if conf.Rand == nil {
		conf.Rand = rand.Reader
	}
	for _, p := range c.Pools {
		conf.Pools = append(conf.Pools, directory.Pool(p))
	}
	g.group, err = shard.NewGroup(conf)
	return g, err
}

func orDefault(port, otherwise uint16) uint16 {
	if port == 0 {
		return otherwise
	}
	return port
}

func (e *Edges) logger() *slog.Logger {
	if e.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return e.Logger
}

// adviser says nothing where nobody does.
func (e *Edges) adviser() func(Refusal) string {
	if e.Advise == nil {
		return func(Refusal) string { return "" }
	}
	return e.Advise
}

// Run runs the gateway until ctx ends. Then it deletes its tunnels, for five
// seconds at most, takes back everything that it has put into its edges, and
// returns when everything that it started has ended. It is called once.
func (g *Gateway) Run(ctx context.Context) error {
	stop, stopped := make(chan struct{}), make(chan struct{})
	// Ends when stop is closed.
	go func() {
		g.hub.run(stop)
		close(stopped)
	}()
	g.group.Run(ctx)
	close(stop)
	<-stopped
	return nil
}

// Deliver takes datagrams as they came from the sockets: IKE messages without
// non-ESP marker, and ESP packets from their SPI on. Whoever they are for, it
// copies them into that shard's inbox and returns; what does not fit is dropped
// and counted.
func (g *Gateway) Deliver(ike, esp []Packet) {
	g.group.DeliverIKE(ike)
	g.group.DeliverESP(esp)
}

// Transmit takes a copy of one inner packet that a tunnel of that shard is to
// carry, and has that shard's data plane send it.
func (g *Gateway) Transmit(shard int, inner []byte) { g.group.DeliverInner(shard, inner) }

// Drifted tells that a packet with this inbound SPI came from another address or
// port than the tunnel's packets so far, as seen by somebody who cannot tell
// whether it is authentic. It moves nothing. The peer is asked for a sign of
// life once in a while, unless his DPD is off; a hint of a tunnel that is not
// there, or that is being asked or deleted, changes nothing.
//
// The question goes to the peer's endpoint, which is that of the last authentic
// packet (RFC 7296 §2.23), and to no other: a copy to from would let whoever
// knows an SPI have us send to an address of his choice. It is not needed
// either. Where a NAT has given the peer another mapping, the packet itself
// moves the endpoint as soon as the data plane has authenticated it, and a
// question that is still open then goes there at once.
func (g *Gateway) Drifted(spi uint32, from netip.AddrPort) { g.group.Drifted(spi, from) }

// Initiate brings a connection's tunnel up, and waits until it is up or has
// failed. Where it has brought one up before that lives, it does nothing.
func (g *Gateway) Initiate(ctx context.Context, name string) error {
	return g.group.Initiate(ctx, name)
}

// Terminate begins to delete the IKE SAs that the selector names, and tells how
// many they are: by connection, identity or address of the peer, or by an SPI of
// ours in hexadecimal (16 digits for IKE, 8 for ESP); "*" is all.
func (g *Gateway) Terminate(ctx context.Context, selector string) (int, error) {
	return g.group.Terminate(ctx, shard.Match(selector))
}

// Probe asks the peers of the IKE SAs that the selector names for a sign of
// life, and tells how many they are.
func (g *Gateway) Probe(ctx context.Context, selector string) (int, error) {
	return g.group.Probe(ctx, shard.Match(selector))
}

// SetAbsent names those of our addresses that this host does not have at
// present; the next call names them anew. No peer is called dead because our own
// address is away: what was asked meanwhile is asked again when it is back.
func (g *Gateway) SetAbsent(addresses []netip.Addr) { g.group.SetAbsent(addresses) }
