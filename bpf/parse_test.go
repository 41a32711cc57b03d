package bpf

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// One SA and one peer are registered, so that each frame here would be acted
// on but for the one thing that its row changes.
const knownSPI = 5<<SlotBits | 3

func registered(t *testing.T, changes ...func(*settings)) *rig {
	r := load(t, changes...)
	known, known6 := keepalive(), keepalive().alter(over6)
	return r.local(known).local(known6).
		peer(known, peerState{Owners: 1, Flags: PeerNATted}).
		peer(known6, peerState{Owners: 1, Flags: PeerNATted}).
		sa(knownSPI, known.tuple(), 0)
}

// chain is so many extension headers of different sizes.
func chain(count int) (all []extension) {
	for i := range count {
		all = append(all, options(protocolDestination, 8*(1+i%3)))
	}
	return all
}

func TestWhatIsNotActedOn(t *testing.T) {
	elsewhere := func(f *frame) { f.dst = netip.AddrPortFrom(another, f.dst.Port()) }
	elsewhere6 := func(f *frame) {
		over6(f)
		f.dst = netip.AddrPortFrom(another6, f.dst.Port())
	}
	payload := func(b ...byte) func(*frame) { return func(f *frame) { f.payload = b } }
	port := func(p uint16) func(*frame) {
		return func(f *frame) { f.dst = netip.AddrPortFrom(f.dst.Addr(), p) }
	}

	r := registered(t)
	for _, row := range []struct {
		name   string
		base   frame
		change func(*frame)
		want   Reason
	}{
		{"ARP", keepalive(), func(f *frame) { f.etherType = etherARP }, ReasonNotIP},
		{"PPPoE", keepalive(), func(f *frame) { f.etherType = etherPPPoE }, ReasonNotIP},
		{"PPPoE in a VLAN", keepalive(), func(f *frame) { f.etherType, f.tags = etherPPPoE, []uint16{etherVLAN} }, ReasonNotIP},
		{"three tags", keepalive(), tagged(etherVLAN, etherVLAN, etherVLAN), ReasonVLANDeep},
		{"ten tags", keepalive(), tagged(slices.Repeat([]uint16{etherQinQ}, 10)...), ReasonVLANDeep},
		{"a tag of another kind", keepalive(), tagged(0x9100), ReasonNotIP},
		{"a tag of another kind inside", keepalive(), tagged(etherQinQ, 0x9100), ReasonNotIP},
		{"IPv4 as IPv6", keepalive(), func(f *frame) { f.etherType = etherIPv6; f.padTo = 60 }, ReasonIPMalformed},
		{"IPv6 as IPv4", keepalive(), func(f *frame) { over6(f); f.etherType = etherIPv4 }, ReasonIPMalformed},

		{"IP version 5", keepalive(), func(f *frame) { f.version = 5 }, ReasonIPMalformed},
		{"IP version 0", keepalive(), func(f *frame) { f.version = 0 }, ReasonIPMalformed},
		{"header of 16 bytes", keepalive(), func(f *frame) { f.ihl = 4 }, ReasonIPMalformed},
		{"header of 0 bytes", keepalive(), func(f *frame) { f.ihl = 0 }, ReasonIPMalformed},
		{"total length 19", keepalive(), func(f *frame) { f.totalLie = 19 - 29 }, ReasonIPMalformed},
		{"total length 0", keepalive(), func(f *frame) { f.totalLie = -29 }, ReasonIPMalformed},
		{"total length beyond the frame", keepalive(), func(f *frame) { f.totalLie = 1 }, ReasonIPLength},
		{"total length far beyond the frame", espInUDP(knownSPI, 1), func(f *frame) { f.totalLie = 60000 }, ReasonIPLength},
		{"header beyond the total length", keepalive(), func(f *frame) { f.ihl = 8 }, ReasonIPMalformed},
		{"header beyond the frame", keepalive(), func(f *frame) { f.ihl, f.totalLie = 15, 1000 }, ReasonTruncated},
		{"IPv6 of version 4", keepalive(), func(f *frame) { over6(f); f.version = 4 }, ReasonIPMalformed},
		{"IPv6 payload beyond the frame", keepalive(), func(f *frame) { over6(f); f.totalLie = 1 }, ReasonIPLength},
		{"IPv6 without a payload", keepalive(), func(f *frame) { over6(f); f.totalLie = -9 }, ReasonUDPLength},

		{"ESP with options beyond all it has", bareESP(knownSPI, 1), func(f *frame) { f.ihl, f.totalLie, f.cutTo = 15, -4, 74 }, ReasonESPShort},

		{"first fragment of a keepalive", keepalive(), func(f *frame) { f.fragment, f.udpLie = flagMoreFragments, 8 }, ReasonFragNATTShort},
		{"the same over IPv6", keepalive(), func(f *frame) { with(fragmentHeader(1))(f); f.udpLie = 8 }, ReasonFragNATTShort},
		{"first fragment, all that its UDP length says", espInUDP(knownSPI, 1), func(f *frame) { f.fragment = flagMoreFragments }, ReasonUDPLength},
		{"first fragment, more than its UDP length says", espInUDP(knownSPI, 1), func(f *frame) { f.fragment, f.udpLie = flagMoreFragments, -8 }, ReasonUDPLength},
		{"the same over IPv6 ", espInUDP(knownSPI, 1), with(fragmentHeader(1)), ReasonUDPLength},
		{"first fragment of IKE on 500", ike(500), func(f *frame) { f.fragment, f.udpLie = flagMoreFragments, 1000 }, ReasonFragIKE500},
		{"the same with a UDP length that lies", ike(500), func(f *frame) { f.fragment = flagMoreFragments }, ReasonFragIKE500},
		{"first fragment of IKE on 4500", ike(4500), func(f *frame) { f.fragment, f.udpLie = flagMoreFragments, 1000 }, ReasonFragIKENATT},
		{"first fragment from 4500", keepalive(), func(f *frame) {
			f.fragment, f.src, f.dst = flagMoreFragments, netip.AddrPortFrom(peer.Addr(), 4500), netip.AddrPortFrom(gateway.Addr(), 9)
		}, ReasonFragFromIKE},
		{"first fragment from 500", keepalive(), func(f *frame) {
			f.fragment, f.src, f.dst = flagMoreFragments, netip.AddrPortFrom(peer.Addr(), 500), netip.AddrPortFrom(gateway.Addr(), 9)
		}, ReasonFragFromIKE},
		{"first fragment of other UDP", keepalive(), func(f *frame) {
			f.fragment, f.dst = flagMoreFragments, netip.AddrPortFrom(gateway.Addr(), 9)
		}, ReasonUDPOther},
		{"first fragment of TCP", keepalive(), func(f *frame) { f.fragment, f.protocol = flagMoreFragments, protocolTCP }, ReasonNotIPsec},
		{"middle fragment", keepalive(), func(f *frame) { f.fragment = flagMoreFragments | 1 }, ReasonFragLater},
		{"last fragment", keepalive(), func(f *frame) { f.fragment = 1 }, ReasonFragLater},
		{"last possible fragment", bareESP(knownSPI, 1), func(f *frame) { f.fragment = 0x1fff }, ReasonFragLater},
		{"fragment at 4096 units", keepalive(), func(f *frame) { f.fragment = 0x1000 }, ReasonFragLater},

		{"last fragment of TCP", keepalive(), func(f *frame) { f.fragment, f.protocol = 1, protocolTCP }, ReasonFragLater},
		{"middle fragment over IPv6", keepalive(), with(fragmentHeader(9)), ReasonFragLater},
		{"last fragment over IPv6", bareESP(knownSPI, 1), with(fragmentHeader(8)), ReasonFragLater},
		{"last possible fragment over IPv6", ah(knownSPI, 1), with(fragmentHeader(0xfff8)), ReasonFragLater},
		{"fragment at 4096 units over IPv6", keepalive(), with(fragmentHeader(0x8000)), ReasonFragLater},
		{"fragment behind options", keepalive(), with(options(protocolDestination, 8), fragmentHeader(8)), ReasonFragLater},

		{"nine extension headers", espInUDP(knownSPI, 1), with(chain(9)...), ReasonExtensions},
		{"a hundred", espInUDP(knownSPI, 1), with(chain(100)...), ReasonExtensions},
		{"hop-by-hop in second place", espInUDP(knownSPI, 1), with(options(protocolDestination, 8), options(protocolHopByHop, 8)), ReasonExtensions},
		{"hop-by-hop twice", keepalive(), with(options(protocolHopByHop, 8), options(protocolHopByHop, 8)), ReasonExtensions},
		{"routing with a segment left", espInUDP(knownSPI, 1), with(routing(1)), ReasonRouted},
		{"routing with 255 segments left", keepalive(), with(options(protocolHopByHop, 8), routing(255)), ReasonRouted},
		{"extension header longer than the payload", keepalive(), with(extension{protocolDestination, []byte{0, 3, 0, 0, 0, 0, 0, 0}}), ReasonIPMalformed},
		{"extension header that is all there is", packet(protocolNone, nil), with(options(protocolDestination, 8)), ReasonNotIPsec},
		{"fragment header in a payload of 7 bytes", packet(protocolNone, nil), func(f *frame) { with(fragmentHeader(0))(f); f.totalLie = -1 }, ReasonIPMalformed},
		{"no payload, but the chain goes on", espInUDP(knownSPI, 1), func(f *frame) {
			with(options(protocolHopByHop, 8))(f)
			f.totalLie = -60
		}, ReasonIPMalformed},
		{"mobility header", espInUDP(knownSPI, 1), with(options(protocolMobility, 8)), ReasonNotIPsec},
		{"no next header", espInUDP(knownSPI, 1), with(options(protocolNone, 8)), ReasonNotIPsec},
		{"IPv6 in IPv6", espInUDP(knownSPI, 1), with(options(protocolIPv6, 40)), ReasonNotIPsec},

		{"GRE", keepalive(), func(f *frame) { f.protocol = protocolGRE }, ReasonNotIPsec},
		{"TCP", keepalive(), func(f *frame) { f.protocol = protocolTCP }, ReasonNotIPsec},
		{"ICMP", keepalive(), func(f *frame) { f.protocol = protocolICMP }, ReasonNotIPsec},
		{"TCP with options", keepalive(), func(f *frame) { f.protocol, f.ihl = protocolTCP, 7 }, ReasonNotIPsec},

		{"UDP shorter than its header", packet(protocolUDP, nil), func(f *frame) { f.totalLie, f.padTo = -1, 60 }, ReasonUDPLength},
		{"UDP length one less than IP's", espInUDP(knownSPI, 1), func(f *frame) { f.udpLie = -1 }, ReasonUDPLength},
		{"UDP length one more than IP's", espInUDP(knownSPI, 1), func(f *frame) { f.udpLie = 1 }, ReasonUDPLength},
		{"a keepalive by UDP length only", packet(protocolUDP, []byte{0xff, 0}), func(f *frame) { f.udpLie = -1 }, ReasonUDPLength},
		{"a keepalive by IP length only", keepalive(), func(f *frame) { f.udpLie = 1 }, ReasonUDPLength},
		{"UDP length 0", keepalive(), func(f *frame) { f.udpLie = -9 }, ReasonUDPLength},
		{"UDP length 0 on port 500", ike(500), func(f *frame) { f.udpLie = -36 }, ReasonIKELength},
		{"UDP length one more than IP's on port 500", ike(500), func(f *frame) { f.udpLie = 1 }, ReasonIKELength},
		{"UDP length one less over IPv6", espInUDP(knownSPI, 1), func(f *frame) { over6(f); f.udpLie = -1 }, ReasonUDPLength},

		{"port 4501", keepalive(), port(4501), ReasonUDPOther},
		{"port 501", keepalive(), port(501), ReasonUDPOther},
		{"port 4500 with its bytes swapped", keepalive(), port(0x9411), ReasonUDPOther},
		{"port 500 with its bytes swapped", keepalive(), port(0xf401), ReasonUDPOther},
		{"source port 4500 only", keepalive(), func(f *frame) {
			f.src, f.dst = netip.AddrPortFrom(peer.Addr(), 4500), netip.AddrPortFrom(gateway.Addr(), 9)
		}, ReasonFromNATT},
		{"source port 500 only", keepalive(), func(f *frame) {
			f.src, f.dst = netip.AddrPortFrom(peer.Addr(), 500), netip.AddrPortFrom(gateway.Addr(), 9)
		}, ReasonFrom500},

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

		{"AH without a body", ah(knownSPI, 1), payload(), ReasonAHShort},
		{"AH of eleven bytes", ah(knownSPI, 1), payload(4, 4, 0, 0, 1, 0x40, 0, 3, 0, 0, 0), ReasonAHShort},
		{"AH that says it has 8 bytes", ah(knownSPI, 1), func(f *frame) { f.payload[1] = 0 }, ReasonAHShort},
		{"AH that says it is longer than the datagram", ah(knownSPI, 1), func(f *frame) { f.payload[1] = 11 }, ReasonAHShort},
		{"AH that says it has 1028 bytes, over IPv6", ah(knownSPI, 1), func(f *frame) { over6(f); f.payload[1] = 255 }, ReasonAHShort},
		{"bare ESP over IPv6 of seven bytes", bareESP(knownSPI, 1), func(f *frame) { over6(f); f.payload = f.payload[:7] }, ReasonESPShort},
		{"AH over IPv6 of eleven bytes", ah(knownSPI, 1), func(f *frame) { over6(f); f.payload = f.payload[:11] }, ReasonAHShort},
		{"first fragment of seven bytes of ESP", packet(protocolUDP, []byte{1, 0x40, 0, 3, 0, 0, 0}), func(f *frame) { f.fragment, f.udpLie = flagMoreFragments, 9 }, ReasonFragNATTShort},
		{"first fragment without a UDP header", packet(protocolUDP, nil), func(f *frame) { f.fragment, f.totalLie, f.padTo = flagMoreFragments, -1, 60 }, ReasonUDPLength},

		{"keepalive to a multicast MAC", keepalive(), func(f *frame) { f.dstMAC = [6]byte{1, 0, 0x5e, 0, 0, 1} }, ReasonGroupMAC},
		{"keepalive to the broadcast MAC", keepalive(), func(f *frame) { f.dstMAC = [6]byte{255, 255, 255, 255, 255, 255} }, ReasonGroupMAC},
		{"keepalive from a multicast MAC", keepalive(), func(f *frame) { f.srcMAC = [6]byte{1, 0, 0x5e, 0, 0, 1} }, ReasonGroupMAC},
		{"keepalive from the broadcast MAC over IPv6", keepalive(), func(f *frame) { over6(f); f.srcMAC = [6]byte{255, 255, 255, 255, 255, 255} }, ReasonGroupMAC},

		{"keepalive to another address", keepalive(), elsewhere, ReasonNotLocal},
		{"keepalive to another address over IPv6", keepalive(), elsewhere6, ReasonNotLocal},
		{"ESP over IPv6, known SPI, to another address", bareESP(knownSPI, 1), elsewhere6, ReasonNotLocal},
		{"IKE over IPv6 to another address", ike(500), elsewhere6, ReasonNotLocal},
		{"AH, known SPI, to another address", ah(knownSPI, 1), elsewhere, ReasonNotLocal},
		{"AH, unknown, to another address", ah(knownSPI+1, 1), elsewhere, ReasonNotLocal},
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
			r.TB = t
			f := row.base.alter(row.change)
			r.expect(f, row.want)
			// As a real NIC delivers it. Padding must not mend what a length broke.
			if row.want != ReasonTruncated && row.want != ReasonIPLength && f.cutTo == 0 {
				f.padTo = max(f.padTo, 60)
				r.expect(f, row.want)
			}
		})
	}
}

// mapped makes an address what the maps have of an IPv4 one.
func mapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

// IPv4 addresses in an IPv6 header are nobody's: neither the IPv4 peer's, with
// his mapping in a bucket or without, nor ours.
func TestMappedAddressesOnTheWire(t *testing.T) {
	both := func(f *frame) { f.etherType, f.version, f.src, f.dst = etherIPv6, 6, mapped(f.src), mapped(f.dst) }
	src := func(f *frame) { over6(f); f.src = mapped(peer) }
	dst := func(f *frame) { over6(f); f.dst = mapped(gateway) }

	f, e := keepalive(), espInUDP(knownSPI, 1)
	crowded := load(t)
	for port := range uint16(2 * slots) {
		crowded.peer(fromPort(1000+port), peerState{Owners: 1})
	}
	for name, r := range map[string]*rig{"in its bucket": load(t), "no room in its bucket": crowded} {
		t.Run(name, func(t *testing.T) {
			r.TB = t
			tuple := e.tuple()
			r.local(f).local(f.alter(over6)).peer(f, peerState{Owners: 1, Flags: PeerNATted}).sa(knownSPI, tuple, tuple.Hash())
			for _, change := range []func(*frame){both, src, dst} {
				for _, in := range []frame{f, e, bareESP(knownSPI, 1), ah(knownSPI, 1), espInUDP(knownSPI+1, 1), ike(500)} {
					r.expect(in.alter(change), ReasonIPMalformed)
				}
			}
			r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
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
			for _, version := range []func(*frame){func(*frame) {}, over6} {
				f := keepalive().alter(change, version)
				r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
				e := espInUDP(knownSPI, 9).alter(change, version)
				r.expect(e, ReasonESPUDPKnown, r.seen(knownSPI))
				r.expect(ike(500).alter(change, version), ReasonIKE500)
			}
		})
	}
}

// A frame cut anywhere is left alone, but for what its IP length still covers.
func TestCutAtEveryLength(t *testing.T) {
	r := registered(t)
	for name, f := range wrapped() {
		t.Run(name, func(t *testing.T) {
			r.TB = t
			whole := f.build()
			for length := 14; length < len(whole); length++ {
				want := ReasonIPLength
				if length < f.headers() {
					want = ReasonTruncated
				}
				r.expect(f.alter(func(f *frame) { f.cutTo = length }), want)
				if t.Failed() {
					t.Fatalf("cut to %d bytes", length)
				}
			}
		})
	}
}

// Cut and honest about it: the IP length says what is there, UDP's does not.
// Whatever is missing, nothing is stamped that has no sequence number.
func TestShortenedByIPLength(t *testing.T) {
	r := registered(t)
	for name, f := range wrapped() {
		t.Run(name, func(t *testing.T) {
			r.TB = t
			size := len(f.build())
			for length := f.headers(); length < size; length++ {
				before := r.state()
				verdict, _ := r.run(f.alter(func(f *frame) {
					f.cutTo, f.totalLie = length, length-size
				}).build())
				after := r.state()
				stamped := !cmp.Equal(before.Hot, after.Hot)
				if wants := f.protocol != protocolUDP && length >= f.headersEnd(); verdict != VerdictPass || stamped && !wants {
					t.Fatalf("%d bytes: %v, stamped %v", length, verdict, stamped)
				}
				if !cmp.Equal(before.Peers, after.Peers) {
					t.Fatalf("%d bytes: a keepalive", length)
				}
			}
		})
	}
}

func TestAnotherNATTPort(t *testing.T) {
	r := registered(t, func(s *settings) { s.NATTPort = 14500 })
	r.expect(keepalive(), ReasonUDPOther)
	f := keepalive().alter(func(f *frame) { f.dst = netip.AddrPortFrom(f.dst.Addr(), 14500) })
	r.expect(f, ReasonStrangerDropped, r.strange(f))
	r.peer(f, peerState{Owners: 1, Flags: PeerNATted})
	r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
}
