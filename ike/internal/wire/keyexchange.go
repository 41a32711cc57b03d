package wire

import "encoding/binary"

func (*KE) Type() PayloadType { return TypeKE }

// ke reads a public value; whether its length fits the group is for whoever
// knows the group.
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   Diffie-Hellman Group Num    |           RESERVED            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                       Key Exchange Data                       ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.4
func (c *cursor) ke() *KE {
	k := &KE{Group: c.u16()}
	c.skip(2)
	if c.left() == 0 {
		c.fail("no key exchange data")
	}
	k.Data = c.rest()
	return k
}

func (k *KE) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, k.Group)
	b = append(b, 0, 0)
	return append(b, k.Data...)
}

func (*Nonce) Type() PayloadType { return TypeNonce }

// nonce reads Ni or Nr. "The size of the Nonce Data MUST be between 16 and 256
// octets, inclusive." RFC 7296 §3.9
func (c *cursor) nonce() *Nonce {
	if n := c.left(); n < minNonce || n > maxNonce {
		c.fail("nonce of %d bytes", n)
	}
	return &Nonce{c.rest()}
}

func (n *Nonce) appendBody(b []byte) []byte { return append(b, n.Data...) }
