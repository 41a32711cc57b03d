package suite

import (
	"encoding/binary"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

const (
	genericHeaderLen = 4    // RFC 7296 §3.2
	version2         = 0x20 // RFC 7296 §3.1
)

// Seal appends one message to dst: the header h with the payloads inside SK.
// It sets the header's Next, Version and Length. ivSeq is the sender's counter
// and must never repeat under these keys: it is the IV of an AEAD, and its
// encryption that of CBC. The keys must be those that DeriveIKE gave for c.
//
// The cipher is keyed anew each time: with AES-256-GCM that is 1.3 µs of the
// 1.6 µs that a short message takes (BenchmarkSK), where keeping it would cost
// each SA 1.5 kB a direction.
// RFC 7296 §3.14, RFC 5282 §3
func (c Choice) Seal(dst []byte, h wire.Header, ps []wire.Payload, encr, integ *Key, ivSeq uint64) []byte {
	k, err := c.keyed(encr, integ)
	if err != nil {
		panic("suite: " + err.Error())
	}
	start, head := len(dst), wire.HeaderLen+genericHeaderLen
	dst = append(dst, make([]byte, head+k.encr.iv)...)
	text := len(dst)
	dst, first := wire.AppendPayloads(dst, ps)
	pad := padLen(len(dst)-text+1, k.encr.block)
	dst = append(dst, make([]byte, pad+1+k.icv)...)
	msg := dst[start:]
	msg[len(msg)-k.icv-1] = byte(pad)
	putHeader(msg, h, first)
	k.seal(msg, head, ivSeq, msg[:head], nil)
	return dst
}

// padLen is what n lacks to a multiple of block.
func padLen(n, block int) int { return (block - n%block) % block }

// putHeader writes the header of a message that is one SK payload, and the
// generic header of that.
func putHeader(msg []byte, h wire.Header, first wire.PayloadType) {
	h.Next, h.Version, h.Length = wire.TypeSK, version2, uint32(len(msg))
	h.Append(msg[:0])
	sk := msg[wire.HeaderLen:]
	sk[0] = byte(first)
	binary.BigEndian.PutUint16(sk[2:], uint16(len(sk)))
}

// Open authenticates and decrypts the SK payload of msg, of which m is the
// parsed form, and returns the payloads inside. ErrAuthentication means that
// the message is not the peer's; any other error is a *wire.SyntaxError or
// *wire.CriticalError of a peer that holds the keys. msg is not written to.
// RFC 7296 §3.14, RFC 5282 §3
func (c Choice) Open(msg []byte, m *wire.Message, encr, integ *Key) ([]wire.Payload, error) {
	k, err := c.keyed(encr, integ)
	if err != nil {
		return nil, ErrAuthentication
	}
	sk, ok := wire.Find[*wire.Encrypted](m.Payloads)
	if !ok || sk.Offset < wire.HeaderLen || sk.Offset > len(msg)-genericHeaderLen {
		return nil, ErrAuthentication
	}
	head := sk.Offset + genericHeaderLen
	text, err := k.open(nil, msg, head, msg[:head], nil)
	if err != nil {
		return nil, err
	}
	// From here on the bytes are the peer's.
	if text, err = unpad(text, sk.Offset); err != nil {
		return nil, err
	}
	return wire.ParsePayloads(wire.PayloadType(msg[sk.Offset]), text)
}

// unpad cuts padding of any content and length, and its length octet.
// RFC 7296 §3.14
func unpad(text []byte, offset int) ([]byte, error) {
	if len(text) == 0 || int(text[len(text)-1]) >= len(text) {
		return nil, &wire.SyntaxError{Payload: wire.TypeSK, Offset: offset, Msg: "padding longer than the payload"}
	}
	return text[:len(text)-1-int(text[len(text)-1])], nil
}
