package bpf

import (
	"fmt"
	"net/netip"
	"testing"
)

// One SA and one peer are registered, so that each frame here would be acted
// on but for the one thing that its row changes.
const knownSPI = 5<<SlotBits | 3

func registered(t *testing.T, changes ...func(*settings)) *rig {
	r := load(t, changes...)
	known := keepalive()
	return r.local(known).
		peer(known, PeerEntry{Owners: 1, Flags: PeerNATted}).
		sa(knownSPI, known.tuple(), 0)
}

func TestWhatIsNotActedOn(t *testing.T) {
	elsewhere := func(f *frame) { f.dst = netip.AddrPortFrom(another, f.dst.Port()) }
	payload := func(b ...byte) func(*frame) { return func(f *frame) { f.payload = b } }
	port := func(p uint16) func(*frame) {
		return func(f *frame) { f.dst = netip.AddrPortFrom(f.dst.Addr(), p) }
	}

	for _, row := range []struct {
		name   string
		base   frame
		change func(*frame)
		want   Reason
	}{
		{"ARP", keepalive(), func(f *frame) { f.etherType = etherARP }, ReasonNotIP},
		{"PPPoE", keepalive(), func(f *frame) { f.etherType = etherPPPoE }, ReasonNotIP},
		{"IPv6", keepalive(), func(f *frame) { f.etherType = etherIPv6 }, ReasonIPv6},
		{"VLAN", keepalive(), func(f *frame) { f.tags = []uint16{etherVLAN} }, ReasonVLAN},
		{"QinQ", keepalive(), func(f *frame) { f.tags = []uint16{etherQinQ, etherVLAN} }, ReasonVLAN},

		{"IP version 5", keepalive(), func(f *frame) { f.version = 5 }, ReasonIPMalformed},
		{"IP version 0", keepalive(), func(f *frame) { f.version = 0 }, ReasonIPMalformed},
		{"header of 16 bytes", keepalive(), func(f *frame) { f.ihl = 4 }, ReasonIPMalformed},
		{"header of 0 bytes", keepalive(), func(f *frame) { f.ihl = 0 }, ReasonIPMalformed},
		{"total length 19", keepalive(), func(f *frame) { f.totalLie = 19 - 29 }, ReasonIPMalformed},
		{"total length 0", keepalive(), func(f *frame) { f.totalLie = -29 }, ReasonIPMalformed},
		{"total length beyond the frame", keepalive(), func(f *frame) { f.totalLie = 1 }, ReasonTruncated},
		{"total length far beyond the frame", espInUDP(knownSPI, 1), func(f *frame) { f.totalLie = 60000 }, ReasonTruncated},

		{"options", keepalive(), func(f *frame) { f.ihl, f.options = 6, []byte{1, 1, 1, 0} }, ReasonIPOptions},
		{"all options", espInUDP(knownSPI, 1), func(f *frame) { f.ihl, f.options = 15, make([]byte, 40) }, ReasonIPOptions},
		{"options that lie beyond the frame", keepalive(), func(f *frame) { f.ihl = 15 }, ReasonIPOptions},

		{"first fragment", keepalive(), func(f *frame) { f.fragment = flagMoreFragments }, ReasonFragFirst},
		{"first fragment of ESP", bareESP(knownSPI, 1), func(f *frame) { f.fragment = flagMoreFragments }, ReasonFragFirst},
		{"middle fragment", keepalive(), func(f *frame) { f.fragment = flagMoreFragments | 1 }, ReasonFragLater},
		{"last fragment", keepalive(), func(f *frame) { f.fragment = 1 }, ReasonFragLater},
		{"last possible fragment", bareESP(knownSPI, 1), func(f *frame) { f.fragment = 0x1fff }, ReasonFragLater},
		{"fragment at 4096 units", keepalive(), func(f *frame) { f.fragment = 0x1000 }, ReasonFragLater},

		{"AH", keepalive(), func(f *frame) { f.protocol = protocolAH }, ReasonAH},
		{"TCP", keepalive(), func(f *frame) { f.protocol = protocolTCP }, ReasonNotIPsec},
		{"ICMP", keepalive(), func(f *frame) { f.protocol = protocolICMP }, ReasonNotIPsec},
		{"TCP with options", keepalive(), func(f *frame) { f.protocol, f.ihl = protocolTCP, 7 }, ReasonNotIPsec},

		{"UDP shorter than its header", packet(protocolUDP, nil), func(f *frame) { f.totalLie, f.padTo = -1, 60 }, ReasonUDPLength},
		{"UDP length one less than IP's", espInUDP(knownSPI, 1), func(f *frame) { f.udpLie = -1 }, ReasonUDPLength},
		{"UDP length one more than IP's", espInUDP(knownSPI, 1), func(f *frame) { f.udpLie = 1 }, ReasonUDPLength},
		{"a keepalive by UDP length only", packet(protocolUDP, []byte{0xff, 0}), func(f *frame) { f.udpLie = -1 }, ReasonUDPLength},
		{"a keepalive by IP length only", keepalive(), func(f *frame) { f.udpLie = 1 }, ReasonUDPLength},
		{"UDP length 0", keepalive(), func(f *frame) { f.udpLie = -9 }, ReasonUDPLength},
		{"UDP length 0 on port 500", ike(500), func(f *frame) { f.udpLie = -36 }, ReasonUDPLength},

		{"port 4501", keepalive(), port(4501), ReasonUDPOther},
		{"port 501", keepalive(), port(501), ReasonUDPOther},
		{"port 4500 with its bytes swapped", keepalive(), port(0x9411), ReasonUDPOther},
		{"port 500 with its bytes swapped", keepalive(), port(0xf401), ReasonUDPOther},
		{"source port 4500 only", keepalive(), func(f *frame) {
			f.src, f.dst = netip.AddrPortFrom(peer.Addr(), 4500), netip.AddrPortFrom(gateway.Addr(), 9)
		}, ReasonUDPOther},

		{"empty payload", keepalive(), payload(), ReasonNATTShort},
		{"0xfe", keepalive(), payload(0xfe), ReasonNATTShort},
		{"0x00", keepalive(), payload(0), ReasonNATTShort},
		{"0xff twice", keepalive(), payload(0xff, 0xff), ReasonNATTShort},
		{"0xff and a zero", keepalive(), payload(0xff, 0), ReasonNATTShort},
		{"three bytes", keepalive(), payload(0, 0, 0), ReasonNATTShort},
		{"four bytes of an SPI", keepalive(), payload(1, 0x40, 0, 3), ReasonNATTShort},
		{"seven bytes of ESP", keepalive(), payload(1, 0x40, 0, 3, 0, 0, 0), ReasonNATTShort},
		{"bare ESP without a body", bareESP(knownSPI, 1), payload(), ReasonESPShort},
		{"bare ESP of seven bytes", bareESP(knownSPI, 1), payload(1, 0x40, 0, 3, 0, 0, 0), ReasonESPShort},

		{"keepalive to a multicast MAC", keepalive(), func(f *frame) { f.dstMAC = [6]byte{1, 0, 0x5e, 0, 0, 1} }, ReasonGroupMAC},
		{"keepalive to the broadcast MAC", keepalive(), func(f *frame) { f.dstMAC = [6]byte{255, 255, 255, 255, 255, 255} }, ReasonGroupMAC},

		{"keepalive to another address", keepalive(), elsewhere, ReasonNotLocal},
		{"ESP in UDP, unknown, to another address", espInUDP(knownSPI+1, 1), elsewhere, ReasonNotLocal},
		{"ESP in UDP, known SPI, to another address", espInUDP(knownSPI, 1), elsewhere, ReasonNotLocal},
		{"bare ESP, known SPI, to another address", bareESP(knownSPI, 1), elsewhere, ReasonNotLocal},
		{"bare ESP, unknown, to another address", bareESP(knownSPI+1, 1), elsewhere, ReasonNotLocal},
		{"IKE on 500 to another address", ike(500), elsewhere, ReasonNotLocal},
		{"IKE on 4500 to another address", ike(4500), elsewhere, ReasonNotLocal},

		{"IKE on 500", ike(500), func(*frame) {}, ReasonIKE500},
		{"empty datagram on 500", ike(500), payload(), ReasonIKE500},
		{"keepalive on 500", keepalive(), port(500), ReasonIKE500},
		{"ESP on 500", espInUDP(knownSPI, 1), port(500), ReasonIKE500},
		{"IKE on 4500", ike(4500), func(*frame) {}, ReasonIKENATT},
		{"nothing but the marker", keepalive(), payload(0, 0, 0, 0), ReasonIKENATT},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := registered(t)
			f := row.base.alter(row.change)
			r.expect(f, row.want)
			// As a real NIC delivers it. Padding must not mend what a length broke.
			if row.want != ReasonTruncated {
				f.padTo = max(f.padTo, 60)
				r.expect(f, row.want)
			}
		})
	}
}

// What a frame may have without being odd.
func TestHarmlessVariations(t *testing.T) {
	for name, change := range map[string]func(*frame){
		"fragmentation allowed":    func(f *frame) { f.fragment = 0 },
		"the reserved flag":        func(f *frame) { f.fragment = flagReserved },
		"no UDP checksum":          func(f *frame) { f.udpSum = 0 },
		"a partial IP checksum":    func(f *frame) { f.ipSumLie = 0x1234 },
		"TTL 1":                    func(f *frame) { f.ttl = 1 },
		"TTL 255":                  func(f *frame) { f.ttl = 255 },
		"padding to 60 bytes":      func(f *frame) { f.padTo = 60 },
		"one byte of padding":      func(f *frame) { f.padTo = 44 },
		"a long trailer":           func(f *frame) { f.padTo = 1514 },
		"no DSCP":                  func(f *frame) { f.tos = 0 },
		"congestion experienced":   func(f *frame) { f.tos = 3 },
		"locally administered MAC": func(f *frame) { f.dstMAC[0] = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			r := registered(t)
			f := keepalive().alter(change)
			r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
			e := espInUDP(knownSPI, 9).alter(change)
			r.expect(e, ReasonESPUDPKnown, r.seen(knownSPI))
			r.expect(ike(500).alter(change), ReasonIKE500)
		})
	}
}

// A frame cut anywhere is left alone, but for what its IP length still covers.
func TestCutAtEveryLength(t *testing.T) {
	for name, f := range map[string]frame{
		"keepalive":  keepalive(),
		"ESP in UDP": espInUDP(knownSPI, 1),
		"bare ESP":   bareESP(knownSPI, 1),
		"IKE":        ike(500),
		"IKE NAT-T":  ike(4500),
	} {
		t.Run(name, func(t *testing.T) {
			r := registered(t)
			for length := 14; length < len(f.build()); length++ {
				r.expect(f.alter(func(f *frame) { f.cutTo = length }), ReasonTruncated)
				if t.Failed() {
					t.Fatalf("cut to %d bytes", length)
				}
			}
		})
	}
}

// Cut and honest about it: the IP length says what is there, UDP's does not.
func TestShortenedByIPLength(t *testing.T) {
	whole := espInUDP(knownSPI, 1)
	size := len(whole.build())
	for length := 14 + 20; length < size; length++ {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			registered(t).expect(whole.alter(func(f *frame) {
				f.cutTo, f.totalLie = length, length-size
			}), ReasonUDPLength)
		})
	}
}

func TestAnotherNATTPort(t *testing.T) {
	r := registered(t, func(s *settings) { s.NATTPort = 14500 })
	r.expect(keepalive(), ReasonUDPOther)
	f := keepalive().alter(func(f *frame) { f.dst = netip.AddrPortFrom(f.dst.Addr(), 14500) })
	r.expect(f, ReasonStrangerDropped)
	r.peer(f, PeerEntry{Owners: 1, Flags: PeerNATted})
	r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
}
