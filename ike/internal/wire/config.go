package wire

import "encoding/binary"

// cpTypeMask removes the reserved bit before an attribute's type.
const cpTypeMask = 0x7fff

func (*CP) Type() PayloadType { return TypeCP }

// cp reads configuration attributes.
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   CFG Type    |                    RESERVED                   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|R|         Attribute Type      |            Length             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                             Value                             ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.15
func (c *cursor) cp() *CP {
	cp := &CP{Kind: CPType(c.u8())}
	c.skip(3)
	for c.left() > 0 {
		if len(cp.Attrs) == maxAttributes {
			c.fail("more than %d attributes", maxAttributes)
		}
		a := CPAttr{Type: c.u16() & cpTypeMask}
		n := int(c.u16())
		if !cpLength(a.Type, n) {
			c.fail("attribute %d of %d bytes", a.Type, n)
		}
		a.Value = c.bytes(n)
		cp.Attrs = append(cp.Attrs, a)
	}
	return cp
}

// cpLength checks the length of the attributes that we read: empty in a
// request, or an address, for IPv6 with a prefix length. RFC 7296 §3.15.1
func cpLength(kind uint16, n int) bool {
	switch kind {
	case CPInternalIP4Address, CPInternalIP4Netmask, CPInternalIP4DNS:
		return n == 0 || n == 4
	case CPInternalIP6Address:
		return n == 0 || n == 17
	case CPInternalIP6DNS:
		return n == 0 || n == 16
	}
	return true
}

func (cp *CP) appendBody(b []byte) []byte {
	b = append(b, byte(cp.Kind), 0, 0, 0)
	for _, a := range cp.Attrs {
		b = binary.BigEndian.AppendUint16(b, a.Type&cpTypeMask)
		b = binary.BigEndian.AppendUint16(b, uint16(len(a.Value)))
		b = append(b, a.Value...)
	}
	return b
}
