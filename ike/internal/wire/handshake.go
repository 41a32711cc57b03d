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

func (id *ID) Type() PayloadType { return id.T }

// id reads an identity of any kind; an address must have its length.
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   ID Type     |                 RESERVED                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                   Identification Data                         ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.5
func (c *cursor) id(t PayloadType) *ID {
	id := &ID{T: t, Kind: IDType(c.u8())}
	c.skip(3)
	id.Data = c.rest()
	if id.Kind == IDIPv4 && len(id.Data) != 4 || id.Kind == IDIPv6 && len(id.Data) != 16 {
		c.fail("%s of %d bytes", id.Kind, len(id.Data))
	}
	return id
}

func (id *ID) appendBody(b []byte) []byte {
	b = append(b, byte(id.Kind), 0, 0, 0)
	return append(b, id.Data...)
}

func (*Auth) Type() PayloadType { return TypeAuth }

// auth reads a proof of identity. An empty one proves nothing, whatever the
// method.
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Auth Method   |                RESERVED                       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	~                      Authentication Data                      ~
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.8
func (c *cursor) auth() *Auth {
	a := &Auth{Method: AuthMethod(c.u8())}
	c.skip(3)
	if c.left() == 0 {
		c.fail("no authentication data")
	}
	a.Data = c.rest()
	return a
}

func (a *Auth) appendBody(b []byte) []byte {
	b = append(b, byte(a.Method), 0, 0, 0)
	return append(b, a.Data...)
}
