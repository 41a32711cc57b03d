package bpf

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// sender is a kind of packet that carries an SPI, and the first of the three
// reasons it leaves by.
type sender struct {
	name  string
	frame func(spi, seq uint32) frame
	known Reason
}

const known, moved, unknown Reason = 0, 1, 2

func senders() []sender {
	all := []sender{
		{"ESP in UDP", espInUDP, ReasonESPUDPKnown},
		{"first fragment of ESP in UDP", firstFragment(espInUDP), ReasonFragESPUDPKnown},
		{"ESP", bareESP, ReasonESPKnown},
		{"first fragment of ESP", firstFragment(bareESP), ReasonESPKnown},
		{"AH", ah, ReasonAHKnown},
		{"first fragment of AH", firstFragment(ah), ReasonAHKnown},
	}
	for _, s := range all {
		all = append(all, sender{s.name + " over IPv6", func(spi, seq uint32) frame {
			return s.frame(spi, seq).alter(moreFragments6)
		}, s.known})
	}
	return all
}

func firstFragment(base func(spi, seq uint32) frame) func(spi, seq uint32) frame {
	return func(spi, seq uint32) frame {
		f := base(spi, seq)
		f.fragment, f.udpLie = flagMoreFragments, 1000
		return f
	}
}

// moreFragments6 is over6 for what may be a first fragment.
func moreFragments6(f *frame) {
	over6(f)
	if f.fragment == flagMoreFragments {
		f.extensions = []extension{fragmentHeader(1)}
	}
}

func TestSAs(t *testing.T) {
	from := func(port uint16, address ...netip.Addr) func(*frame) {
		return func(f *frame) {
			from := f.src.Addr()
			if len(address) > 0 && from.Is6() {
				from = another6
			} else if len(address) > 0 {
				from = another
			}
			f.src = netip.AddrPortFrom(from, port)
		}
	}
	same := func(*frame) {}
	reused := uint32(knownSPI + 1<<SlotBits) // the same slot, the next tag

	for _, row := range []struct {
		name   string
		spi    uint32
		change func(*frame)
		udp    Reason
		bare   Reason
	}{
		{"known", knownSPI, same, known, known},
		{"from another address", knownSPI, from(peer.Port(), another), moved, moved},
		{"from another port", knownSPI, from(peer.Port() + 1), moved, known},
		{"the slot's next SPI", reused, same, unknown, unknown},
		{"the slot without a tag", knownSPI & SlotField, same, unknown, unknown},
		{"a free slot", knownSPI + 1, same, unknown, unknown},
		{"the first slot, free", 5 << SlotBits, same, unknown, unknown},
		{"the first slot beyond the map", 5<<SlotBits | slots, same, unknown, unknown},
		{"a slot far beyond it", knownSPI | slots<<4, same, unknown, unknown},
		{"the last slot there is", 5<<SlotBits | SlotField, same, unknown, unknown},
		{"the reserved SPI 255", 255, same, unknown, unknown},
		{"its bytes swapped", bits.ReverseBytes32(knownSPI), same, unknown, unknown},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, accounting := range []uint32{0, 1} {
				r := load(t, func(s *settings) { s.AccountEveryPacket = accounting })
				for _, sender := range senders() {
					base := sender.frame(row.spi, 1234)
					outcome := row.bare
					if base.protocol == protocolUDP {
						outcome = row.udp
					}
					r.outcome(sender, base.tuple(), base.alter(row.change), outcome, accounting != 0)
				}
			}
		})
	}
}

// outcome runs a frame twice at an SA that is expected from another tuple
// maybe.
func (r *rig) outcome(sender sender, expected PeerKey, f frame, outcome Reason, accounting bool) {
	r.Helper()
	r.local(f).sa(knownSPI, expected, expected.Hash())
	for range 2 {
		r.expect(f, sender.known+outcome, func(s *state) {
			switch outcome {
			case known:
				r.seen(knownSPI)(s)
			case moved:
				r.moved(knownSPI, f)(s)
			}
			if accounting && outcome != unknown {
				accounted(knownSPI, 1234)(s)
			}
		})
	}
	if r.Failed() {
		r.Fatalf("%s: %+v", sender.name, f)
	}
}

// RFC 4303 section 2.1 reserves SPI 0; a free slot holds it. In UDP it is the
// non-ESP marker.
func TestSPIZero(t *testing.T) {
	r := load(t)
	for _, sender := range senders() {
		f, want := sender.frame(0, 1), sender.known+unknown
		switch sender.known {
		case ReasonESPUDPKnown:
			want = ReasonIKENATT
		case ReasonFragESPUDPKnown:
			want = ReasonFragIKENATT
		}
		r.local(f).expect(f, want)
	}
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
	bare := bareESP(knownSPI, 1)
	r.expect(bare, ReasonESPMoved, r.moved(knownSPI, bare))
}

// Slots above the mask are nobody's, even where the map has room for them: the
// mask is what the daemon allocates from.
func TestSlotMask(t *testing.T) {
	f := espInUDP(knownSPI|slots, 1)
	larger := func(s *settings) { s.hotEntries = 2 * slots }
	r := load(t, larger).local(f).sa(knownSPI|slots, f.tuple(), 0)
	r.expect(f, ReasonESPUDPUnknown)

	last := espInUDP(knownSPI|(slots-1), 1)
	r.sa(knownSPI|(slots-1), last.tuple(), 0)
	r.expect(last, ReasonESPUDPKnown, r.seen(knownSPI|(slots-1)))

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
	address := func(like netip.Addr) netip.Addr {
		b := like.AsSlice()
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		address, _ := netip.AddrFromSlice(b)
		return address
	}
	r := load(t)
	for range 50 {
		for _, sender := range senders() {
			f := sender.frame(knownSPI, 1)
			f.src = netip.AddrPortFrom(address(f.src.Addr()), uint16(random.Uint32()))
			f.dst = netip.AddrPortFrom(address(f.dst.Addr()), f.dst.Port())
			tuple := f.tuple()
			r.sa(knownSPI, tuple, tuple.Hash())
			r.expect(f, sender.known, r.seen(knownSPI))
		}
	}
}

// Every word of either address, and either port, makes another hash.
func TestTupleHashUsesEverything(t *testing.T) {
	f := espInUDP(knownSPI, 1).alter(over6)
	original := f.tuple()
	hashes := map[uint32]bool{original.Hash(): true}
	for word := range 4 {
		for _, change := range []func(*PeerKey) *byte{
			func(k *PeerKey) *byte { return &k.Local[4*word] },
			func(k *PeerKey) *byte { return &k.Peer[4*word+3] },
		} {
			tuple := f.tuple()
			*change(&tuple) ^= 1
			hashes[tuple.Hash()] = true
		}
	}
	tuple := f.tuple()
	tuple.LocalPort++
	hashes[tuple.Hash()] = true
	tuple = f.tuple()
	tuple.PeerPort++
	hashes[tuple.Hash()] = true
	if len(hashes) != 1+8+2 {
		t.Errorf("%d different hashes", len(hashes))
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
