package wire

func (*Encrypted) Type() PayloadType { return TypeSK }

// encrypted keeps an SK payload sealed. RFC 7296 §3.14
func (c *cursor) encrypted(g generic) *Encrypted {
	return &Encrypted{Offset: g.offset, Next: g.next, Body: c.rest()}
}

func (e *Encrypted) appendBody(b []byte) []byte { return append(b, e.Body...) }

func (r *Raw) Type() PayloadType { return r.T }

// raw keeps a payload that is not interpreted. Of those, an unknown type with
// the critical bit refuses the whole message. RFC 7296 §2.5
func (c *cursor) raw(g generic) *Raw {
	if g.critical && !uninterpreted(g.t) && c.ok() {
		c.run.err = &CriticalError{g.t}
	}
	r := &Raw{T: g.t, Critical: g.critical, Data: c.rest()}
	if sealed(g.t) {
		r.Next = g.next
	}
	return r
}

// uninterpreted types are known, yet kept as they are.
func uninterpreted(t PayloadType) bool {
	switch t {
	case TypeCert, TypeCReq, TypeVendor, TypeEAP, TypeSKF:
		return true
	}
	return false
}

func (r *Raw) appendBody(b []byte) []byte { return append(b, r.Data...) }
