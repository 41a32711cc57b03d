package suite

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha512"
	"errors"
	"fmt"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// TestESPVectors opens packets of RFC 7634 appendix A and, with extended
// sequence numbers, of draft-mcgrew-gcm-test-01 page 10.
func TestESPVectors(t *testing.T) {
	for _, v := range []struct {
		name                string
		c                   Choice
		seq                 uint64
		key, packet, inside string
	}{
		{"RFC 7634", Choice{Encr: wire.EncrChaCha20Poly1305}, 5,
			`808182838485868788898a8b8c8d8e8f 909192939495969798999a9b9c9d9e9f a0a1a2a3`,
			`01020304 00000005 1011121314151617
			240394 28b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9
			befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0 76aaa8266b7fb0f7b11b369907e1ad43`,
			`45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f101112131415161718191a1b
			1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637 01020204`},
		{"ESN", Choice{Encr: wire.EncrAESGCM16, KeyBits: 128, ESN: wire.ESNYes}, 0x1010101010101010,
			`3de09874b388e6491988d0c3607eae1f 57690e43`,
			`42f67e3f 10101010 4e280000a2fca1a3
			fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c35791765acbd8701ad79845bf9fe3fba487bc91755e6662b4c8d0d
			1f5e22739530320a e0d731cc978ecafaeae88f00e80d6e48`,
			`4500003c99c300008001cb7c40679318010101010800085c02004300616263646566676869 6a6b6c6d6e6f7071727374757677616263646566
			676869 01020201`},
	} {
		e := v.c.NewESP(newKey(unhex(t, v.key)), &Key{})
		packet, want := unhex(t, v.packet), unhex(t, v.inside)
		got, err := e.Open(nil, packet, v.seq)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: opened %x, %v", v.name, got, err)
		}
		_, err = e.Open(nil, packet, v.seq+1<<32)
		if refused := errors.Is(err, ErrAuthentication); refused != (v.c.ESN == wire.ESNYes) {
			t.Errorf("%s: another upper half: %v", v.name, err)
		}
	}
}

// TestESPHMAC computes the ICV by hand: over the packet, and with ESN over the
// upper half of the number after it (RFC 4303 §2.2.1).
func TestESPHMAC(t *testing.T) {
	for _, esn := range []uint16{wire.ESNNo, wire.ESNYes} {
		c := Choice{Encr: wire.EncrAESCBC, KeyBits: 256, Integ: wire.IntegSHA512256, ESN: esn}
		integ := bytes.Repeat([]byte{7}, 64)
		e := c.NewESP(newKey(make([]byte, 32)), newKey(integ))
		packet := make([]byte, 8+16+32+32)
		packet[7] = 9
		e.Seal(packet, 5<<32+9)
		m := hmac.New(sha512.New, integ)
		m.Write(packet[:len(packet)-32])
		if esn == wire.ESNYes {
			m.Write([]byte{0, 0, 0, 5})
		}
		if want := m.Sum(nil)[:32]; !bytes.Equal(packet[len(packet)-32:], want) {
			t.Errorf("ESN %d: ICV %x, want %x", esn, packet[len(packet)-32:], want)
		}
		for n := range packet {
			if _, err := e.Open(nil, packet[:n:n], 5<<32+9); !errors.Is(err, ErrAuthentication) {
				t.Errorf("cut to %d: %v", n, err)
			}
		}
	}
}

// TestESPIV wants a packet's IV to be its whole number for an AEAD, and to
// tell nothing of it for CBC.
func TestESPIV(t *testing.T) {
	for _, c := range []Choice{{Encr: wire.EncrAESGCM16, KeyBits: 128, ESN: 1}, {Encr: wire.EncrAESCBC, KeyBits: 128, Integ: wire.IntegSHA256128}} {
		encr, integ := c.keyLens()
		e := c.NewESP(newKey(make([]byte, encr)), newKey(make([]byte, integ)))
		a, b := make([]byte, 88), make([]byte, 88)
		e.Seal(a, 5<<32+9)
		e.Seal(b, 6<<32+9)
		iv := a[8 : 8+e.IVLen()]
		if bytes.Equal(iv, b[8:8+e.IVLen()]) || (e.IVLen() == 8) != bytes.Equal(iv, []byte{0, 0, 0, 5, 0, 0, 0, 9}) || bytes.Count(iv, []byte{0}) > 8 {
			t.Errorf("%s: IVs %x and %x", c, iv, b[8:8+e.IVLen()])
		}
	}
}

// TestKeysMustFit: sealing with keys of another choice is a fault of ours.
func TestKeysMustFit(t *testing.T) {
	gcm, cbc := Choice{Encr: wire.EncrAESGCM16, KeyBits: 128}, Choice{Encr: wire.EncrAESCBC, KeyBits: 128, Integ: wire.IntegSHA256128}
	for name, f := range map[string]func(){
		"no salt":          func() { gcm.NewESP(newKey(make([]byte, 16)), &Key{}) },
		"no integrity key": func() { cbc.NewESP(newKey(make([]byte, 16)), &Key{}) },
		"no algorithm":     func() { Choice{}.NewESP(&Key{}, &Key{}) },
		"no integrity":     func() { Choice{Encr: wire.EncrAESCBC, KeyBits: 128}.NewESP(newKey(make([]byte, 16)), &Key{}) },
		"SK":               func() { gcm.Seal(nil, header, nil, newKey(make([]byte, 21)), &Key{}, 1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: keyed", name)
				}
			}()
			f()
		}()
	}
}

// TestESPHidesItsKeys: neither before the first packet nor after it.
func TestESPHidesItsKeys(t *testing.T) {
	c := Choice{Encr: wire.EncrAESGCM16, KeyBits: 128}
	key := newKey(bytes.Repeat([]byte{0x5a}, 20))
	e := c.NewESP(key, &Key{})
	for range 2 {
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
			if text := fmt.Sprintf(verb, e); text != redacted {
				t.Errorf("%s prints %s", verb, text)
			}
		}
		e.Seal(make([]byte, espHead+e.IVLen()+e.ICVLen()), 1)
		if len(e.encr.Bytes()) != 0 {
			t.Error("the key is still there beside the cipher")
		}
	}
}
