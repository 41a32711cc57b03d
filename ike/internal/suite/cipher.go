package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"hash"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// ErrAuthentication means that an integrity check value is wrong: nothing in
// the message can be believed.
var ErrAuthentication = errors.New("message authentication failed")

// errKeys means that algorithms and keys do not go together.
var errKeys = errors.New("keys do not fit the algorithms")

// keyed is a cipher of one direction with its keys, for SK and ESP alike. Both
// lay out a message as: head | IV | ciphertext | ICV. What is authenticated
// beside the ciphertext is aad for an AEAD; for CBC with HMAC it is the head,
// which stands before, and tail, which comes after.
//
// Its buffers are why it is not for concurrent use, and why a packet costs no
// allocation.
type keyed struct {
	encr, integ *algorithm // integ is nil with an AEAD
	icv         int

	aead  cipher.AEAD
	nonce [12]byte // salt | IV. RFC 4106 §4, RFC 7634 §2

	block    cipher.Block
	enc, dec cbcMode // made at their first use
	counter  [aes.BlockSize]byte
	mac      hash.Hash
	sum      [64]byte
}

// cbcMode is what crypto/tls too relies on: the CBC of the standard library
// takes a new IV without a new allocation.
type cbcMode interface {
	cipher.BlockMode
	SetIV([]byte)
}

// fitting are the algorithms that the keys go with; no integrity for an AEAD.
func (c Choice) fitting(encr, integ *Key) (e, i *algorithm, err error) {
	e = find(wire.TransformEncr, c.Encr, c.KeyBits)
	if e == nil || len(encr.Bytes()) != e.key {
		return nil, nil, errKeys
	}
	if e.aead != nil {
		return e, nil, nil
	}
	i = find(wire.TransformInteg, c.Integ, 0)
	if i == nil || len(integ.Bytes()) != i.key {
		return nil, nil, errKeys
	}
	return e, i, nil
}

func (c Choice) keyed(encr, integ *Key) (*keyed, error) {
	e, i, err := c.fitting(encr, integ)
	if err != nil {
		return nil, err
	}
	k := &keyed{encr: e, integ: i, icv: e.icv}
	if e.aead != nil {
		return k, k.initAEAD(encr.Bytes())
	}
	k.icv = k.integ.icv
	k.mac = hmac.New(k.integ.hash, integ.Bytes())
	k.block, err = aes.NewCipher(encr.Bytes())
	return k, err
}

func (k *keyed) initAEAD(key []byte) (err error) {
	salt := len(key) - k.encr.salt
	copy(k.nonce[:], key[salt:])
	k.aead, err = k.encr.aead(key[:salt])
	return err
}

// seal encrypts msg in place: msg[head:] is room for the IV, the padded
// plaintext, and room for the ICV. n must never repeat under one key.
func (k *keyed) seal(msg []byte, head int, n uint64, aad, tail []byte) {
	iv, end := msg[head:head+k.encr.iv], len(msg)-k.icv
	text := msg[head+k.encr.iv : end]
	if k.aead != nil {
		// A counter is a good IV for a counter mode. RFC 4106 §3.1, RFC 7634 §2
		binary.BigEndian.PutUint64(iv, n)
		copy(k.nonce[k.encr.salt:], iv)
		k.aead.Seal(text[:0], k.nonce[:], text, aad)
		return
	}
	k.cbcIV(iv, n)
	if k.enc == nil {
		k.enc = cipher.NewCBCEncrypter(k.block, iv).(cbcMode)
	}
	k.enc.SetIV(iv)
	k.enc.CryptBlocks(text, text)
	copy(msg[end:], k.tag(msg[:end], tail))
}

// cbcIV makes the IV that CBC needs, which nobody can foresee: the counter
// encrypted with the key. NIST SP 800-38A appendix C, RFC 3602 §3
func (k *keyed) cbcIV(iv []byte, n uint64) {
	binary.BigEndian.PutUint64(k.counter[8:], n)
	k.block.Encrypt(iv, k.counter[:])
}

// open appends the plaintext, padding included, to dst, which must not overlap
// msg. Nothing is decrypted before the ICV is right, and msg is not written.
func (k *keyed) open(dst, msg []byte, head int, aad, tail []byte) ([]byte, error) {
	if len(msg) < head+k.encr.iv+k.icv {
		return nil, ErrAuthentication
	}
	iv, end := msg[head:head+k.encr.iv], len(msg)-k.icv
	if k.aead != nil {
		copy(k.nonce[k.encr.salt:], iv)
		out, err := k.aead.Open(dst, k.nonce[:], msg[head+k.encr.iv:], aad)
		if err != nil {
			return nil, ErrAuthentication
		}
		return out, nil
	}
	text := msg[head+k.encr.iv : end]
	if !hmac.Equal(k.tag(msg[:end], tail), msg[end:]) || len(text)%aes.BlockSize != 0 {
		return nil, ErrAuthentication
	}
	if k.dec == nil {
		k.dec = cipher.NewCBCDecrypter(k.block, iv).(cbcMode)
	}
	out := append(dst, text...)
	k.dec.SetIV(iv)
	k.dec.CryptBlocks(out[len(dst):], out[len(dst):])
	return out, nil
}

// tag is the truncated HMAC, valid until the next call. RFC 4868 §2.1.1
func (k *keyed) tag(msg, tail []byte) []byte {
	k.mac.Reset()
	k.mac.Write(msg)
	k.mac.Write(tail)
	return k.mac.Sum(k.sum[:0])[:k.icv]
}
