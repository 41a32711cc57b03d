package bpf

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func TestESP(t *testing.T) {
	from := func(address netip.Addr, port uint16) func(*frame) {
		return func(f *frame) { f.src = netip.AddrPortFrom(address, port) }
	}
	same := func(*frame) {}
	reused := uint32(knownSPI + 1<<SlotBits) // the same slot, the next tag

	for _, row := range []struct {
		name   string
		spi    uint32
		change func(*frame)
		want   Reason // of ESP in UDP
		bare   Reason
	}{
		{"known", knownSPI, same, ReasonESPUDPKnown, ReasonESPKnown},
		{"from another address", knownSPI, from(another, peer.Port()), ReasonESPUDPMoved, ReasonESPMoved},
		{"from another port", knownSPI, from(peer.Addr(), peer.Port()+1), ReasonESPUDPMoved, ReasonESPKnown},
		{"the slot's next SPI", reused, same, ReasonESPUDPUnknown, ReasonESPUnknown},
		{"the slot without a tag", knownSPI & SlotField, same, ReasonESPUDPUnknown, ReasonESPUnknown},
		{"a free slot", knownSPI + 1, same, ReasonESPUDPUnknown, ReasonESPUnknown},
		{"the first slot, free", 5 << SlotBits, same, ReasonESPUDPUnknown, ReasonESPUnknown},
		{"the first slot beyond the map", 5<<SlotBits | slots, same, ReasonESPUDPUnknown, ReasonESPUnknown},
		{"a slot far beyond it", knownSPI | slots<<4, same, ReasonESPUDPUnknown, ReasonESPUnknown},
		{"the last slot there is", 5<<SlotBits | SlotField, same, ReasonESPUDPUnknown, ReasonESPUnknown},
		{"the reserved SPI 255", 255, same, ReasonESPUDPUnknown, ReasonESPUnknown},
		{"its bytes swapped", bits.ReverseBytes32(knownSPI), same, ReasonESPUDPUnknown, ReasonESPUnknown},
	} {
		for _, base := range []struct {
			name string
			frame
			want Reason
		}{
			{"in UDP", espInUDP(row.spi, 1234), row.want},
			{"bare", bareESP(row.spi, 1234), row.bare},
		} {
			t.Run(row.name+" "+base.name, func(t *testing.T) {
				expected := base.frame.tuple()
				f := base.frame.alter(row.change)
				r := load(t).local(f).sa(knownSPI, expected, expected.Hash())
				r.expect(f, base.want, r.stamps(base.want, knownSPI))
				r.expect(f, base.want, r.stamps(base.want, knownSPI))

				account := load(t, func(s *settings) { s.AccountEveryPacket = 1 })
				account.local(f).sa(knownSPI, expected, expected.Hash())
				for range 2 {
					account.expect(f, base.want, account.stamps(base.want, knownSPI), func(s *state) {
						if base.want != ReasonESPUDPUnknown && base.want != ReasonESPUnknown {
							accounted(knownSPI, 1234)(s)
						}
					})
				}
			})
		}
	}
}

// stamps is what a reason's frame leaves behind.
func (r *rig) stamps(reason Reason, spi uint32) func(*state) {
	switch reason {
	case ReasonESPUDPKnown, ReasonESPKnown:
		return r.seen(spi)
	case ReasonESPUDPMoved, ReasonESPMoved:
		return r.moved(spi)
	}
	return func(*state) {}
}

// RFC 4303 section 2.1 reserves SPI 0; a free slot holds it.
func TestBareESPWithSPIZero(t *testing.T) {
	f := bareESP(0, 1)
	load(t).local(f).expect(f, ReasonESPUnknown)
}

// An SA whose tuple the daemon did not say is expected from anywhere.
func TestESPWithoutExpectedTuple(t *testing.T) {
	f := espInUDP(knownSPI, 1)
	r := load(t).local(f).sa(knownSPI, f.tuple(), 0)
	r.expect(f, ReasonESPUDPKnown, r.seen(knownSPI))
	r.expect(bareESP(knownSPI, 1), ReasonESPKnown)
}

// An SA in UDP that turns up bare has moved: its tuple has other ports.
func TestESPLeavesUDP(t *testing.T) {
	f := espInUDP(knownSPI, 1)
	tuple := f.tuple()
	r := load(t).local(f).sa(knownSPI, tuple, tuple.Hash())
	r.expect(bareESP(knownSPI, 1), ReasonESPMoved, r.moved(knownSPI))
}

// Slots above the mask are nobody's, even where the map has room for them: the
// mask is what the daemon allocates from.
func TestSlotMask(t *testing.T) {
	f := espInUDP(knownSPI|slots, 1)
	larger := func(s *settings) { s.hotEntries = 2 * slots }
	r := load(t, larger).local(f).sa(knownSPI|slots, f.tuple(), 0)
	r.expect(f, ReasonESPUDPUnknown)

	wider := func(s *settings) { s.SlotMask = 2*slots - 1 }
	r = load(t, larger, wider).local(f).sa(knownSPI|slots, f.tuple(), 0)
	r.expect(f, ReasonESPUDPKnown, r.seen(knownSPI|slots))
}

// The stamp follows the clock, across the wrap as elsewhere, and leaves alone
// what the daemon wrote beside it.
func TestSeenFollowsTheTick(t *testing.T) {
	f := espInUDP(knownSPI, 1)
	tuple := f.tuple()
	for _, row := range []struct{ seen, now uint32 }{
		{0, 5000}, {4999, 5000}, {5000, 5000}, {1<<32 - 1, 1}, {1<<32 - 2, 1<<32 - 1}, {1, 1<<32 - 1},
	} {
		r := load(t, func(s *settings) { s.now = row.now })
		r.local(f).sa(knownSPI, tuple, tuple.Hash())
		r.put(r.IkepulseHot, uint32(knownSPI&SlotField), HotEntry{
			Spi: knownSPI, Seen: row.seen, Auth: 99, TupleHash: tuple.Hash(),
		})
		r.expect(f, ReasonESPUDPKnown, r.seen(knownSPI))
	}
}

// Only the shift of the tick decides what a tick is.
func TestTickShift(t *testing.T) {
	f := espInUDP(knownSPI, 1)
	r := load(t, func(s *settings) { s.now, s.TickShift = 0xfedcba98, 8 })
	r.now = 0xfedcba
	r.local(f).sa(knownSPI, f.tuple(), 0)
	r.expect(f, ReasonESPUDPKnown, r.seen(knownSPI))
}

// The two implementations of the tuple hash agree: where they did not, a
// packet would count as moved, or as not for us, since no address is local.
func TestTupleHashMatchesGo(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	address := func() netip.AddrPort {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], random.Uint32())
		return netip.AddrPortFrom(netip.AddrFrom4(b), uint16(random.Uint32()))
	}
	r := load(t)
	for range 300 {
		for _, f := range []frame{espInUDP(knownSPI, 1), bareESP(knownSPI, 1)} {
			f.src, f.dst = address(), netip.AddrPortFrom(address().Addr(), f.dst.Port())
			tuple := f.tuple()
			r.sa(knownSPI, tuple, tuple.Hash())
			want := ReasonESPKnown
			if f.protocol == protocolUDP {
				want = ReasonESPUDPKnown
			}
			r.expect(f, want, r.seen(knownSPI))
		}
	}
}

// A NAT that maps to another port is always noticed.
func TestTupleHashKeepsPortsApart(t *testing.T) {
	f := espInUDP(knownSPI, 1)
	tuple := f.tuple()
	seen := map[uint32]bool{}
	for port := range 1 << 16 {
		tuple.PeerPort = uint16(port)
		seen[tuple.Hash()] = true
	}
	if len(seen) != 1<<16 {
		t.Errorf("%d hashes of %d ports", len(seen), 1<<16)
	}
}

// A tuple whose hash would be 0, which stands for "none expected", gets 1: the
// last step is undone to find its ports.
func TestTupleHashIsNeverZero(t *testing.T) {
	f := espInUDP(knownSPI, 1)
	tuple := f.tuple()
	for try := range uint32(1 << 24) {
		binary.BigEndian.PutUint32(tuple.Peer[12:], 0xcb000000|try)
		if hash := tuple.hashAddresses(); hash>>16 == uint32(f.dst.Port()) {
			tuple.PeerPort = uint16(hash)
			break
		}
	}
	if hash := tuple.Hash(); hash != 1 {
		t.Fatalf("hash %#x, want 1", hash)
	}
	f.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(tuple.Peer[12:])), tuple.PeerPort)
	r := load(t).sa(knownSPI, tuple, 1)
	r.expect(f, ReasonESPUDPKnown, r.seen(knownSPI))
}
