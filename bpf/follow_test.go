package bpf

import (
	"net/netip"
	"testing"
)

// foreignSPI carries no slot of ours: its low bits are beyond the maps.
const foreignSPI = 0xc0ffee01

func following(s *settings) { s.Foreign, s.AccountEveryPacket = 1, 1 }

// follow registers another daemon's SA of the frame's destination.
func (r *rig) follow(f frame, protocol, slot, spi, hash uint32) *rig {
	tuple := f.tuple()
	r.put(r.IkepulseFollow, FollowKey{Local: tuple.Local, Spi: spi, Protocol: protocol}, slot)
	r.put(r.IkepulseSas, slot, SAEntry{Spi: spi, Local: tuple.Local, Peer: tuple.Peer})
	r.put(r.IkepulseHot, slot, HotEntry{Spi: spi, TupleHash: hash})
	return r
}

// at is what a packet leaves behind that belongs to the slot.
func (r *rig) at(slot, seq uint32) func(*state) {
	return func(s *state) {
		hot, sa := s.Hot[slot], s.SAs[slot]
		hot.Seen = r.now
		sa.Packets++
		sa.LastSeq = seq
		s.Hot[slot], s.SAs[slot] = hot, sa
	}
}

// An SA is what address, SPI and protocol say together. ESP in UDP is ESP.
func TestFollowedSAs(t *testing.T) {
	r := load(t, following)
	esp, ah1 := bareESP(foreignSPI, 7), ah(foreignSPI, 8)
	elsewhere := esp.alter(func(f *frame) { f.dst = netip.AddrPortFrom(another, 4500) })
	over6 := esp.alter(over6)
	r.local(esp).local(elsewhere).local(over6)
	r.follow(esp, protocolESP, 2, foreignSPI, 0)
	r.follow(ah1, protocolAH, 3, foreignSPI, 0)
	r.follow(elsewhere, protocolESP, 4, foreignSPI, 0)
	r.follow(over6, protocolESP, 0, foreignSPI, 0)

	r.expect(esp, ReasonESPKnown, r.at(2, 7))
	r.expect(espInUDP(foreignSPI, 9), ReasonESPUDPKnown, r.at(2, 9))
	r.expect(ah1, ReasonAHKnown, r.at(3, 8))
	r.expect(elsewhere, ReasonESPKnown, r.at(4, 7))
	r.expect(over6, ReasonESPKnown, r.at(0, 7))
	r.expect(bareESP(foreignSPI+1, 7), ReasonESPUnknown)
	r.expect(ah(foreignSPI, 1).alter(func(f *frame) { f.dst = elsewhere.dst }), ReasonAHUnknown)
}

// An entry that is stale, or that lies, finds nothing.
func TestFollowedSlots(t *testing.T) {
	r := load(t, following)
	f := bareESP(foreignSPI, 7)
	r.local(f).follow(f, protocolESP, 2, foreignSPI, 0)
	key := FollowKey{Local: f.tuple().Local, Spi: foreignSPI, Protocol: protocolESP}
	for _, slot := range []uint32{1, slots, SlotField, 1<<32 - 1} {
		r.put(r.IkepulseFollow, key, slot)
		r.expect(f, ReasonESPUnknown)
	}
	// The slot in an SPI of our own form is not looked at.
	own := bareESP(knownSPI, 1)
	r.sa(knownSPI, own.tuple(), 0).expect(own, ReasonESPUnknown)
}

func TestFollowedDrift(t *testing.T) {
	r := load(t, following)
	f := bareESP(foreignSPI, 7)
	tuple := f.tuple()
	r.local(f).follow(f, protocolESP, 2, foreignSPI, tuple.Hash())
	r.expect(f, ReasonESPKnown, r.at(2, 7))
	moved := f.alter(func(f *frame) { f.src = netip.AddrPortFrom(another, 0) })
	r.expect(moved, ReasonESPMoved, r.at(2, 7), func(s *state) {
		sa := s.SAs[2]
		sa.MovedTick = r.now
		s.SAs[2] = sa
		s.Counters["events"]++
		s.Events = []Event{{Kind: EventDrift, Spi: foreignSPI, From: moved.tuple(), Before: tuple}}
	})
}

// Unless told so, the program asks no hash about SPIs.
func TestNotFollowing(t *testing.T) {
	r := load(t)
	f := bareESP(foreignSPI, 7)
	r.local(f).follow(f, protocolESP, 2, foreignSPI, 0)
	r.expect(f, ReasonESPUnknown)
}
