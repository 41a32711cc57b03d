package suite

import (
	"encoding/binary"
	"fmt"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// espHead is SPI and sequence number. RFC 4303 §2
const espHead = 8

// ESP is the cipher of one direction of a Child SA. It is keyed by its first
// packet: most tunnels of a gateway carry nothing when they come up together,
// and an AES-GCM takes 1.3 kB. Unlike the keys of SK, which are used a few times
// an hour, it then stays keyed: it is on the path of each packet. It belongs to
// one goroutine, and redacts itself.
type ESP struct {
	choice      Choice
	encr, integ Key    // until the first packet
	k           *keyed // from then on
	aad         [12]byte
}

// NewESP makes the cipher, with a copy of the keys, which must be those that
// DeriveChild gave for c.
func (c Choice) NewESP(encr, integ *Key) *ESP {
	if _, _, err := c.fitting(encr, integ); err != nil {
		panic("suite: " + err.Error())
	}
	e := &ESP{choice: c}
	e.encr.Set(encr.Bytes())
	e.integ.Set(integ.Bytes())
	return e
}

// keyed is the cipher with its keys.
func (e *ESP) keyed() *keyed {
	if e.k == nil {
		k, err := e.choice.keyed(&e.encr, &e.integ)
		if err != nil {
			panic("suite: " + err.Error())
		}
		e.k = k
		e.wipeRaw()
	}
	return e.k
}

// Wipe ends the cipher: nothing can be sealed or opened with it any more.
func (e *ESP) Wipe() {
	e.wipeRaw()
	e.k = nil // see the package comment
}

func (e *ESP) wipeRaw() {
	e.encr.Wipe()
	e.integ.Wipe()
}

// Format keeps the keys out of whatever prints the cipher.
func (e *ESP) Format(f fmt.State, verb rune) { Key{}.Format(f, verb) }

// IVLen, ICVLen and Align are what a packet's layout depends on: lengths of
// the IV and the ICV, and what the payload with its trailer is padded to: the
// block, and never less than 4. RFC 4303 §2.4
func (e *ESP) IVLen() int  { return e.keyed().encr.iv }
func (e *ESP) ICVLen() int { return e.keyed().icv }
func (e *ESP) Align() int  { return max(e.keyed().encr.block, 4) }

// Seal encrypts a packet in place: SPI and sequence number, room for the IV,
// the payload with its trailer, room for the ICV. seq is the whole number, of
// which the packet holds the lower half; it must never repeat.
func (e *ESP) Seal(packet []byte, seq uint64) {
	aad, tail := e.bind(packet, seq)
	e.keyed().seal(packet, espHead, seq, aad, tail)
}

// Open appends the payload with its trailer to dst, which must not overlap the
// packet; it does not write to the packet. The only error is ErrAuthentication.
func (e *ESP) Open(dst, packet []byte, seq uint64) ([]byte, error) {
	if len(packet) < espHead {
		return nil, ErrAuthentication
	}
	aad, tail := e.bind(packet, seq)
	return e.keyed().open(dst, packet, espHead, aad, tail)
}

// bind is what is authenticated beside the ciphertext. With extended sequence
// numbers it has the upper half, which is not sent: between SPI and lower half
// for an AEAD, at the end for HMAC. RFC 4303 §2.2.1, RFC 4106 §5
func (e *ESP) bind(packet []byte, seq uint64) (aad, tail []byte) {
	if e.choice.ESN != wire.ESNYes {
		return packet[:espHead], nil
	}
	copy(e.aad[:4], packet[:4])
	binary.BigEndian.PutUint32(e.aad[4:], uint32(seq>>32))
	copy(e.aad[8:], packet[4:8])
	return e.aad[:], e.aad[4:8]
}
