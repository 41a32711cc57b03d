// Package suite is the cryptography of IKEv2 and ESP: which algorithms there
// are, how a set of them is agreed, the key exchange, the key derivation, and
// the sealing of SK payloads and ESP packets. It is pure: randomness comes in
// as an io.Reader, nothing is kept between calls but what the caller holds.
//
// What holds a key here is wiped by whoever holds it: Key, IKEKeys, Private and
// ESP have a Wipe for that, and what is computed on the way is cleared as soon as
// it is used up. Some of what the libraries make of a key cannot be reached from
// here. It is let go of instead, and is overwritten when the allocator hands the
// memory out again:
//   - a cipher.Block or cipher.AEAD: an AES key schedule begins with the key, and
//     ChaCha20-Poly1305 keeps the key itself;
//   - an HMAC: the key under its two constant masks, or the state of the hash
//     after those;
//   - an ecdh.PrivateKey, with the scalar;
//   - a bigmod.Nat, which was the shared secret of a MODP group.
//
// There is no SHA-1, MD5, 3DES nor a MODP group under 2048 bits: what is not
// in the table below can neither be configured nor be agreed to.
package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// algorithm is one row of the table. Lengths are in bytes; what does not apply
// to a kind is zero.
type algorithm struct {
	kind    wire.TransformType
	id      uint16
	keyBits uint16   // the Key Length attribute; 0: the transform has none
	names   []string // swanctl's names, ours first

	key   int // key material, with the salt that stands at its end
	salt  int
	iv    int
	block int // what the plaintext is padded to inside SK
	icv   int

	aead  func(key []byte) (cipher.AEAD, error)
	hash  func() hash.Hash
	curve ecdh.Curve
	prime *prime
}

// table is every algorithm there is. IANA registry "IKEv2 Parameters".
var table = []*algorithm{
	cbc(128, "aes128", "aes"), cbc(192, "aes192"), cbc(256, "aes256"),
	gcm(128, "aes128gcm16", "aes128gcm", "aes128gcm128"),
	gcm(192, "aes192gcm16", "aes192gcm", "aes192gcm128"),
	gcm(256, "aes256gcm16", "aes256gcm", "aes256gcm128"),
	// RFC 7634 §2: a 32-byte key, then a 4-byte salt; no Key Length attribute.
	{kind: wire.TransformEncr, id: wire.EncrChaCha20Poly1305, names: []string{"chacha20poly1305"},
		key: 36, salt: 4, iv: 8, block: 1, icv: 16, aead: chacha20poly1305.New},

	prf(wire.PRFHMACSHA256, sha256.New, "prfsha256", "prfsha2_256"),
	prf(wire.PRFHMACSHA384, sha512.New384, "prfsha384", "prfsha2_384"),
	prf(wire.PRFHMACSHA512, sha512.New, "prfsha512", "prfsha2_512"),

	integ(wire.IntegSHA256128, sha256.New, "sha256", "sha2_256", "sha256_128"),
	integ(wire.IntegSHA384192, sha512.New384, "sha384", "sha2_384", "sha384_192"),
	integ(wire.IntegSHA512256, sha512.New, "sha512", "sha2_512", "sha512_256"),

	{kind: wire.TransformKE, id: wire.KEX25519, names: []string{"x25519", "curve25519"}, curve: ecdh.X25519()},
	{kind: wire.TransformKE, id: wire.KEECP256, names: []string{"ecp256"}, curve: ecdh.P256()},
	{kind: wire.TransformKE, id: wire.KEECP384, names: []string{"ecp384"}, curve: ecdh.P384()},
	{kind: wire.TransformKE, id: wire.KEECP521, names: []string{"ecp521"}, curve: ecdh.P521()},
	{kind: wire.TransformKE, id: wire.KEMODP2048, names: []string{"modp2048"}, prime: &modp2048},
	{kind: wire.TransformKE, id: wire.KEMODP3072, names: []string{"modp3072"}, prime: &modp3072},
	{kind: wire.TransformKE, id: wire.KEMODP4096, names: []string{"modp4096"}, prime: &modp4096},

	{kind: wire.TransformESN, id: wire.ESNNo, names: []string{"noesn"}},
	{kind: wire.TransformESN, id: wire.ESNYes, names: []string{"esn"}},
}

// cbc is AES-CBC. RFC 3602
func cbc(bits uint16, names ...string) *algorithm {
	return &algorithm{kind: wire.TransformEncr, id: wire.EncrAESCBC, keyBits: bits, names: names,
		key: int(bits / 8), iv: aes.BlockSize, block: aes.BlockSize}
}

// gcm is AES-GCM with a 16-byte ICV and a 4-byte salt after the key.
// RFC 4106 §8.1, RFC 5282 §7
func gcm(bits uint16, names ...string) *algorithm {
	return &algorithm{kind: wire.TransformEncr, id: wire.EncrAESGCM16, keyBits: bits, names: names,
		key: int(bits/8) + 4, salt: 4, iv: 8, block: 1, icv: 16, aead: newGCM}
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// prf is HMAC with a SHA-2 hash; its preferred key is as long as its output.
// RFC 4868 §2.1.2
func prf(id uint16, h func() hash.Hash, names ...string) *algorithm {
	return &algorithm{kind: wire.TransformPRF, id: id, names: names, key: h().Size(), hash: h}
}

// integ is HMAC with a SHA-2 hash, cut to its first half. RFC 4868 §2.1.1
func integ(id uint16, h func() hash.Hash, names ...string) *algorithm {
	return &algorithm{kind: wire.TransformInteg, id: id, names: names,
		key: h().Size(), icv: h().Size() / 2, hash: h}
}

// find returns the row, or nil for an algorithm that we do not have.
func find(kind wire.TransformType, id, keyBits uint16) *algorithm {
	for _, a := range table {
		if a.kind == kind && a.id == id && a.keyBits == keyBits {
			return a
		}
	}
	return nil
}

// named returns the row of a swanctl name.
func named(word string) *algorithm {
	for _, a := range table {
		for _, n := range a.names {
			if n == word {
				return a
			}
		}
	}
	return nil
}
