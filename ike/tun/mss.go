package tun

import (
	"encoding/binary"
	"math/bits"
)

// What a TCP segment of a full MTU has in front of its data, without options.
// A sender takes those off the MSS itself. RFC 6691 §2
const (
	overheadIPv4 = 20 + tcpLen
	overheadIPv6 = 40 + tcpLen
)

const (
	protocolTCP = 6
	tcpLen      = 20
	flagSYN     = 0x02
	flagRST     = 0x04

	tcpChecksum = 16 // offset in the header

	optionEnd = 0
	optionNOP = 1
	optionMSS = 2
)

// clampMSS lowers the MSS option of a TCP SYN to what fits an MTU, so that TCP
// needs no ICMP to find it. It touches nothing but whole and well-formed
// packets, and never raises a value. A SYN without the option stays so: its
// sender then takes 536, or 1220 in IPv6, which are within the least MTU of
// either family. RFC 9293 §3.7.1
func clampMSS(packet []byte, mtu int) {
	if o, ok := findMSS(packet); ok {
		o.clamp(packet, mtu)
	}
}

// mss says where in a packet the MSS option of its SYN is.
type mss struct {
	tcp      int // where the TCP header begins
	value    int // where the option's value is
	overhead int // of the packet's family
}

// findMSS finds the option. Most packets are no SYN, and leave early.
func findMSS(packet []byte) (mss, bool) {
	tcp, end, overhead, ok := findTCP(packet)
	if !ok || end-tcp < tcpLen || packet[tcp+13]&(flagSYN|flagRST) != flagSYN {
		return mss{}, false
	}
	options := tcp + tcpLen
	limit := tcp + int(packet[tcp+12]>>4)*4
	if limit < options || limit > end {
		return mss{}, false
	}
	value, ok := findOption(packet[:limit], options)
	return mss{tcp, value, overhead}, ok
}

// findOption walks the options from at to the end of b.
func findOption(b []byte, at int) (value int, ok bool) {
	for at < len(b) && b[at] != optionEnd {
		switch {
		case b[at] == optionNOP:
			at++
			continue
		case at+2 > len(b) || b[at+1] < 2 || at+int(b[at+1]) > len(b):
			return 0, false
		case b[at] == optionMSS:
			return at + 2, b[at+1] == 4
		}
		at += int(b[at+1])
	}
	return 0, false
}

// findTCP finds the TCP segment in a packet that is no fragment, and tells
// where it begins and ends.
func findTCP(packet []byte) (tcp, end, overhead int, ok bool) {
	if len(packet) == 0 {
		return 0, 0, 0, false
	}
	switch packet[0] >> 4 {
	case 4:
		tcp, end, ok = tcpInIPv4(packet)
		return tcp, end, overheadIPv4, ok
	case 6:
		tcp, end, ok = tcpInIPv6(packet)
		return tcp, end, overheadIPv6, ok
	}
	return 0, 0, 0, false
}

// tcpInIPv4 reads a header of RFC 791 §3.1.
func tcpInIPv4(b []byte) (tcp, end int, ok bool) {
	if len(b) < 20 || b[9] != protocolTCP {
		return 0, 0, false
	}
	const moreFragments, offset = 0x2000, 0x1fff
	tcp, end = int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	whole := binary.BigEndian.Uint16(b[6:])&(moreFragments|offset) == 0
	return tcp, end, whole && 20 <= tcp && tcp <= end && end <= len(b)
}

// tcpInIPv6 walks over the extension headers of RFC 8200 §4. What AH
// authenticates is not to be changed, so it ends the walk as ESP does.
func tcpInIPv6(b []byte) (tcp, end int, ok bool) {
	if len(b) < 40 {
		return 0, 0, false
	}
	end = 40 + int(binary.BigEndian.Uint16(b[4:]))
	if end > len(b) {
		return 0, 0, false
	}
	// Each round takes 8 bytes, and honest packets have two or three.
	const maxExtensions = 8
	next, at := b[6], 40
	for range maxExtensions {
		switch next {
		case protocolTCP:
			return at, end, true
		case 0, 43, 60: // hop-by-hop options, routing, destination options
		default: // another protocol, or a fragment
			return 0, 0, false
		}
		if end-at < 8 {
			return 0, 0, false
		}
		size := 8 + int(b[at+1])*8
		if end-at < size {
			return 0, 0, false
		}
		next, at = b[at], at+size
	}
	return 0, 0, false
}

// clamp lowers the value to what fits the MTU, and mends the checksum.
func (o mss) clamp(packet []byte, mtu int) {
	value, sum := packet[o.value:], packet[o.tcp+tcpChecksum:]
	before, after := binary.BigEndian.Uint16(value), uint16(mtu-o.overhead)
	if before <= after {
		return
	}
	binary.BigEndian.PutUint16(value, after)
	if (o.value-o.tcp)%2 == 1 { // it lies across two words of the sum
		before, after = bits.ReverseBytes16(before), bits.ReverseBytes16(after)
	}
	binary.BigEndian.PutUint16(sum, updateChecksum(binary.BigEndian.Uint16(sum), before, after))
}

// updateChecksum is the checksum of what had one word replaced. RFC 1624 §3
func updateChecksum(sum, before, after uint16) uint16 {
	s := uint32(^sum) + uint32(^before) + uint32(after)
	s = s>>16 + s&0xffff
	return ^uint16(s>>16 + s)
}
