package bpf

import (
	"encoding/binary"
	"net/netip"
)

// Addresses of RFC 5737 and RFC 7042: the gateway, and a peer behind a NAT.
var (
	gateway = netip.MustParseAddrPort("198.51.100.1:4500")
	peer    = netip.MustParseAddrPort("203.0.113.7:24884")
	another = netip.MustParseAddr("203.0.113.99")

	gatewayMAC = [6]byte{0x00, 0x00, 0x5e, 0x00, 0x53, 0x01}
	peerMAC    = [6]byte{0x00, 0x00, 0x5e, 0x00, 0x53, 0x02}
)

const (
	protocolICMP = 1
	protocolTCP  = 6
	protocolUDP  = 17
	protocolESP  = 50
	protocolAH   = 51

	etherARP   = 0x0806
	etherIPv4  = 0x0800
	etherIPv6  = 0x86dd
	etherVLAN  = 0x8100
	etherQinQ  = 0x88a8
	etherPPPoE = 0x8864

	flagReserved      = 0x8000
	flagDontFragment  = 0x4000
	flagMoreFragments = 0x2000
)

// frame is what a test says of a frame; build fills in what follows from it.
// The *Lie fields are added to the right value.
type frame struct {
	dstMAC, srcMAC [6]byte
	tags           []uint16 // EtherTypes in front of the inner one, 4 bytes each
	etherType      uint16

	version, ihl byte
	tos, ttl     byte
	id, fragment uint16
	protocol     byte
	src, dst     netip.AddrPort
	totalLie     int
	ipSumLie     uint16
	options      []byte

	udpLie int
	udpSum uint16

	payload []byte
	padTo   int // Ethernet's minimum is 60
	cutTo   int // 0: whole
}

// packet is an unpadded datagram from the peer to the gateway.
func packet(protocol byte, payload []byte) frame {
	return frame{
		dstMAC: gatewayMAC, srcMAC: peerMAC, etherType: etherIPv4,
		version: 4, ihl: 5, tos: 0x28, ttl: 57, id: 0x3b1c, fragment: flagDontFragment,
		protocol: protocol, src: peer, dst: gateway, udpSum: 0x9c2f,
		payload: payload,
	}
}

func keepalive() frame { return packet(protocolUDP, []byte{0xff}) }

func espHeader(spi, seq uint32) []byte {
	payload := make([]byte, 44)
	binary.BigEndian.PutUint32(payload, spi)
	binary.BigEndian.PutUint32(payload[4:], seq)
	for i := range payload[8:] {
		payload[8+i] = byte(i * 7)
	}
	return payload
}

func espInUDP(spi, seq uint32) frame { return packet(protocolUDP, espHeader(spi, seq)) }

func bareESP(spi, seq uint32) frame { return packet(protocolESP, espHeader(spi, seq)) }

// ike is an IKE header, behind the non-ESP marker on the NAT-T port.
func ike(port uint16) frame {
	var payload []byte
	if port == gateway.Port() {
		payload = make([]byte, 4)
	}
	payload = append(payload, 1, 2, 3, 4, 5, 6, 7, 8)
	payload = append(payload, make([]byte, 20)...)
	f := packet(protocolUDP, payload)
	f.dst = netip.AddrPortFrom(gateway.Addr(), port)
	return f
}

// build returns the bytes as they come off the wire.
func (f frame) build() []byte {
	b := append([]byte{}, f.dstMAC[:]...)
	b = append(b, f.srcMAC[:]...)
	for i, tag := range f.tags {
		b = binary.BigEndian.AppendUint16(b, tag)
		b = binary.BigEndian.AppendUint16(b, uint16(100+i))
	}
	b = binary.BigEndian.AppendUint16(b, f.etherType)
	b = append(b, f.ipv4()...)
	if missing := f.padTo - len(b); missing > 0 {
		b = append(b, make([]byte, missing)...)
	}
	if f.cutTo > 0 {
		b = b[:f.cutTo]
	}
	return b
}

func (f frame) ipv4() []byte {
	body := f.payload
	if f.protocol == protocolUDP {
		body = f.udp()
	}
	total := 20 + len(f.options) + len(body) + f.totalLie
	b := []byte{f.version<<4 | f.ihl, f.tos}
	b = binary.BigEndian.AppendUint16(b, uint16(total))
	b = binary.BigEndian.AppendUint16(b, f.id)
	b = binary.BigEndian.AppendUint16(b, f.fragment)
	b = append(b, f.ttl, f.protocol, 0, 0)
	b = append(b, f.src.Addr().AsSlice()...)
	b = append(b, f.dst.Addr().AsSlice()...)
	b = append(b, f.options...)
	binary.BigEndian.PutUint16(b[10:], onesComplement(b)+f.ipSumLie)
	return append(b, body...)
}

func (f frame) udp() []byte {
	b := binary.BigEndian.AppendUint16(nil, f.src.Port())
	b = binary.BigEndian.AppendUint16(b, f.dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(f.payload)+f.udpLie))
	b = binary.BigEndian.AppendUint16(b, f.udpSum)
	return append(b, f.payload...)
}

// onesComplement is the RFC 1071 checksum over an even number of bytes.
func onesComplement(b []byte) uint16 {
	var sum uint64
	for ; len(b) > 0; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// answer is the frame that must come back: what is ours is fresh, the rest of
// the frame as it came.
func (f frame) answer() []byte {
	f.dstMAC, f.srcMAC = f.srcMAC, f.dstMAC
	f.src, f.dst = f.dst, f.src
	f.tos, f.ttl, f.id, f.fragment = 0, 64, 0, flagDontFragment
	f.ipSumLie, f.udpSum = 0, 0
	return f.build()
}

// tuple is what the daemon would register for the frame's sender.
func (f frame) tuple() PeerKey {
	key := PeerKey{Local: f.dst.Addr().As16(), Peer: f.src.Addr().As16()}
	if f.protocol == protocolUDP {
		key.LocalPort, key.PeerPort = f.dst.Port(), f.src.Port()
	}
	return key
}

// alter returns a copy with the changes made, which leave the original alone.
func (f frame) alter(changes ...func(*frame)) frame {
	f.payload = append([]byte{}, f.payload...)
	for _, change := range changes {
		change(&f)
	}
	return f
}
