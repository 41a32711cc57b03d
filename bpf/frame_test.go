package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Addresses of RFC 5737, RFC 3849 and RFC 7042: the gateway, and a peer behind
// a NAT. The IPv6 ones differ in every word.
var (
	gateway = netip.MustParseAddrPort("198.51.100.1:4500")
	peer    = netip.MustParseAddrPort("203.0.113.7:24884")
	another = netip.MustParseAddr("203.0.113.99")

	gateway6 = netip.MustParseAddr("2001:db8:1:2:3:4:5:6")
	peer6    = netip.MustParseAddr("2001:db9:a:b:c:d:e:f")
	another6 = netip.MustParseAddr("2001:db9:a:b:c:d:e:63")

	gatewayMAC = [6]byte{0x00, 0x00, 0x5e, 0x00, 0x53, 0x01}
	peerMAC    = [6]byte{0x00, 0x00, 0x5e, 0x00, 0x53, 0x02}
)

const (
	protocolHopByHop    = 0
	protocolICMP        = 1
	protocolTCP         = 6
	protocolUDP         = 17
	protocolIPv6        = 41
	protocolRouting     = 43
	protocolFragment    = 44
	protocolGRE         = 47
	protocolESP         = 50
	protocolAH          = 51
	protocolNone        = 59
	protocolDestination = 60
	protocolMobility    = 135

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
// The *Lie fields are added to the right value. Its addresses say whether it is
// IPv4 or IPv6, where id is the flow label and tos the traffic class.
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
	extensions   []extension

	udpLie int
	udpSum uint16

	payload []byte
	padTo   int // Ethernet's minimum is 60
	cutTo   int // 0: whole
}

// extension is an IPv6 extension header; build sets the first byte, which says
// what follows.
type extension struct {
	protocol byte
	body     []byte
}

// options is an extension header of hop-by-hop or destination options, padded
// to size bytes.
func options(protocol byte, size int) extension {
	body := make([]byte, size)
	body[1] = byte(size/8 - 1)
	return extension{protocol, body}
}

func routing(segmentsLeft byte) extension {
	return extension{protocolRouting, []byte{0, 2, 4, segmentsLeft, 23: 0}}
}

// fragmentHeader has a length field that is reserved, so it says too much.
func fragmentHeader(offsetAndFlags uint16) extension {
	return extension{protocolFragment, []byte{0, 255, byte(offsetAndFlags >> 8), byte(offsetAndFlags), 1, 2, 3, 4}}
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

// over6 makes it the same over IPv6.
func over6(f *frame) {
	f.etherType, f.version = etherIPv6, 6
	f.src, f.dst = netip.AddrPortFrom(peer6, f.src.Port()), netip.AddrPortFrom(gateway6, f.dst.Port())
}

func with(extensions ...extension) func(*frame) {
	return func(f *frame) {
		over6(f)
		f.extensions = extensions
	}
}

func tagged(tags ...uint16) func(*frame) { return func(f *frame) { f.tags = tags } }

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

func ah(spi, seq uint32) frame {
	payload := append([]byte{protocolIPv6, 4, 0, 0}, espHeader(spi, seq)...)
	return packet(protocolAH, payload)
}

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
	if f.src.Addr().Is6() {
		b = append(b, f.ipv6()...)
	} else {
		b = append(b, f.ipv4()...)
	}
	if missing := f.padTo - len(b); missing > 0 {
		b = append(b, make([]byte, missing)...)
	}
	if f.cutTo > 0 {
		b = b[:f.cutTo]
	}
	return b
}

// headers returns where the IP header ends, options included: what is cut
// before it is not even known to be an IP datagram.
func (f frame) headers() int {
	if f.src.Addr().Is6() {
		return 14 + 4*len(f.tags) + 40
	}
	return 14 + 4*len(f.tags) + 20 + len(f.options)
}

// headersEnd returns where the sequence number of ESP or AH ends: all that is
// read.
func (f frame) headersEnd() int {
	end := f.headers() + 8
	for _, e := range f.extensions {
		end += len(e.body)
	}
	switch f.protocol {
	case protocolAH:
		return end + 4
	case protocolUDP:
		return end + 8
	}
	return end
}

func (f frame) ipv4() []byte {
	body := f.body()
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

func (f frame) ipv6() []byte {
	var chain []byte
	next := f.protocol
	for _, e := range slices.Backward(f.extensions) {
		chain = slices.Concat([]byte{next}, e.body[1:], chain)
		next = e.protocol
	}
	body := append(chain, f.body()...)
	b := []byte{f.version<<4 | f.tos>>4, f.tos << 4, byte(f.id >> 8), byte(f.id)}
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)+f.totalLie))
	b = append(b, next, f.ttl)
	b = append(b, f.src.Addr().AsSlice()...)
	b = append(b, f.dst.Addr().AsSlice()...)
	return append(b, body...)
}

func (f frame) body() []byte {
	if f.protocol != protocolUDP {
		return f.payload
	}
	b := binary.BigEndian.AppendUint16(nil, f.src.Port())
	b = binary.BigEndian.AppendUint16(b, f.dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(f.payload)+f.udpLie))
	b = binary.BigEndian.AppendUint16(b, f.udpSum)
	return append(b, f.payload...)
}

// rightUDPSum is what a receiver over IPv6 accepts.
func (f frame) rightUDPSum() uint16 {
	f.udpSum = 0
	body := f.body()
	pseudo := slices.Concat(f.src.Addr().AsSlice(), f.dst.Addr().AsSlice())
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
	pseudo = append(pseudo, 0, 0, 0, protocolUDP)
	pseudo = append(pseudo, body...)
	if len(pseudo)%2 != 0 {
		pseudo = append(pseudo, 0)
	}
	sum := onesComplement(pseudo)
	if sum == 0 {
		return 0xffff
	}
	return sum
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
	if f.src.Addr().Is6() {
		f.udpSum = f.rightUDPSum()
	}
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
