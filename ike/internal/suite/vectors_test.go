package suite

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
	"github.com/ikepulse/ikepulse/test/require"
)

// Vectors that others made are read where they lie, and never copied here.

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(require.Cases(t), name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

// vector is one of strongSwan's.
type vector struct {
	Type, Name, Alg, Method       string
	Key, IV, AData, Plain, Cipher string
	Seed, Out, Salt, Data, Mac    string
	PubI                          string `json:"pub_i"`
	PubR                          string `json:"pub_r"`
	Shared                        string
	PRF                           string `json:"arg.prf"`
}

func strongswan(t *testing.T, file string) []vector {
	var f struct{ Vectors []vector }
	load(t, "vectors/strongswan/"+file+".json", &f)
	return f.Vectors
}

// prfs, and SHA-1 for vectors only: no name leads to it.
var prfs = map[string]*algorithm{
	"PRF_HMAC_SHA2_256": named("prfsha256"),
	"PRF_HMAC_SHA2_384": named("prfsha384"),
	"PRF_HMAC_SHA2_512": named("prfsha512"),
	"SHA-1":             prf(0, sha1.New),
}

func ran(t *testing.T, n, want int) {
	t.Helper()
	if n != want {
		t.Errorf("%d vectors ran, want %d", n, want)
	}
}

func TestVectorsPRF(t *testing.T) {
	n := 0
	for _, v := range append(strongswan(t, "sha2_hmac"), strongswan(t, "kdf_prf")...) {
		alg := prfs[v.Alg+v.PRF]
		if v.Type == "kdf" {
			// SKEYSEED = prf(Ni | Nr, g^ir): the salt is the PRF's key.
			alg, v.Key, v.Seed = prfs[v.PRF], v.Salt, v.Key
		}
		if alg == nil {
			continue
		}
		n++
		if got := alg.compute(unhex(t, v.Key), unhex(t, v.Seed)); !bytes.Equal(got, unhex(t, v.Out)) {
			t.Errorf("%s: got %x, want %s", v.Name, got, v.Out)
		}
	}
	ran(t, n, 21)
}

func TestVectorsPRFPlus(t *testing.T) {
	vs := strongswan(t, "kdf_prf_plus")
	for _, v := range vs {
		want := unhex(t, v.Out)
		got := prfs[v.PRF].expand(unhex(t, v.Key), unhex(t, v.Salt), len(want))
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, want %s", v.Name, got, v.Out)
		}
	}
	ran(t, len(vs), 7)
}

// TestVectorsACVP follows a whole derivation, IKE SA and Child SA, through
// PRF and prf+ with the seeds in the order that RFC 7296 §2.14 and §2.17 give.
func TestVectorsACVP(t *testing.T) {
	var f struct{ Inputs, Expected map[string]any }
	load(t, "vectors/acvp/ikev2_kdf_libreswan_sha1.json", &f)
	in := func(k string) []byte { return unhex(t, f.Inputs[k].(string)) }
	check := func(k string, got func(n int) []byte) []byte {
		want := unhex(t, f.Expected[k].(string))
		if g := got(len(want)); !bytes.Equal(g, want) {
			t.Errorf("%s: got %x, want %x", k, g, want)
		}
		return want
	}
	prf := prfs["SHA-1"]
	nonces := append(in("nInit"), in("nResp")...)
	seed := append(append(bytes.Clone(nonces), in("spiInit")...), in("spiResp")...)
	skeyseed := check("sKeySeed", func(int) []byte { return prf.compute(nonces, in("gir")) })
	dkm := check("derivedKeyingMaterial", func(n int) []byte { return prf.expand(skeyseed, seed, n) })
	check("derivedKeyingMaterialChild", func(n int) []byte { return prf.expand(dkm[:20], nonces, n) })
}

// TestVectorsKeys cuts the CAVP key material by hand and compares it with the
// fields that DeriveIKE and DeriveChild fill.
func TestVectorsKeys(t *testing.T) {
	seeds, pluses := strongswan(t, "kdf_prf"), strongswan(t, "kdf_prf_plus")[1:]
	child := choice(t, "aes256-sha256-x25519")
	for i, v := range seeds {
		c := choice(t, map[string]string{
			"PRF_HMAC_SHA2_256": "aes128gcm16-prfsha256-x25519",
			"PRF_HMAC_SHA2_384": "aes128gcm16-prfsha384-x25519",
			"PRF_HMAC_SHA2_512": "aes128gcm16-prfsha512-x25519",
		}[v.PRF])
		nonces, plus := unhex(t, v.Salt), unhex(t, pluses[i].Salt)
		spis := plus[len(nonces):]
		ni, nr := nonces[:len(nonces)/2], nonces[len(nonces)/2:]
		var k IKEKeys
		c.DeriveIKE(&k, unhex(t, v.Key), ni, nr, binary.BigEndian.Uint64(spis), binary.BigEndian.Uint64(spis[8:]))
		want := unhex(t, pluses[i].Out)
		for _, f := range []struct {
			name string
			key  Key
			n    int
		}{
			{"SK_d", k.D, c.PRFLen()}, {"SK_ai", k.Ai, 0}, {"SK_ar", k.Ar, 0},
			{"SK_ei", k.Ei, 20}, {"SK_er", k.Er, 20}, {"SK_pi", k.Pi, c.PRFLen()},
		} {
			n := min(f.n, len(want)) // the vectors end within SK_pi or before
			if got := f.key.Bytes(); len(got) != f.n || !bytes.HasPrefix(got, want[:n]) {
				t.Errorf("%s: %s is %x, want %x…", v.Name, f.name, got, want[:n])
			}
			want = want[n:]
		}
		cut(t, deriveChild(c, child, &k.D, ni, nr), c.prf().expand(k.D.Bytes(), nonces, 128))
	}
	ran(t, len(seeds), 6)
}

func deriveChild(c, child Choice, d *Key, ni, nr []byte) ChildKeys {
	k := ChildKeys{&Key{}, &Key{}, &Key{}, &Key{}}
	c.DeriveChild(k, child, d, ni, nr)
	return k
}

func cut(t *testing.T, k ChildKeys, want []byte) {
	t.Helper()
	got := [][]byte{k.EncrI.Bytes(), k.IntegI.Bytes(), k.EncrR.Bytes(), k.IntegR.Bytes()}
	for i, g := range got {
		if !bytes.Equal(g, want[32*i:32*i+32]) {
			t.Errorf("Child key %d is %x, want %x", i, g, want[32*i:32*i+32])
		}
	}
}

// aeadCase is an AEAD vector in the layout of keyed: the key ends in the salt,
// the nonce is salt | IV.
type aeadCase struct {
	name                      string
	key, iv, aad, plain, text []byte // text is ciphertext | ICV
	valid                     bool
}

func (v aeadCase) run(t *testing.T, encr EncrKey) {
	t.Helper()
	key := newKey(v.key)
	k, err := Choice{Encr: encr.ID, KeyBits: encr.KeyBits}.keyed(key, &Key{})
	if err != nil {
		t.Fatalf("%s: %v", v.name, err)
	}
	msg := append(bytes.Clone(v.iv), v.text...)
	got, err := k.open(nil, msg, 0, v.aad, nil)
	if !v.valid {
		if !errors.Is(err, ErrAuthentication) || got != nil {
			t.Errorf("%s: opened to %x, %v", v.name, got, err)
		}
		return
	}
	if err != nil || !bytes.Equal(got, v.plain) {
		t.Errorf("%s: opened to %x, %v", v.name, got, err)
	}
	copy(msg[8:], v.plain)
	clear(msg[8+len(v.plain):])
	k.seal(msg, 0, binary.BigEndian.Uint64(v.iv), v.aad, nil)
	if !bytes.Equal(msg[8:], v.text) {
		t.Errorf("%s: sealed to %x, want %x", v.name, msg[8:], v.text)
	}
}

func TestVectorsAEAD(t *testing.T) {
	n := 0
	for _, v := range append(strongswan(t, "aes_gcm"), strongswan(t, "chacha20poly1305")...) {
		c := aeadCase{v.Name, unhex(t, v.Key), unhex(t, v.IV), unhex(t, v.AData), unhex(t, v.Plain), unhex(t, v.Cipher), true}
		switch v.Alg {
		case "ENCR_AES_GCM_ICV16":
			c.run(t, EncrKey{wire.EncrAESGCM16, uint16(len(c.key)-4) * 8})
		case "ENCR_CHACHA20_POLY1305":
			c.run(t, EncrKey{wire.EncrChaCha20Poly1305, 0})
		default: // shorter ICVs, which we do not have
			continue
		}
		n++
	}
	ran(t, n, 19)
}

func TestVectorsWycheproofAEAD(t *testing.T) {
	n := wycheproofAEAD(t, "aes_gcm_test", func(bits uint16) EncrKey { return EncrKey{wire.EncrAESGCM16, bits} })
	n += wycheproofAEAD(t, "chacha20_poly1305_test", func(uint16) EncrKey { return EncrKey{ID: wire.EncrChaCha20Poly1305} })
	ran(t, n, 513)
}

func wycheproofAEAD(t *testing.T, file string, encr func(bits uint16) EncrKey) (n int) {
	var f struct {
		TestGroups []struct {
			IVSize, KeySize, TagSize int
			Tests                    []struct{ Key, IV, AAD, Msg, CT, Tag, Comment, Result string }
		}
	}
	load(t, "vectors/wycheproof/"+file+".json", &f)
	for _, g := range f.TestGroups {
		if g.IVSize != 96 || g.TagSize != 128 {
			continue // IKEv2 has only this nonce and this ICV
		}
		for _, v := range g.Tests {
			iv := unhex(t, v.IV)
			aeadCase{
				v.Comment, append(unhex(t, v.Key), iv[:4]...), iv[4:], unhex(t, v.AAD),
				unhex(t, v.Msg), unhex(t, v.CT+v.Tag), v.Result == "valid",
			}.run(t, encr(uint16(g.KeySize)))
			n++
		}
	}
	return n
}

func TestVectorsCBC(t *testing.T) {
	vs := strongswan(t, "aes_cbc")
	for _, v := range vs {
		encr, integ := newKey(unhex(t, v.Key)), newKey(make([]byte, 32))
		c := Choice{Encr: wire.EncrAESCBC, KeyBits: uint16(len(encr.Bytes())) * 8, Integ: wire.IntegSHA256128}
		k, err := c.keyed(encr, integ)
		if err != nil {
			t.Fatal(err)
		}
		msg := append(unhex(t, v.IV), unhex(t, v.Cipher)...)
		msg = append(msg, k.tag(msg, nil)...)
		got, err := k.open(nil, msg, 0, nil, nil)
		if err != nil || !bytes.Equal(got, unhex(t, v.Plain)) {
			t.Errorf("%s: opened to %x, %v", v.Name, got, err)
		}
	}
	ran(t, len(vs), 6)
}

func TestVectorsInteg(t *testing.T) {
	n := 0
	for _, v := range strongswan(t, "sha2_hmac") {
		id, ok := map[string]uint16{
			"AUTH_HMAC_SHA2_256_128": wire.IntegSHA256128,
			"AUTH_HMAC_SHA2_384_192": wire.IntegSHA384192,
			"AUTH_HMAC_SHA2_512_256": wire.IntegSHA512256,
		}[v.Alg]
		if !ok {
			continue
		}
		n++
		encr, integ := newKey(make([]byte, 16)), newKey(unhex(t, v.Key))
		k, err := Choice{Encr: wire.EncrAESCBC, KeyBits: 128, Integ: id}.keyed(encr, integ)
		if err != nil {
			t.Fatal(err)
		}
		data := unhex(t, v.Data)
		if got := k.tag(data[:4], data[4:]); !bytes.Equal(got, unhex(t, v.Mac)) {
			t.Errorf("%s: got %x, want %s", v.Name, got, v.Mac)
		}
	}
	ran(t, n, 9)
}
