package wire

import (
	"encoding/binary"
	"net/netip"
)

// Traffic selector types. RFC 7296 §3.13.1
const (
	tsIPv4Range = 7
	tsIPv6Range = 8
)

// OPAQUE ports are written as a range from 65535 to 0. RFC 7296 §3.13.1
const (
	opaqueStart = 65535
	opaqueEnd   = 0
)

func (ts *TS) Type() PayloadType { return ts.T }

// ts reads a list of selectors. It may end up empty, when none was of a kind
// that we know: such a list matches nothing.
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Number of TSs |                 RESERVED                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                       <Traffic Selectors>                     ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.13
func (c *cursor) ts(t PayloadType) *TS {
	ts := &TS{T: t}
	count := int(c.u8())
	c.skip(3)
	if count > maxSelectors {
		c.fail("more than %d selectors", maxSelectors)
	}
	for range count {
		if !c.ok() {
			break
		}
		if s, known := c.selector(); known {
			ts.Selectors = append(ts.Selectors, s)
		}
	}
	return ts
}

// selector reads one selector; known is false for a type that is to be
// ignored. RFC 7296 §2.9
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   TS Type     |IP Protocol ID |       Selector Length         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           Start Port          |           End Port            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                         Starting Address                      ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                         Ending Address                        ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.13.1
func (c *cursor) selector() (s Selector, known bool) {
	kind := c.u8()
	s.Protocol = c.u8()
	b := c.body()
	if kind != tsIPv4Range && kind != tsIPv6Range {
		return s, false
	}
	s.StartPort, s.EndPort = b.u16(), b.u16()
	s.Start, s.End = b.addr(kind), b.addr(kind)
	b.end()
	if s.End.Less(s.Start) {
		b.fail("addresses from %s to %s", s.Start, s.End)
	}
	opaque := s.StartPort == opaqueStart && s.EndPort == opaqueEnd
	if s.EndPort < s.StartPort && !opaque {
		b.fail("ports from %d to %d", s.StartPort, s.EndPort)
	}
	return s, true
}

// addr reads an address of a selector of that type.
func (c *cursor) addr(kind uint8) netip.Addr {
	n := 4
	if kind == tsIPv6Range {
		n = 16
	}
	a, _ := netip.AddrFromSlice(c.take(n))
	return a
}

func (ts *TS) appendBody(b []byte) []byte {
	b = append(b, byte(len(ts.Selectors)), 0, 0, 0)
	for _, s := range ts.Selectors {
		b = s.append(b)
	}
	return b
}

func (s Selector) append(b []byte) []byte {
	kind, start, end := byte(tsIPv6Range), s.Start.As16(), s.End.As16()
	from, to := start[:], end[:]
	if s.Start.Is4() && s.End.Is4() {
		kind, from, to = tsIPv4Range, from[12:], to[12:]
	}
	b = append(b, kind, s.Protocol)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(from)+len(to)))
	b = binary.BigEndian.AppendUint16(b, s.StartPort)
	b = binary.BigEndian.AppendUint16(b, s.EndPort)
	b = append(b, from...)
	return append(b, to...)
}
