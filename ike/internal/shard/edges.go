package shard

import (
	"context"
	"net/netip"

	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// The edges are where the loops touch the world. None of their methods may
// block for long: the loop that calls waits. A method that returns an error has
// changed nothing, so that the step can be answered as one that never was.

// Tracker knows which inbound SPIs are alive, and when each was last heard. It
// speaks builtin types, so that neither side imports the other. Every shard
// calls it, at the same time.
type Tracker interface {
	// Track registers an SPI and the pair of endpoints that it comes from;
	// natted says that the peer, and not we, stands behind a NAT.
	Track(spi uint32, local, peer netip.AddrPort, natted bool) error
	// Untrack ends what Track began, at the pair of endpoints of the last
	// Track or Move.
	Untrack(spi uint32, local, peer netip.AddrPort) error
	// Move takes a tracked SPI to another pair of endpoints.
	Move(spi uint32, oldLocal, oldPeer, newLocal, newPeer netip.AddrPort, natted bool) error
	// Evidence reads, without a system call, when a packet with this SPI was
	// last seen and when one was last authenticated: nanoseconds of
	// CLOCK_BOOTTIME, never later than it was, 0 for never.
	Evidence(spi uint32) (seen, auth int64)
}

// DataPlane carries the packets of one shard's Child SAs. Only that shard's
// goroutine calls it, so that its state needs no lock.
type DataPlane interface {
	InstallInbound(c *sa.ChildSA) error
	InstallOutbound(c *sa.ChildSA) error
	MoveOutbound(inSPI, outSPI uint32, path sa.Path) error
	RemoveOutbound(inSPI, outSPI uint32) error
	RemoveInbound(inSPI, outSPI uint32) error
	// LastSent is when a packet last went out through the Child SA with this
	// inbound SPI; 0 for never.
	LastSent(inSPI uint32) int64
	// Receive opens an ESP packet, stamps the evidence of its SPI if it is
	// authentic, and hands on what is inside. It tells whether it was
	// authentic and no replay. A kernel's data plane never gets one.
	Receive(now int64, p wire.Packet) (authentic bool)
	// Transmit seals and sends one inner packet. It may not keep it.
	Transmit(now int64, inner []byte)
}

// Sender puts one datagram on the wire, from its Local endpoint. An IKE message
// that goes out on the NAT traversal port gets its non-ESP marker there; the
// single byte 0xFF, a NAT keepalive, does not. What it returns is counted: a
// datagram that could not be sent is one that was lost. Every shard calls it, and
// whoever delivers first messages, at the same time; Data is not kept after the
// return.
type Sender interface {
	Send(p wire.Packet) error
}

// Store keeps the records that a restart takes up again. They hold keys. Every
// shard calls it, at the same time; a record is not kept after the return. Those
// that follow an SA's first are at most room bytes longer than that: a tunnel that
// is up is not to need what a full store does not have.
type Store interface {
	Put(spi uint64, record []byte, room int) error
	Delete(spi uint64) error
}

// Edges are what a Group acts through.
type Edges struct {
	Tracker   Tracker
	DataPlane func(shard int) DataPlane
	Sender    Sender
	Store     Store // nil: nothing survives a restart
	// AllocSPI and FreeSPI give a shard's own part of the inbound SPIs. The
	// functions that they return are called by that shard alone.
	AllocSPI func(shard int) func(now int64) (spi uint32, ok bool)
	FreeSPI  func(shard int) func(spi uint32, now int64)
	// ESPShard tells whose an inbound SPI is. Any goroutine calls it.
	ESPShard func(spi uint32) int
	// Resolve gives the addresses of a host's name, in the order in which they
	// are to be tried. It may take its time, but returns when ctx ends. Any
	// goroutine but a loop calls it. It may be nil where no host is a name.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
}
