package wire

import "encoding/binary"

// cpTypeMask removes the reserved bit before an attribute's type.
const cpTypeMask = 0x7fff

func (*CP) Type() PayloadType { return TypeCP }

// cp reads configuration attributes. A value may have any length here: an address
// of an odd one is a slip of the client's, not a message that cannot be read.
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
		a.Value = c.bytes(int(c.u16()))
		cp.Attrs = append(cp.Attrs, a)
	}
	return cp
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
