package suite

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// TestPSKAuth writes RFC 7296 §2.15 out once more, with nothing of ours.
func TestPSKAuth(t *testing.T) {
	mac := func(key []byte, data ...[]byte) []byte {
		m := hmac.New(sha512.New384, key)
		m.Write(bytes.Join(data, nil))
		return m.Sum(nil)
	}
	c := choice(t, "aes256gcm16-prfsha384-x25519")
	psk, message, nonce, skp := []byte("a secret"), []byte("first message"), []byte("the other nonce"), []byte("SK_p")
	id := &wire.ID{T: wire.TypeIDi, Kind: wire.IDFQDN, Data: []byte("gw.example")}
	want := mac(mac(psk, []byte("Key Pad for IKEv2")), message, nonce, mac(skp, []byte("\x02\x00\x00\x00gw.example")))
	if got := c.PSKAuth(psk, message, nonce, newKey(skp), id); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	id.T = wire.TypeIDr // the payload's type is not part of it
	if got := c.PSKAuth(psk, message, nonce, newKey(skp), id); !bytes.Equal(got, want) {
		t.Errorf("IDr: got %x, want %x", got, want)
	}
}

func TestKeyLengths(t *testing.T) {
	for name, want := range map[string][3]int{ // prf, integrity, encryption
		"aes128gcm16-prfsha256-x25519":      {32, 0, 20},
		"aes192gcm16-prfsha384-ecp256":      {48, 0, 28},
		"aes256gcm16-prfsha512-ecp384":      {64, 0, 36},
		"chacha20poly1305-prfsha256-ecp521": {32, 0, 36},
		"aes128-sha256-x25519":              {32, 32, 16},
		"aes192-sha384-x25519":              {48, 48, 24},
		"aes256-sha512-prfsha256-x25519":    {32, 64, 32},
	} {
		k := keys(choice(t, name))
		lens := []int{len(k.D.Bytes()), len(k.Ai.Bytes()), len(k.Ei.Bytes()), len(k.Ar.Bytes()), len(k.Er.Bytes()), len(k.Pi.Bytes()), len(k.Pr.Bytes())}
		if fmt.Sprint(lens) != fmt.Sprint([]int{want[0], want[1], want[2], want[1], want[2], want[0], want[0]}) {
			t.Errorf("%s: lengths %v", name, lens)
		}
		all := map[Key]bool{k.D: true, k.Ei: true, k.Er: true, k.Pi: true, k.Pr: true, k.Ai: true, k.Ar: true}
		if n := 5 + 2*min(want[1], 1); len(all) != max(n, 6) {
			t.Errorf("%s: %d different keys", name, len(all))
		}
	}
}

// TestRedaction prints keys in every way that a log could.
func TestRedaction(t *testing.T) {
	key := newKey(bytes.Repeat([]byte{0xab}, 32))
	private := withPrivate(t, wire.KEX25519, bytes.Repeat([]byte{0xab}, 32))
	modp := withPrivate(t, wire.KEMODP2048, bytes.Repeat([]byte{0xab}, 48))
	keys := IKEKeys{D: *key, Pr: *key}
	for _, v := range []any{key, *key, keys, &keys, ChildKeys{EncrI: key}, []Key{*key}, private, modp, []*Private{private}, struct{ P *Private }{private}} {
		var b strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%08b"} {
			fmt.Fprintf(&b, verb, v)
		}
		if s, ok := v.(fmt.Stringer); ok {
			b.WriteString(s.String() + v.(fmt.GoStringer).GoString())
		}
		j, err := json.Marshal(v)
		if err != nil {
			t.Errorf("%T: %v", v, err)
		}
		b.Write(j)
		slog.New(slog.NewTextHandler(&b, nil)).Info("", "k", v)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("", "k", v)
		out := strings.ToLower(b.String())
		for _, leak := range []string{"abab", "171 171", "171,171", "0xab", "10101011", "253 253", "q6ur"} {
			if strings.Contains(out, leak) {
				t.Errorf("%T leaks %q: %s", v, leak, b.String())
			}
		}
		if !strings.Contains(out, redacted) {
			t.Errorf("%T: no %s in %s", v, redacted, out)
		}
	}
}

func TestKey(t *testing.T) {
	b := bytes.Repeat([]byte{7}, 68)
	k := newKey(b)
	b[0] = 8
	if got := k.Bytes(); len(got) != 68 || got[0] != 7 {
		t.Errorf("key %x", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("a key of 69 bytes was taken")
		}
	}()
	newKey(make([]byte, 69))
}
