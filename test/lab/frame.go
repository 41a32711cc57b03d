package lab

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// NATTPort is the port of UDP-encapsulated ESP and its keepalives (RFC 3948).
const NATTPort = 4500

const (
	etherHeader  = 14
	etherIPv4    = 0x0800
	etherIPv6    = 0x86dd
	ipv4Header   = 20
	ipv6Header   = 40
	udpHeader    = 8
	protocolUDP  = 17
	fragmentBits = 0x3fff // more fragments, and the offset
)

// Frame is one captured Ethernet frame.
type Frame struct {
	Time     time.Time // by the kernel, when it passed
	Outgoing bool      // sent by the interface's own namespace
	Data     []byte
}

// UDP decodes an unfragmented UDP datagram over IPv4 or IPv6 without extension
// headers. The payload is as long as the UDP header says: a frame may be
// padded.
func (f Frame) UDP() (src, dst netip.AddrPort, payload []byte, ok bool) {
	from, to, b, ok := f.ipUDP()
	if !ok || len(b) < udpHeader {
		return src, dst, nil, false
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length < udpHeader || length > len(b) {
		return src, dst, nil, false
	}
	src = netip.AddrPortFrom(from, binary.BigEndian.Uint16(b))
	dst = netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:]))
	return src, dst, b[udpHeader:length], true
}

// Keepalive tells a NAT keepalive, or the answer to one: a NAT-T datagram of
// the one byte 0xFF (RFC 3948 §2.3).
func (f Frame) Keepalive() bool {
	src, dst, payload, ok := f.UDP()
	return ok && (src.Port() == NATTPort || dst.Port() == NATTPort) &&
		len(payload) == 1 && payload[0] == 0xff
}

// ipUDP returns the addresses and what follows the IP header of a UDP packet.
func (f Frame) ipUDP() (src, dst netip.Addr, rest []byte, ok bool) {
	if len(f.Data) < etherHeader {
		return
	}
	b := f.Data[etherHeader:]
	switch binary.BigEndian.Uint16(f.Data[12:]) {
	case etherIPv4:
		return ipv4UDP(b)
	case etherIPv6:
		return ipv6UDP(b)
	}
	return
}

func ipv4UDP(b []byte) (src, dst netip.Addr, rest []byte, ok bool) {
	if len(b) < ipv4Header || b[9] != protocolUDP {
		return
	}
	header, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < ipv4Header || total < header || total > len(b) ||
		binary.BigEndian.Uint16(b[6:])&fragmentBits != 0 {
		return
	}
	return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[header:total], true
}

func ipv6UDP(b []byte) (src, dst netip.Addr, rest []byte, ok bool) {
	if len(b) < ipv6Header || b[6] != protocolUDP {
		return
	}
	total := ipv6Header + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return
	}
	return netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[ipv6Header:total], true
}
