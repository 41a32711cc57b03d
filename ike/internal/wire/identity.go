package wire

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
