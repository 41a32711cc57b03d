package main

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/ikepulse/ikepulse/bpf"
)

// Addresses of RFC 5737, RFC 6598 and RFC 7042: the gateway, its plain sockets'
// address, and the first of the peers behind their NATs.
var (
	gatewayAddr = netip.MustParseAddr("198.51.100.1")
	readerAddr  = netip.MustParseAddr("198.51.100.3")
	peerAddr    = netip.MustParseAddr("100.64.0.0")

	gatewayMAC = net.HardwareAddr{0x00, 0x00, 0x5e, 0x00, 0x53, 0x01}
	peerMAC    = net.HardwareAddr{0x00, 0x00, 0x5e, 0x00, 0x53, 0x02}
)

// firstPort and portsAPeer are frame.h's: member N sends from a port of peer
// N / portsAPeer.
const (
	firstPort  = 20000
	portsAPeer = 1024

	ikePort  = 500
	nattPort = 4500

	protocolTCP = 6
	protocolUDP = 17

	etherLen = 14
	ipv4Len  = 20
	// minFrame is what a real NIC delivers at least; a keepalive is 43 bytes.
	minFrame = 60
)

// tuple returns the mapping of a member, towards an address of the gateway.
func tuple(local netip.Addr, member uint32) (key bpf.PeerKey) {
	peer := binary.BigEndian.Uint32(peerAddr.AsSlice()) + member/portsAPeer
	var bytes [4]byte
	binary.BigEndian.PutUint32(bytes[:], peer)
	return bpf.PeerKey{
		Local: local.As16(), LocalPort: nattPort,
		Peer: netip.AddrFrom4(bytes).As16(), PeerPort: uint16(firstPort + member%portsAPeer),
	}
}

// datagram is an Ethernet frame with an IPv4 datagram of member 0.
func datagram(protocol byte, to netip.Addr, body []byte) []byte {
	b := append(append([]byte{}, gatewayMAC...), peerMAC...)
	b = append(b, 0x08, 0x00)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(ipv4Len+len(body)))
	b = append(b, 0, 0, 0x40, 0, 57, protocol, 0, 0)
	b = append(b, peerAddr.AsSlice()...)
	b = append(b, to.AsSlice()...)
	binary.NativeEndian.PutUint16(b[etherLen+10:], ^fold(sum(b[etherLen:])))
	b = append(b, body...)
	for len(b) < minFrame {
		b = append(b, 0)
	}
	return b
}

// udp is the frame of a datagram without a checksum (RFC 3948 §2.1).
func udp(to netip.AddrPort, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, firstPort)
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return datagram(protocolUDP, to.Addr(), append(append(b, 0, 0), payload...))
}

func keepalive(to netip.Addr) []byte {
	return udp(netip.AddrPortFrom(to, nattPort), []byte{0xff})
}

// esp is an ESP packet in UDP; a mutator puts in the SPI.
func esp() []byte {
	return udp(netip.AddrPortFrom(gatewayAddr, nattPort), make([]byte, 96))
}

// ike is an IKE header, behind the non-ESP marker on the NAT-T port.
func ike(port uint16) []byte {
	payload := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	if port == nattPort {
		payload = append(make([]byte, 4), payload...)
	}
	return udp(netip.AddrPortFrom(gatewayAddr, port), append(payload, make([]byte, 20)...))
}

func tcp() []byte { return datagram(protocolTCP, gatewayAddr, make([]byte, 40)) }

// sum adds words in the machine's own byte order (RFC 1071), as the mutator
// does.
func sum(b []byte) (total uint32) {
	for ; len(b) > 0; b = b[2:] {
		total += uint32(binary.NativeEndian.Uint16(b))
	}
	return total
}

func fold(sum uint32) uint16 {
	sum = sum&0xffff + sum>>16
	return uint16(sum + sum>>16)
}

// template returns what the mutator of keepalives writes anew each time, by the
// names of its constants.
func template(frame []byte) map[string]any {
	header := append([]byte{}, frame[etherLen:etherLen+28]...)
	clear(header[10:16]) // checksum and source
	var constants struct {
		macs  [6]uint16
		words [7]uint32
	}
	for i := range constants.macs {
		constants.macs[i] = binary.NativeEndian.Uint16(frame[2*i:])
	}
	clear(header[20:22]) // source port
	for i := range constants.words {
		constants.words[i] = binary.NativeEndian.Uint32(header[4*i:])
	}
	return map[string]any{
		benchVarTemplateMacs: constants.macs,
		benchVarTemplate:     constants.words,
		benchVarTemplateSum:  sum(header[:ipv4Len]),
		benchVarFirstPeer:    binary.BigEndian.Uint32(peerAddr.AsSlice()),
	}
}
