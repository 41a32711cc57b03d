package wire

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
)

// First is what a responder must know of an IKE_SA_INIT request before it
// spends anything on it: what a cookie is made of. Its slices are views of the
// message. RFC 7296 §2.6
type First struct {
	Header
	Nonce  []byte
	Cookie []byte // of the first COOKIE; nil if there is none

	data     []byte
	at, size int // of the COOKIE payload with its generic header; size 0: none
	link     int // where the next payload field that names it stands
}

// ScanFirst walks the payloads of a message without decoding or keeping them.
// It fails where the chain does not end with the message, or has no nonce; what
// else is wrong with it Parse finds out.
func ScanFirst(data []byte) (First, error) {
	c := newCursor(data)
	f := First{Header: c.header(), data: data}
	if c.ok() && uint64(f.Length) != uint64(len(data)) {
		c.fail("length field says %d, the datagram has %d bytes", f.Length, len(data))
	}
	link := nextField
	for n, next := 0, f.Next; c.ok() && next != NoNext; n++ {
		if n == maxPayloads {
			c.fail("more than %d payloads", maxPayloads)
		}
		c.run.payload = next
		at := c.off
		follows := PayloadType(c.u8())
		c.skip(1)
		body := c.body()
		f.note(next, body.b, at, link)
		if next, link = follows, at; sealed(c.run.payload) {
			next = NoNext // what it names is inside
		}
	}
	c.run.payload = NoNext
	c.end()
	if n := len(f.Nonce); c.ok() && (n < minNonce || n > maxNonce) {
		c.fail("nonce of %d bytes", n)
	}
	return f, c.run.err
}

// nextField is where the header names the first payload.
const nextField = 16

// note keeps the first nonce and the first cookie.
func (f *First) note(t PayloadType, body []byte, at, link int) {
	switch {
	case t == TypeNonce && f.Nonce == nil:
		f.Nonce = body
	case t == TypeNotify && f.size == 0 && len(body) > notifyHeader && body[1] == 0 &&
		NotifyType(binary.BigEndian.Uint16(body[2:])) == Cookie:
		f.Cookie = body[notifyHeader:]
		f.at, f.size, f.link = at, genericLen+len(body), link
	}
}

const notifyHeader = 4 // protocol, SPI size, kind

// Normal appends the request as it would be without its COOKIE payload: the
// rest byte for byte, with the next payload field that named it and the length
// made to fit. Two requests whose normal forms are equal are one request, sent
// without a cookie and with one. RFC 7296 §2.6
func (f *First) Normal(dst []byte) []byte {
	start := len(dst)
	if f.size == 0 {
		return append(dst, f.data...)
	}
	dst = append(dst, f.data[:f.at]...)
	dst = append(dst, f.data[f.at+f.size:]...)
	dst[start+f.link] = f.data[f.at]
	binary.BigEndian.PutUint32(dst[start+lengthField:], uint32(len(f.data)-f.size))
	return dst
}

// WithCookie appends the request as it is with that cookie: in front of all
// other payloads, which stay as they are. RFC 7296 §2.6
func (f *First) WithCookie(dst, cookie []byte) []byte {
	start := len(dst)
	dst = f.Normal(dst)
	bare := dst[start:]
	n := Notify{Kind: Cookie, Data: cookie}
	payload := append([]byte{bare[nextField], 0, 0, 0}, n.appendBody(nil)...)
	binary.BigEndian.PutUint16(payload[2:], uint16(len(payload)))
	bare[nextField] = byte(TypeNotify)
	binary.BigEndian.PutUint32(bare[lengthField:], uint32(len(bare)+len(payload)))
	return slices.Insert(dst, start+HeaderLen, payload...)
}

// lengthField is where the header has the length of the message.
const lengthField = 24

// Digest is a keyed hash of the normal form.
func (f *First) Digest(seed maphash.Seed) uint64 {
	if f.size == 0 {
		return maphash.Bytes(seed, f.data)
	}
	var buffer [1024]byte // most requests fit, and stay off the heap
	return maphash.Bytes(seed, f.Normal(buffer[:0]))
}
