package wire

import (
	"encoding/binary"
	"fmt"
)

// CriticalError refuses a payload that nobody here knows and whose sender
// insists on its being understood. RFC 7296 §2.5
type CriticalError struct{ Type PayloadType }

func (e *CriticalError) Error() string {
	return fmt.Sprintf("IKE payload type %d is critical and unknown", uint8(e.Type))
}

// ParsePayloads reads the chain of payloads found in an opened SK payload,
// where another SK has no place. Offsets in its errors count from b.
func ParsePayloads(first PayloadType, b []byte) ([]Payload, error) {
	c := newCursor(b)
	ps := c.chain(first, false)
	if !c.ok() {
		return nil, c.run.err
	}
	return ps, nil
}

// chain reads payloads until one names no next, which must be at the very end.
func (c *cursor) chain(next PayloadType, outer bool) []Payload {
	var ps []Payload
	var seen [256]bool
	for c.ok() && next != NoNext {
		c.run.payload = next
		switch {
		case len(ps) == maxPayloads:
			c.fail("more than %d payloads", maxPayloads)
		case seen[next] && once(next):
			c.fail("comes twice")
		case !outer && sealed(next):
			c.fail("inside an encrypted payload")
		}
		seen[next] = true
		var p Payload
		p, next = c.payload(next)
		ps = append(ps, p)
	}
	c.run.payload = NoNext
	c.end()
	return ps
}

// once says which payloads a message has at most one of: where two would make
// it ambiguous what was offered, proved or agreed.
func once(t PayloadType) bool {
	switch t {
	case TypeSA, TypeKE, TypeIDi, TypeIDr, TypeAuth, TypeNonce, TypeTSi, TypeTSr, TypeEAP:
		return true
	}
	return false
}

// sealed payloads end the chain: their next payload field names the first
// payload inside. RFC 7296 §3.14, RFC 7383 §2.5
func sealed(t PayloadType) bool { return t == TypeSK || t == TypeSKF }

// payload reads one payload from its generic header on, and gives the type of
// the one that follows.
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Next Payload  |C|  RESERVED   |         Payload Length        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.2
func (c *cursor) payload(t PayloadType) (Payload, PayloadType) {
	g := generic{offset: c.off, t: t}
	g.next = PayloadType(c.u8())
	g.critical = c.u8()&criticalBit != 0
	body := c.body()
	p := body.decode(g)
	body.end()
	if sealed(t) {
		return p, NoNext
	}
	return p, g.next
}

const (
	genericLen  = 4
	criticalBit = 0x80
)

// generic is a payload's generic header.
type generic struct {
	offset   int
	t, next  PayloadType
	critical bool
}

// decode reads the body of one payload. The critical bit means nothing on a
// type that we know. RFC 7296 §3.2
func (c *cursor) decode(g generic) Payload {
	switch g.t {
	case TypeSA:
		return c.sa()
	case TypeKE:
		return c.ke()
	case TypeIDi, TypeIDr:
		return c.id(g.t)
	case TypeAuth:
		return c.auth()
	case TypeNonce:
		return c.nonce()
	case TypeNotify:
		return c.notify()
	case TypeDelete:
		return c.delete()
	case TypeTSi, TypeTSr:
		return c.ts(g.t)
	case TypeCP:
		return c.cp()
	case TypeSK:
		return c.encrypted(g)
	default:
		return c.raw(g)
	}
}

// AppendPayloads writes a chain of payloads and gives the type of its first.
func AppendPayloads(dst []byte, ps []Payload) (out []byte, first PayloadType) {
	for i, p := range ps {
		start := len(dst)
		dst = append(dst, byte(following(ps, i)), flagsOf(p), 0, 0)
		dst = p.appendBody(dst)
		binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start))
	}
	return dst, typeAt(ps, 0)
}

// following is what the payload at i names as its next.
func following(ps []Payload, i int) PayloadType {
	switch p := ps[i].(type) {
	case *Encrypted:
		return p.Next
	case *Raw:
		if sealed(p.T) {
			return p.Next
		}
	}
	return typeAt(ps, i+1)
}

func typeAt(ps []Payload, i int) PayloadType {
	if i < len(ps) {
		return ps[i].Type()
	}
	return NoNext
}

// flagsOf is the second byte of a generic header. Only what came as Raw can
// carry the critical bit: known payloads never do. RFC 7296 §3.2
func flagsOf(p Payload) byte {
	if r, ok := p.(*Raw); ok && r.Critical {
		return criticalBit
	}
	return 0
}

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
