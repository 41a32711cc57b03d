package suite

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
	"github.com/ikepulse/ikepulse/test/require"
)

// ikeSuites has each cipher once; the groups and PRFs vary beside it.
var ikeSuites = []string{
	"aes128gcm16-prfsha256-x25519",
	"aes192gcm16-prfsha384-ecp256",
	"aes256gcm16-prfsha512-ecp384",
	"chacha20poly1305-prfsha256-ecp521",
	"aes128-sha256-x25519",
	"aes192-sha384-x25519",
	"aes256-sha512-prfsha256-x25519",
}

func choice(t testing.TB, s string) Choice {
	t.Helper()
	p, err := ParseIKE(s)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Choose([]Proposal{p}, []wire.Proposal{p.Wire(1, wire.ProtoIKE, nil)}, wire.ProtoIKE, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c.Choice
}

func keys(c Choice) (k IKEKeys) {
	c.DeriveIKE(&k, []byte("secret"), bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), 3, 4)
	return k
}

func newKey(b []byte) *Key {
	k := new(Key)
	k.Set(b)
	return k
}

var header = wire.Header{SPIi: 3, SPIr: 4, Exchange: wire.Informational, Flags: wire.FlagInitiator, MessageID: 7}

func parsed(t testing.TB, msg []byte) *wire.Message {
	t.Helper()
	m, err := wire.Parse(msg)
	if err != nil {
		t.Fatalf("%x does not parse: %v", msg, err)
	}
	return m
}

func chain(ps []wire.Payload) []byte {
	b, _ := wire.AppendPayloads(nil, ps)
	return b
}

func notify(n int) []wire.Payload {
	return []wire.Payload{&wire.Notify{Kind: wire.InitialContact, Data: bytes.Repeat([]byte{9}, n)}}
}

func TestSealOpen(t *testing.T) {
	for _, name := range ikeSuites {
		c := choice(t, name)
		k := keys(c)
		for n := range 40 {
			want := notify(n)
			prefix := []byte("before")
			out := c.Seal(prefix, header, want, &k.Ei, &k.Ai, 42)
			msg := out[len(prefix):]
			m := parsed(t, msg)
			h := header
			h.Next, h.Version, h.Length = wire.TypeSK, 0x20, uint32(len(msg))
			if m.Header != h || !bytes.HasPrefix(out, prefix) {
				t.Fatalf("%s: header %+v", name, m.Header)
			}
			got, err := c.Open(msg, m, &k.Ei, &k.Ai)
			if err != nil || !bytes.Equal(chain(got), chain(want)) {
				t.Fatalf("%s, data of %d bytes: opened %x, %v", name, n, chain(got), err)
			}
			if _, err := c.Open(msg, m, &k.Er, &k.Ar); !errors.Is(err, ErrAuthentication) {
				t.Fatalf("%s: the other direction's keys: %v", name, err)
			}
		}
		msg := c.Seal(nil, header, nil, &k.Ei, &k.Ai, 1)
		if ps, err := c.Open(msg, parsed(t, msg), &k.Ei, &k.Ai); err != nil || len(ps) != 0 {
			t.Errorf("%s: the empty message: %v, %v", name, ps, err)
		}
	}
}

// TestSealIV wants each counter to give its own IV, and that of CBC to tell
// nothing of the counter (RFC 7296 §3.14).
func TestSealIV(t *testing.T) {
	for _, name := range ikeSuites {
		c := choice(t, name)
		k := keys(c)
		seen := map[string]bool{}
		for n := range uint64(300) {
			iv := c.Seal(nil, header, nil, &k.Ei, &k.Ai, n)[32:]
			iv = iv[:find(wire.TransformEncr, c.Encr, c.KeyBits).iv]
			if len(iv) == 16 && bytes.Count(iv, []byte{0}) > 8 {
				t.Errorf("%s: IV %x", name, iv)
			}
			seen[string(iv)] = true
		}
		if len(seen) != 300 {
			t.Errorf("%s: %d IVs of 300 counters", name, len(seen))
		}
	}
}

// TestSKChaCha20 is the message of RFC 7634 appendix B, byte for byte.
func TestSKChaCha20(t *testing.T) {
	want := unhex(t, `c0c1c2c3c4c5c6c7 d0d1d2d3d4d5d6d7 2e202500 00000009 00000045 29000029
		1011121314151617 6103 94701f8d017f7c12924889 6b71bfe25236efd7cdc67066906315b2`)
	key := newKey(unhex(t, `808182838485868788898a8b8c8d8e8f 909192939495969798999a9b9c9d9e9f a0a1a2a3`))
	c := Choice{Encr: wire.EncrChaCha20Poly1305}
	h := wire.Header{SPIi: 0xc0c1c2c3c4c5c6c7, SPIr: 0xd0d1d2d3d4d5d6d7, Exchange: wire.Informational, MessageID: 9}
	ps := []wire.Payload{&wire.Notify{Kind: 16385, Data: []byte{0, 0, 0, 10}}}
	got := c.Seal(nil, h, ps, key, &Key{}, 0x1011121314151617)
	if !bytes.Equal(got, want) {
		t.Errorf("sealed %x, want %x", got, want)
	}
	if opened, err := c.Open(want, parsed(t, want), key, &Key{}); err != nil || !bytes.Equal(chain(opened), chain(ps)) {
		t.Errorf("opened %x, %v", chain(opened), err)
	}
}

// refusesFlips flips each bit and cuts at each length. The parsed form is also
// kept from before, so that the ICV alone must refuse.
func refusesFlips(t *testing.T, c Choice, msg []byte, encr, integ *Key) {
	t.Helper()
	before := parsed(t, msg)
	for i := range 8 * len(msg) {
		bad := bytes.Clone(msg)
		bad[i/8] ^= 1 << (i % 8)
		kept := bytes.Clone(bad)
		if ps, err := c.Open(bad, before, encr, integ); !errors.Is(err, ErrAuthentication) || ps != nil {
			t.Fatalf("bit %d flipped: %v, %v", i, ps, err)
		}
		if m, err := wire.Parse(bad); err == nil {
			if ps, err := c.Open(bad, m, encr, integ); err == nil || ps != nil {
				t.Fatalf("bit %d flipped and parsed: %v, %v", i, ps, err)
			}
		}
		if !bytes.Equal(bad, kept) {
			t.Fatalf("bit %d flipped: Open wrote to its input", i)
		}
	}
	for n := range msg {
		if ps, err := c.Open(msg[:n:n], before, encr, integ); !errors.Is(err, ErrAuthentication) || ps != nil {
			t.Fatalf("cut to %d bytes: %v, %v", n, ps, err)
		}
	}
}

func TestOpenRefusesFlips(t *testing.T) {
	for _, name := range ikeSuites {
		c := choice(t, name)
		k := keys(c)
		refusesFlips(t, c, c.Seal(nil, header, notify(5), &k.Ei, &k.Ai, 9), &k.Ei, &k.Ai)
	}
}

// TestOpenShort gives SK bodies of each length up to 80, the 8 bytes that made
// others panic among them, and what no parser would give.
func TestOpenShort(t *testing.T) {
	for _, name := range ikeSuites {
		c := choice(t, name)
		k := keys(c)
		for n := range 80 {
			m := &wire.Message{Header: header, Payloads: []wire.Payload{&wire.Encrypted{Body: make([]byte, n)}}}
			msg := m.Append(nil)
			if _, err := c.Open(msg, parsed(t, msg), &k.Ei, &k.Ai); !errors.Is(err, ErrAuthentication) {
				t.Errorf("%s: SK of %d bytes: %v", name, n, err)
			}
		}
		msg := c.Seal(nil, header, nil, &k.Ei, &k.Ai, 9)
		for _, offset := range []int{math.MinInt, -4, -1, 0, 27, 29, len(msg) - 4, len(msg) - 3, len(msg), math.MaxInt} {
			m := &wire.Message{Payloads: []wire.Payload{&wire.Encrypted{Offset: offset}}}
			if _, err := c.Open(msg, m, &k.Ei, &k.Ai); !errors.Is(err, ErrAuthentication) {
				t.Errorf("%s: SK at %d: %v", name, offset, err)
			}
		}
		if _, err := c.Open(msg, &wire.Message{}, &k.Ei, &k.Ai); !errors.Is(err, ErrAuthentication) {
			t.Errorf("%s: no SK: %v", name, err)
		}
		for _, bad := range []*Key{{}, newKey(make([]byte, 5)), newKey(make([]byte, 68)), {n: 255}} {
			if _, err := c.Open(msg, parsed(t, msg), bad, bad); !errors.Is(err, ErrAuthentication) {
				t.Errorf("%s: a key of %d bytes: %v", name, bad.n, err)
			}
		}
	}
	if _, err := (Choice{}).Open(nil, &wire.Message{}, &Key{}, &Key{}); !errors.Is(err, ErrAuthentication) {
		t.Errorf("no algorithms: %v", err)
	}
}

// sealRaw seals bytes that Seal would never write: any padding, any chain.
func sealRaw(t *testing.T, c Choice, first wire.PayloadType, text []byte, k IKEKeys) []byte {
	t.Helper()
	keyed, err := c.keyed(&k.Ei, &k.Ai)
	if err != nil {
		t.Fatal(err)
	}
	body := append(make([]byte, keyed.encr.iv), text...)
	m := &wire.Message{Header: header, Payloads: []wire.Payload{
		&wire.Encrypted{Next: first, Body: append(body, make([]byte, keyed.icv)...)},
	}}
	msg := m.Append(nil)
	keyed.seal(msg, 32, 5, msg[:32], nil)
	return msg
}

// TestOpenPadding holds the ICV to be right: what a peer with the keys may do,
// and what it may not. RFC 7296 §3.14
func TestOpenPadding(t *testing.T) {
	inner := chain(notify(8)) // 16 bytes
	pad := func(n int, fill byte, length byte) []byte {
		return append(append(bytes.Clone(inner), bytes.Repeat([]byte{fill}, n)...), length)
	}
	for _, v := range []struct {
		name  string
		first wire.PayloadType
		text  []byte
		ok    bool
	}{
		{"the least", wire.TypeNotify, pad(15, 0, 15), true},
		{"any content", wire.TypeNotify, pad(15, 0xa5, 15), true},
		{"the most", wire.TypeNotify, pad(255, 1, 255), true},
		{"one more than there is", wire.NoNext, append(make([]byte, 15), 16), false},
		{"all of it", wire.NoNext, append(make([]byte, 15), 15), true},
		{"255 of 15", wire.TypeNotify, append(make([]byte, 15), 255), false},
		{"into a payload", wire.TypeNotify, pad(15, 0, 17), false},
		{"too little", wire.TypeNotify, pad(15, 0, 3), false},
		{"a chain that ends early", wire.NoNext, pad(15, 0, 15), false},
		{"a chain that does not end", wire.TypeNotify, append(append(append([]byte{41}, inner[1:]...), make([]byte, 15)...), 15), false},
		{"SK inside SK", wire.TypeSK, pad(15, 0, 15), false},
	} {
		for _, name := range ikeSuites {
			c := choice(t, name)
			k := keys(c)
			msg := sealRaw(t, c, v.first, v.text, k)
			ps, err := c.Open(msg, parsed(t, msg), &k.Ei, &k.Ai)
			var syntax *wire.SyntaxError
			if v.ok != (err == nil) || !v.ok && (!errors.As(err, &syntax) || ps != nil) {
				t.Errorf("%s, %s: %v, %v", name, v.name, ps, err)
			}
		}
	}
}

// TestOpenOddCBC: a peer that sends half a block under a right ICV is refused.
func TestOpenOddCBC(t *testing.T) {
	c := choice(t, "aes128-sha256-x25519")
	k := keys(c)
	keyed, _ := c.keyed(&k.Ei, &k.Ai)
	for n := range 33 {
		m := &wire.Message{Header: header, Payloads: []wire.Payload{&wire.Encrypted{Body: make([]byte, 16+n+16)}}}
		msg := m.Append(nil)
		copy(msg[len(msg)-16:], keyed.tag(msg[:len(msg)-16], nil))
		_, err := c.Open(msg, parsed(t, msg), &k.Ei, &k.Ai)
		if n%16 != 0 && !errors.Is(err, ErrAuthentication) || n == 0 && err == nil {
			t.Errorf("%d bytes of ciphertext: %v", n, err)
		}
	}
}

// capture is one SK message of the captures, with its keys and its content.
type capture struct {
	File         string
	Frame        int
	Encr, Keylen uint16
	Integ        *uint16
	Plaintext    string
	InnerFirst   byte   `json:"inner_first"`
	SKe          string `json:"SK_e"`
	SKa          string `json:"SK_a"`
	SHA256       string `json:"message_sha256"`
	Payloads     []string
}

// TestCaptures opens every SK message that others sealed and we have the keys
// of; each flipped bit is refused.
func TestCaptures(t *testing.T) {
	var captures []capture
	load(t, "decrypt_expected.json", &captures)
	raw := messages(t)
	for _, v := range captures {
		c := Choice{Encr: v.Encr, KeyBits: v.Keylen}
		if v.Integ != nil {
			c.Integ = *v.Integ
		}
		encr, integ := newKey(unhex(t, v.SKe)), newKey(unhex(t, v.SKa))
		msg := raw[v.SHA256]
		ps, err := c.Open(msg, parsed(t, msg), encr, integ)
		if err != nil || !bytes.Equal(chain(ps), unhex(t, v.Plaintext)) || len(ps) != len(v.Payloads) {
			t.Errorf("%s frame %d: %x, %v", v.File, v.Frame, chain(ps), err)
			continue
		}
		refusesFlips(t, c, msg, encr, integ)
	}
	ran(t, len(captures), 6)
}

// messages are the IKE messages of all captures by their SHA-256.
func messages(t *testing.T) map[string][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(require.Cases(t), "ike_messages.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for line := range bytes.Lines(b) {
		var m struct{ Raw string }
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		msg := unhex(t, m.Raw)
		sum := sha256.Sum256(msg)
		all[hex.EncodeToString(sum[:])] = msg
	}
	return all
}

// FuzzOpen opens arbitrary messages, also under a parsed form that is not
// theirs. Nothing but what Seal made may open, and it is never written to.
func FuzzOpen(f *testing.F) {
	for i, name := range ikeSuites {
		c := choice(f, name)
		k := keys(c)
		msg := c.Seal(nil, header, notify(i), &k.Ei, &k.Ai, 9)
		f.Add(msg, uint8(i), 28)
		f.Add(msg[:40], uint8(i), 36)
	}
	f.Fuzz(func(t *testing.T, msg []byte, which uint8, offset int) {
		c := choice(t, ikeSuites[int(which)%len(ikeSuites)])
		k := keys(c)
		kept := bytes.Clone(msg)
		m := &wire.Message{Payloads: []wire.Payload{&wire.Encrypted{Offset: offset}}}
		check := func(ps []wire.Payload, err error) {
			if !bytes.Equal(msg, kept) {
				t.Fatal("Open wrote to its input")
			}
			if err != nil {
				if ps != nil {
					t.Fatal("payloads beside an error")
				}
				return
			}
			again := c.Seal(nil, header, ps, &k.Ei, &k.Ai, 9)
			if !bytes.Equal(again, msg) {
				t.Fatalf("%x was opened, and nobody sealed it", msg)
			}
		}
		check(c.Open(msg, m, &k.Ei, &k.Ai))
		if m, err := wire.Parse(msg); err == nil {
			check(c.Open(msg, m, &k.Ei, &k.Ai))
		}
	})
}
