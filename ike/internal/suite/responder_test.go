package suite

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// BenchmarkResponder is the cryptography that a responder must do for one
// handshake with a pre-shared key and a cookie, and nothing else: what the CPU
// of a gateway in a surge is to be compared with (make bench-surge). It reports
// CPU time, the collector's included, since that is what is known of a gateway.
func BenchmarkResponder(b *testing.B) {
	h := newHandshake(b)
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		h.respond(b)
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// handshake is what has come from an initiator, and what is sent to him.
type handshake struct {
	ike, esp      Choice
	psk           []byte
	idi, idr      *wire.ID
	init          []byte // his first message, and as long a first answer
	who           []byte // what a cookie is made of
	ni, nr        []byte
	public        []byte // of his key pair
	auth          []byte // his IKE_AUTH
	message       *wire.Message
	answer        []wire.Payload
	scalar        [32]byte
	cookie, proof []byte
	out           []byte
}

func newHandshake(b *testing.B) *handshake {
	h := &handshake{
		ike: choice(b, "aes128gcm16-prfsha256-x25519"), psk: []byte("a secret of thirty-two characters"),
		esp:  Choice{Encr: wire.EncrAESGCM16, KeyBits: 128},
		idi:  &wire.ID{T: wire.TypeIDi, Kind: wire.IDRFC822, Data: []byte("loadtest-12345@example.org")},
		idr:  &wire.ID{T: wire.TypeIDr, Kind: wire.IDFQDN, Data: []byte("gw.example")},
		init: bytes.Repeat([]byte{1}, 240), who: bytes.Repeat([]byte{2}, 8+16+2+32),
		ni: bytes.Repeat([]byte{3}, 32), nr: bytes.Repeat([]byte{4}, 32),
	}
	initiator, err := Generate(wire.KEX25519, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	rand.Read(h.scalar[:])
	responder, err := Generate(wire.KEX25519, bytes.NewReader(h.scalar[:]))
	if err != nil {
		b.Fatal(err)
	}
	secret, err := initiator.Agree(responder.Public())
	if err != nil {
		b.Fatal(err)
	}
	h.public = initiator.Public()
	var k IKEKeys
	h.ike.DeriveIKE(&k, secret, h.ni, h.nr, 3, 4)
	h.proof = h.ike.PSKAuth(h.psk, h.init, h.nr, &k.Pi, h.idi)
	h.answer = authPayloads(h.idr, h.proof, wire.CFGReply)
	h.auth = h.ike.Seal(nil, wire.Header{SPIi: 3, SPIr: 4, Exchange: wire.IKEAuth, Flags: wire.FlagInitiator, MessageID: 1},
		authPayloads(h.idi, h.proof, wire.CFGRequest), &k.Ei, &k.Ai, 1)
	h.message = parsed(b, h.auth)
	return h
}

// authPayloads are those of either side's IKE_AUTH.
func authPayloads(id *wire.ID, proof []byte, cp wire.CPType) []wire.Payload {
	all := netip.MustParseAddr("255.255.255.255")
	selectors := []wire.Selector{{EndPort: 65535, Start: netip.IPv4Unspecified(), End: all}}
	return []wire.Payload{id, &wire.Auth{Method: wire.AuthSharedKey, Data: proof},
		&wire.CP{Kind: cp, Attrs: []wire.CPAttr{{Type: wire.CPInternalIP4Address, Value: []byte{10, 64, 0, 1}}}},
		&wire.SA{Proposals: []wire.Proposal{{Number: 1, Protocol: wire.ProtoESP, SPI: []byte{0, 0, 1, 1},
			Transforms: []wire.Transform{{Type: wire.TransformEncr, ID: wire.EncrAESGCM16, KeyBits: 128}, {Type: wire.TransformESN}}}}},
		&wire.TS{T: wire.TypeTSi, Selectors: selectors}, &wire.TS{T: wire.TypeTSr, Selectors: selectors}}
}

// respond is the responder's part. The random numbers are drawn, and then set
// to those that the initiator's message was sealed for.
func (h *handshake) respond(b *testing.B) {
	h.cookie = h.mac(h.cookie[:0]) // made
	if made := h.mac(nil); !hmac.Equal(made, h.cookie) {
		b.Fatal("the cookie is another one")
	}
	p, err := Generate(wire.KEX25519, fixed{h.scalar[:]})
	if err != nil {
		b.Fatal(err)
	}
	var nonce [32]byte
	rand.Read(nonce[:])
	secret, err := p.Agree(h.public)
	if err != nil {
		b.Fatal(err)
	}
	var k IKEKeys
	h.ike.DeriveIKE(&k, secret, h.ni, h.nr, 3, 4)
	if _, err := h.ike.Open(h.auth, h.message, &k.Ei, &k.Ai); err != nil {
		b.Fatal(err)
	}
	if subtle.ConstantTimeCompare(h.proof, h.ike.PSKAuth(h.psk, h.init, h.nr, &k.Pi, h.idi)) != 1 {
		b.Fatal("the proof is another one")
	}
	h.ike.PSKAuth(h.psk, h.init, h.ni, &k.Pr, h.idr)
	deriveChild(h.ike, h.esp, &k.D, h.ni, h.nr)
	h.out = h.ike.Seal(h.out[:0], wire.Header{SPIi: 3, SPIr: 4, Exchange: wire.IKEAuth, Flags: wire.FlagResponse, MessageID: 1},
		h.answer, &k.Er, &k.Ar, 1)
}

// mac is what a cookie is, at least.
func (h *handshake) mac(dst []byte) []byte {
	m := hmac.New(sha256.New, h.scalar[:])
	m.Write(h.who)
	return m.Sum(dst)
}

// fixed draws as many random bytes as are wanted, and gives its own.
type fixed struct{ bytes []byte }

func (f fixed) Read(p []byte) (int, error) {
	rand.Read(p)
	return copy(p, f.bytes), nil
}

// cpuTime is what this process has used so far, on all its threads.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
