package esp

import (
	"encoding/binary"
	"net/netip"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// flow is what selectors look at in an inner packet.
type flow struct {
	length   int // of the packet, by its own header
	next     byte
	src, dst netip.Addr
	protocol uint8
	known    bool // whether the protocol could be found
	ports    bool // whether the ports could be
	detour   bool // the destination is not where it ends
	srcPort  uint16
	dstPort  uint16
}

// parse reads the header of an inner packet. What follows the length that the
// header gives is TFC padding. RFC 4303 §2.7
func parse(inner []byte) (f flow, ok bool) {
	if len(inner) == 0 {
		return f, false
	}
	switch inner[0] >> 4 {
	case 4:
		return parseIPv4(inner)
	case 6:
		return parseIPv6(inner)
	}
	return f, false
}

const ipv4Len = 20

// parseIPv4 reads RFC 791 §3.1. The checksum is the inner stack's to check.
func parseIPv4(b []byte) (f flow, ok bool) {
	if len(b) < ipv4Len {
		return f, false
	}
	header := int(b[0]&15) * 4
	f = flow{
		length: int(binary.BigEndian.Uint16(b[2:])), next: nextIPv4,
		src: netip.AddrFrom4([4]byte(b[12:16])), dst: netip.AddrFrom4([4]byte(b[16:20])),
		protocol: b[9], known: true,
	}
	if header < ipv4Len || f.length < header || f.length > len(b) {
		return f, false
	}
	f.detour = sourceRouted(b[ipv4Len:header])
	if binary.BigEndian.Uint16(b[6:])&0x1fff == 0 { // the first fragment, or all of it
		f.readPorts(b[header:f.length])
	}
	return f, true
}

// sourceRouted reports whether IPv4 options name further hops (RFC 791 §3.1:
// loose and strict source and record route). Of options that are malformed the
// kernel takes none.
func sourceRouted(options []byte) bool {
	for len(options) > 0 {
		switch kind := options[0]; {
		case kind == 0:
			return false
		case kind == 1:
			options = options[1:]
		case kind == 131 || kind == 137:
			return true
		case len(options) < 2 || options[1] < 2 || int(options[1]) > len(options):
			return false
		default:
			options = options[options[1]:]
		}
	}
	return false
}

const ipv6Len = 40

func parseIPv6(b []byte) (f flow, ok bool) {
	if len(b) < ipv6Len {
		return f, false
	}
	f = flow{
		length: ipv6Len + int(binary.BigEndian.Uint16(b[4:])), next: nextIPv6,
		src: netip.AddrFrom16([16]byte(b[8:24])), dst: netip.AddrFrom16([16]byte(b[24:40])),
		protocol: b[6],
	}
	if f.length > len(b) {
		return f, false
	}
	f.walk(b[ipv6Len:f.length])
	return f, true
}

// maxExtensions bounds the walk; honest packets have two or three.
const maxExtensions = 8

// walk goes over the extension headers to the protocol, which stays unknown
// when they are cut short, too many, or in another fragment. AH and ESP count
// as protocols. RFC 4301 §4.4.1.1, RFC 8200 §4
func (f *flow) walk(b []byte) {
	for range maxExtensions {
		size := 0
		switch f.protocol {
		case 0, 43, 60: // hop-by-hop options, routing, destination options
			if len(b) < 8 {
				return
			}
			size = 8 + int(b[1])*8
			// Segments left: further hops. RFC 8200 §4.4
			f.detour = f.detour || f.protocol == 43 && b[3] != 0
		case 44: // fragment
			if len(b) < 8 {
				return
			}
			if binary.BigEndian.Uint16(b[2:])&^7 != 0 {
				f.protocol = b[0]
				f.known = !extension(b[0])
				return
			}
			size = 8
		default:
			f.known = true
			f.readPorts(b)
			return
		}
		if len(b) < size {
			return
		}
		f.protocol, b = b[0], b[size:]
	}
}

func extension(next byte) bool { return next == 0 || next == 43 || next == 44 || next == 60 }

// readPorts takes the ports of the protocols that have them. ICMP's type and
// code are one port number, and so is the type of a mobility header; they hold
// at both ends. RFC 7296 §3.13.1
func (f *flow) readPorts(b []byte) {
	if len(b) < 4 {
		return
	}
	f.srcPort, f.dstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	switch f.protocol {
	case 6, 17, 33, 132, 136: // TCP, UDP, DCCP, SCTP, UDP-Lite
		f.ports = true
	case 1, 58: // ICMP, ICMPv6
		f.dstPort, f.ports = f.srcPort, true
	case 135: // mobility
		f.srcPort, f.dstPort, f.ports = f.dstPort&0xff00, f.dstPort&0xff00, true
	}
}

// within reports whether the flow lies in one of from and one of to.
func (f *flow) within(from, to []wire.Selector) bool {
	return f.covered(from, f.src, f.srcPort) && f.covered(to, f.dst, f.dstPort)
}

func (f *flow) covered(sels []wire.Selector, addr netip.Addr, port uint16) bool {
	for i := range sels {
		s := &sels[i]
		if s.Start.Compare(addr) <= 0 && addr.Compare(s.End) <= 0 &&
			(s.Protocol == 0 || f.known && f.protocol == s.Protocol) && f.portsIn(s, port) {
			return true
		}
	}
	return false
}

// portsIn holds a port to a selector. One that cannot be seen, as in a later
// fragment, is within any port and within OPAQUE only. RFC 4301 §4.4.1.1
func (f *flow) portsIn(s *wire.Selector, port uint16) bool {
	switch {
	case s.StartPort == 0 && s.EndPort == 65535:
		return true
	case s.StartPort == 65535 && s.EndPort == 0:
		return !f.ports
	}
	return f.ports && s.StartPort <= port && port <= s.EndPort
}
