package shard

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"

	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// DeliverIKE takes IKE messages as they came from the wire. Any goroutine may
// call it, with messages for anybody: it looks at flags and SPIs only, copies
// each message into its owner's inbox, and waits for nobody. What does not fit
// is dropped and counted. A first message is judged here: it has a place among
// the half-open, or is answered with a cookie, or is none of the shards'
// business.
func (g *Group) DeliverIKE(packets []wire.Packet) {
	for _, p := range packets {
		h, err := wire.ParseHeader(p.Data)
		if err != nil || h.Major() < 2 {
			// RFC 9395: version 1 gets no bytes.
			g.undeliverable.Add(1)
			continue
		}
		if h.Major() == 2 && isFirst(h) {
			g.deliverFirst(p)
			continue
		}
		s := g.ikeOwner(h, p.Remote.Addr())
		box := &s.ike
		if ownSPI(h) == 0 || h.Exchange == wire.IKEAuth && h.Flags&wire.FlagResponse == 0 {
			box = &s.auth
		}
		if box.put(p) {
			s.rouse()
		}
	}
}

// DeliverESP takes ESP packets, from their SPI on, as DeliverIKE takes IKE. A
// caller that has both delivers IKE first.
func (g *Group) DeliverESP(packets []wire.Packet) {
	for _, p := range packets {
		if len(p.Data) < espHeader {
			g.undeliverable.Add(1)
			continue
		}
		if s := g.espOwner(binary.BigEndian.Uint32(p.Data)); s != nil && s.esp.put(p) {
			s.rouse()
		}
	}
}

// Drifted takes the word of somebody who sees packets before they are
// authenticated: one with this inbound SPI came from elsewhere than those
// before. As with DeliverESP nobody waits.
func (g *Group) Drifted(spi uint32, from netip.AddrPort) {
	s := g.espOwner(spi)
	if s == nil {
		return
	}
	// It is what is known of the packet.
	if s.drift.put(wire.Packet{Remote: from, Data: binary.BigEndian.AppendUint32(nil, spi)}) {
		s.rouse()
	}
}

// espOwner is the shard that an inbound SPI belongs to. One that would be
// nobody's is counted, and has none.
func (g *Group) espOwner(spi uint32) *Shard {
	owner := g.conf.Edges.ESPShard(spi)
	if owner < 0 || owner >= len(g.shards) {
		g.undeliverable.Add(1)
		return nil
	}
	return g.shards[owner]
}

// DeliverInner takes one packet that a tunnel of that shard is to carry.
func (g *Group) DeliverInner(shard int, inner []byte) {
	s := g.shards[shard]
	if s.inner.put(wire.Packet{Data: inner}) {
		s.rouse()
	}
}

// ikeOwner is the shard that a message is for. An IKE_SA_INIT request carries
// no SPI of ours: a keyed hash of its SPI and source prefix brings its
// retransmissions to the same shard, and nobody can choose which.
func (g *Group) ikeOwner(h wire.Header, from netip.Addr) *Shard {
	if spi := ownSPI(h); spi != 0 {
		return g.shards[int(spi>>shardShift)%len(g.shards)]
	}
	return g.bySource(h.SPIi, from)
}

// firstOwner is the shard of the SA that a first message begins.
func (g *Group) firstOwner(key halfopen.Key) *Shard { return g.bySource(key.SPI, key.Remote.Addr()) }

func (g *Group) bySource(spi uint64, from netip.Addr) *Shard {
	var b [8 + 16]byte
	binary.BigEndian.PutUint64(b[:], spi)
	prefix := SourcePrefix(from).As16()
	copy(b[8:], prefix[:])
	return g.shards[maphash.Bytes(g.seed, b[:])%uint64(len(g.shards))]
}

// ownSPI is the SPI in a message that is ours, 0 if it has none: the sender
// says by the initiator flag which of the two is his. RFC 7296 §3.1
func ownSPI(h wire.Header) uint64 {
	if h.Flags&wire.FlagInitiator != 0 {
		return h.SPIr
	}
	return h.SPIi
}

// isFirst tells that a message begins an IKE SA. RFC 7296 §1.2
func isFirst(h wire.Header) bool {
	return h.Exchange == wire.IKESAInit && h.SPIr == 0 && h.SPIi != 0 &&
		h.Flags&wire.FlagInitiator != 0 && h.Flags&wire.FlagResponse == 0
}

// SourcePrefix is what counts as one source: an IPv4 address, or the /64 that
// one IPv6 host can be anybody in. RFC 8019 §4.3
func SourcePrefix(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a
	}
	p, _ := a.Prefix(64) // cannot fail for an IPv6 address
	return p.Addr()
}
