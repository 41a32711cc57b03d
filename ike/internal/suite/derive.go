package suite

import (
	"crypto/hmac"
	"encoding/binary"
	"hash"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// IKEKeys are the keys of an IKE SA: D derives, A authenticates, E encrypts, P
// goes into AUTH; i is what the initiator sends with, r the responder.
type IKEKeys struct{ D, Ai, Ar, Ei, Er, Pi, Pr Key }

// ChildKeys are where the keys of a Child SA go: I from the initiator of its
// exchange to the responder, R the other way. An AEAD has no integrity keys.
type ChildKeys struct{ EncrI, IntegI, EncrR, IntegR *Key }

// Wipe overwrites the keys.
func (k *IKEKeys) Wipe() { *k = IKEKeys{} }

// compute is the PRF over the parts in a row. RFC 7296 §2.13
func (a *algorithm) compute(key []byte, parts ...[]byte) []byte {
	m := hmac.New(a.hash, key)
	defer flush(m)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// flush overwrites what was last written to m: a hash keeps it in a buffer, and
// it may have been a secret or a key.
func flush(m hash.Hash) {
	m.Reset()
	m.Write(make([]byte, m.BlockSize()-1))
}

// expand is prf+: n bytes of T1 | T2 | …, each T the PRF over the one before,
// the seed and a counter. Its whole capacity holds key material. RFC 7296 §2.13
func (a *algorithm) expand(key, seed []byte, n int) []byte {
	m := hmac.New(a.hash, key)
	defer flush(m)
	out := make([]byte, 0, n+m.Size())
	for t, i := []byte(nil), byte(1); len(out) < n; i++ {
		m.Reset()
		m.Write(t)
		m.Write(seed)
		m.Write([]byte{i})
		start := len(out)
		out = m.Sum(out)
		t = out[start:]
	}
	return out[:n]
}

// keyStream hands out keying material from the left.
type keyStream []byte

func (s *keyStream) fill(n int, keys ...*Key) {
	for _, k := range keys {
		k.Set((*s)[:n])
		*s = (*s)[n:]
	}
}

// prf is the choice's PRF; a choice without one (of ESP) cannot derive.
func (c Choice) prf() *algorithm { return find(wire.TransformPRF, c.PRF, 0) }

// PRFLen is the length of the PRF's output and preferred key.
func (c Choice) PRFLen() int { return c.prf().key }

// keyLens are the lengths of an encryption and an integrity key.
func (c Choice) keyLens() (encr, integ int) {
	encr = find(wire.TransformEncr, c.Encr, c.KeyBits).key
	if c.Integ != wire.IntegNone {
		integ = find(wire.TransformInteg, c.Integ, 0).key
	}
	return encr, integ
}

// DeriveIKE makes the keys of an IKE SA from the shared secret, the nonces and
// the SPIs. RFC 7296 §2.14
func (c Choice) DeriveIKE(k *IKEKeys, secret, ni, nr []byte, spii, spir uint64) {
	nonces := append(append([]byte(nil), ni...), nr...)
	skeyseed := c.prf().compute(nonces, secret)
	defer clear(skeyseed)
	c.expandIKE(k, skeyseed, nonces, spii, spir)
}

// expandIKE is {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} =
// prf+(SKEYSEED, Ni | Nr | SPIi | SPIr). RFC 7296 §2.14
func (c Choice) expandIKE(k *IKEKeys, skeyseed, nonces []byte, spii, spir uint64) {
	seed := binary.BigEndian.AppendUint64(nonces, spii)
	seed = binary.BigEndian.AppendUint64(seed, spir)
	prf := c.PRFLen()
	encr, integ := c.keyLens()
	material := c.prf().expand(skeyseed, seed, 3*prf+2*integ+2*encr)
	defer clear(material[:cap(material)])
	s := keyStream(material)
	s.fill(prf, &k.D)
	s.fill(integ, &k.Ai, &k.Ar)
	s.fill(encr, &k.Ei, &k.Er)
	s.fill(prf, &k.Pi, &k.Pr)
}

// DeriveChild makes the keys of a Child SA whose algorithms are child, from
// SK_d of the IKE SA, whose choice c is: prf+(SK_d, Ni | Nr). RFC 7296 §2.17
func (c Choice) DeriveChild(k ChildKeys, child Choice, d *Key, ni, nr []byte) {
	seed := append(append([]byte(nil), ni...), nr...)
	encr, integ := child.keyLens()
	material := c.prf().expand(d.Bytes(), seed, 2*encr+2*integ)
	defer clear(material[:cap(material)])
	s := keyStream(material)
	s.fill(encr, k.EncrI)
	s.fill(integ, k.IntegI)
	s.fill(encr, k.EncrR)
	s.fill(integ, k.IntegR)
}

// keyPad is the constant that stretches a shared secret. RFC 7296 §2.15
const keyPad = "Key Pad for IKEv2"

// PSKAuth is the AUTH data for a shared key: over the signer's first message
// as it was sent, the other side's nonce, and the signer's identity under its
// SK_p. Compare it with subtle.ConstantTimeCompare. RFC 7296 §2.15
func (c Choice) PSKAuth(psk, message, nonce []byte, skp *Key, id *wire.ID) []byte {
	prf := c.prf()
	body := append([]byte{byte(id.Kind), 0, 0, 0}, id.Data...)
	maced := prf.compute(skp.Bytes(), body)
	key := prf.compute(psk, []byte(keyPad))
	defer clear(key)
	return prf.compute(key, message, nonce, maced)
}
