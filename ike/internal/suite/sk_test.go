package suite

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
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

func keys(c Choice) IKEKeys {
	return c.DeriveIKE([]byte("secret"), bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), 3, 4)
}

var header = wire.Header{SPIi: 3, SPIr: 4, Exchange: wire.Informational, Flags: wire.FlagInitiator, MessageID: 7}

func sealed(t testing.TB, c Choice, ps []wire.Payload) ([]byte, *wire.Message) {
	t.Helper()
	k := keys(c)
	msg := c.Seal(nil, header, ps, k.Ei, k.Ai, 42)
	m, err := wire.Parse(msg)
	if err != nil {
		t.Fatalf("own message does not parse: %v", err)
	}
	return msg, m
}

func TestSealOpen(t *testing.T) {
	for _, name := range ikeSuites {
		t.Run(name, func(t *testing.T) {
			c := choice(t, name)
			k := keys(c)
			for n := range 40 {
				want := []wire.Payload{&wire.Notify{Kind: wire.InitialContact, Data: bytes.Repeat([]byte{9}, n)}}
				msg, m := sealed(t, c, want)
				got, err := c.Open(msg, m, k.Ei, k.Ai)
				if err != nil {
					t.Fatalf("data of %d bytes: %v", n, err)
				}
				a, _ := wire.AppendPayloads(nil, want)
				b, _ := wire.AppendPayloads(nil, got)
				if !bytes.Equal(a, b) {
					t.Fatalf("opened %x, sealed %x", b, a)
				}
				if _, err := c.Open(msg, m, k.Er, k.Ar); !errors.Is(err, ErrAuthentication) {
					t.Fatalf("the other direction's keys: %v", err)
				}
			}
		})
	}
}
