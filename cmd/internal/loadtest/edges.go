package loadtest

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike"
)

// edges are those of initiators whose tunnels carry nothing.
func (w *wire) edges(shards int) ike.Edges {
	s := newSPIs(shards)
	return ike.Edges{Tracker: nobody{}, DataPlane: func(int) ike.DataPlane { return nothing{} }, Sender: w,
		AllocSPI: s.alloc, FreeSPI: s.free, ESPShard: s.shardOf, Clock: bootTime}
}

// nobody is a tracker that hears nobody: there is no evidence but IKE.
type nobody struct{}

func (nobody) Track(uint32, netip.AddrPort, netip.AddrPort, bool) error { return nil }
func (nobody) Untrack(uint32, netip.AddrPort, netip.AddrPort) error     { return nil }
func (nobody) Move(_ uint32, _, _, _, _ netip.AddrPort, _ bool) error   { return nil }
func (nobody) Evidence(uint32) (seen, auth int64)                       { return 0, 0 }

// nothing is a data plane that carries nothing, and keeps no key.
type nothing struct{}

func (nothing) InstallInbound(*ike.ChildSA) error           { return nil }
func (nothing) InstallOutbound(*ike.ChildSA) error          { return nil }
func (nothing) MoveOutbound(uint32, uint32, ike.Path) error { return nil }
func (nothing) RemoveOutbound(uint32, uint32) error         { return nil }
func (nothing) RemoveInbound(uint32, uint32) error          { return nil }
func (nothing) LastSent(uint32) int64                       { return 0 }
func (nothing) Receive(int64, ike.Packet) (authentic bool)  { return false }
func (nothing) Transmit(int64, []byte)                      {}

// spis gives each shard its own SPIs, and none twice.
type spis struct{ next []uint32 }

// newSPIs begins where chance has it: a gateway may still know those of an
// earlier run from the same addresses.
func newSPIs(shards int) *spis {
	var b [4]byte
	rand.Read(b[:])                                      // never fails
	const reserved = 256                                 // RFC 4303 §2.1
	first := reserved + binary.BigEndian.Uint32(b[:])>>8 // leaves room for 255 × as many
	s := &spis{next: make([]uint32, shards)}
	for i := range s.next {
		s.next[i] = first*uint32(shards) + uint32(i)
	}
	return s
}

func (s *spis) alloc(shard int) func(int64) (uint32, bool) {
	return func(int64) (uint32, bool) {
		spi := s.next[shard]
		s.next[shard] += uint32(len(s.next))
		return spi, true
	}
}

func (s *spis) free(int) func(uint32, int64) { return func(uint32, int64) {} }

func (s *spis) shardOf(spi uint32) int { return int(spi) % len(s.next) }

// bootTime reads CLOCK_BOOTTIME, which every Linux has.
func bootTime() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return t.Nano()
}
