// Package wire turns bytes into IKEv2 messages and back (RFC 7296 §3). It
// judges form, not sense: which payloads an exchange needs, and what a value
// means, is for its callers.
//
// Parsing never panics, whatever the bytes, and keeps no reference to them: a
// receive buffer may be reused at once. What it allocates is bounded by a small
// multiple of the datagram. Everything here is pure and safe for concurrent
// use; a parsed message belongs to whoever parsed it.
//
// Three kinds of error tell the caller what may be answered: *VersionError,
// *CriticalError and *SyntaxError.
package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Hard limits on one message, against peers that make us work for nothing.
const (
	maxPayloads   = 256 // a payload of 4 bytes costs us about 60
	maxProposals  = 64
	maxTransforms = 256 // of all proposals of one SA payload
	maxSelectors  = 64
	maxAttributes = 64
	minNonce      = 16 // RFC 7296 §2.10
	maxNonce      = 256
)

// Packet is one UDP datagram. Its owner owns Data.
type Packet struct {
	Local, Remote netip.AddrPort
	NATT          bool   // it came, or goes, on the NAT traversal port
	Data          []byte // an IKE message without non-ESP marker, or ESP from its SPI on
}

// Message is one IKE message.
type Message struct {
	Header
	Payloads []Payload
}

// CriticalError refuses a payload that nobody here knows and whose sender
// insists on its being understood. RFC 7296 §2.5
type CriticalError struct{ Type PayloadType }

func (e *CriticalError) Error() string {
	return fmt.Sprintf("IKE payload type %d is critical and unknown", uint8(e.Type))
}

// Parse reads a whole message. An encrypted payload ends it and stays sealed:
// the last payload is then an *Encrypted (or, for a fragment, a *Raw).
func Parse(b []byte) (*Message, error) {
	c := newCursor(b)
	h := c.header()
	if c.ok() && h.Major() != 2 {
		return nil, &VersionError{h.Version}
	}
	// uint64, for an int of 32 bits cannot hold every Length.
	if c.ok() && uint64(h.Length) != uint64(len(b)) {
		c.fail("length field says %d, the datagram has %d bytes", h.Length, len(b))
	}
	ps := c.chain(h.Next, true)
	if !c.ok() {
		return nil, c.run.err
	}
	return &Message{h, ps}, nil
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
	body := c.sub(int(c.u16()) - genericLen)
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

// Append writes the message with its own Next and Length, as version 2.0; m
// itself stays as it is. No payload may exceed 65,531 bytes, nor any list its
// count field: whoever builds a message keeps to the limits of the format.
func (m *Message) Append(dst []byte) []byte {
	start := len(dst)
	h := m.Header
	h.Version = version2
	dst = h.Append(dst)
	dst, next := AppendPayloads(dst, m.Payloads)
	dst[start+16] = byte(next)
	binary.BigEndian.PutUint32(dst[start+24:], uint32(len(dst)-start))
	return dst
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
