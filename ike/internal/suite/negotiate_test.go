package suite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

var (
	gcm256t = wire.Transform{Type: wire.TransformEncr, ID: wire.EncrAESGCM16, KeyBits: 256}
	gcm128t = wire.Transform{Type: wire.TransformEncr, ID: wire.EncrAESGCM16, KeyBits: 128}
	cbc256t = wire.Transform{Type: wire.TransformEncr, ID: wire.EncrAESCBC, KeyBits: 256}
	chachat = wire.Transform{Type: wire.TransformEncr, ID: wire.EncrChaCha20Poly1305}
	prf256t = wire.Transform{Type: wire.TransformPRF, ID: wire.PRFHMACSHA256}
	prf384t = wire.Transform{Type: wire.TransformPRF, ID: wire.PRFHMACSHA384}
	sha256t = wire.Transform{Type: wire.TransformInteg, ID: wire.IntegSHA256128}
	nointeg = wire.Transform{Type: wire.TransformInteg, ID: wire.IntegNone}
	x25519t = wire.Transform{Type: wire.TransformKE, ID: wire.KEX25519}
	ecp256t = wire.Transform{Type: wire.TransformKE, ID: wire.KEECP256}
	noke    = wire.Transform{Type: wire.TransformKE, ID: wire.KENone}
	esnt    = wire.Transform{Type: wire.TransformESN, ID: wire.ESNYes}
	noesnt  = wire.Transform{Type: wire.TransformESN, ID: wire.ESNNo}
)

func odd(t wire.Transform) wire.Transform { t.Unknown = true; return t }

func bits(t wire.Transform, n uint16) wire.Transform { t.KeyBits = n; return t }

func ike(number uint8, ts ...wire.Transform) wire.Proposal {
	return wire.Proposal{Number: number, Protocol: wire.ProtoIKE, Transforms: ts}
}

func esp(number uint8, ts ...wire.Transform) wire.Proposal {
	return wire.Proposal{Number: number, Protocol: wire.ProtoESP, SPI: []byte{0xc0, 0, 0, number}, Transforms: ts}
}

func own(t testing.TB, parse func(string) (Proposal, error), words ...string) (ps []Proposal) {
	t.Helper()
	for _, w := range words {
		p, err := parse(w)
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	return ps
}

func TestChooseIKE(t *testing.T) {
	const both = "aes256gcm16-chacha20poly1305-prfsha384-prfsha256-x25519-ecp256"
	for _, v := range []struct {
		name    string
		own     []string
		offered []wire.Proposal
		guess   uint16
		want    string
		number  uint8
	}{
		{"the only one", []string{both}, []wire.Proposal{ike(1, gcm256t, prf256t, x25519t)}, 31, "aes256gcm16-prfsha256-x25519", 1},
		{"our order within a type", []string{both},
			[]wire.Proposal{ike(1, chachat, gcm256t, prf256t, prf384t, ecp256t, x25519t)}, 0, "aes256gcm16-prfsha384-x25519", 1},
		{"the guess before our order", []string{both},
			[]wire.Proposal{ike(1, gcm256t, prf256t, ecp256t, x25519t)}, 19, "aes256gcm16-prfsha256-ecp256", 1},
		{"a guess that was not offered", []string{both},
			[]wire.Proposal{ike(1, gcm256t, prf256t, x25519t)}, 19, "aes256gcm16-prfsha256-x25519", 1},
		{"a guess that is not ours", []string{both},
			[]wire.Proposal{ike(1, gcm256t, prf256t, x25519t, wire.Transform{Type: 4, ID: 14})}, 14, "aes256gcm16-prfsha256-x25519", 1},
		{"a guess with an unknown attribute", []string{both},
			[]wire.Proposal{ike(1, gcm256t, prf256t, x25519t, odd(ecp256t))}, 19, "aes256gcm16-prfsha256-x25519", 1},
		{"our proposals in our order", []string{"chacha20poly1305-prfsha256-x25519", both},
			[]wire.Proposal{ike(1, gcm256t, prf256t, x25519t), ike(2, chachat, prf256t, x25519t)}, 31, "chacha20poly1305-prfsha256-x25519", 2},
		{"the second of theirs", []string{both},
			[]wire.Proposal{ike(1, cbc256t, prf256t, sha256t, x25519t), ike(2, gcm256t, prf256t, x25519t)}, 31, "aes256gcm16-prfsha256-x25519", 2},
		{"integrity NONE beside an AEAD", []string{both},
			[]wire.Proposal{ike(1, gcm256t, nointeg, prf256t, x25519t)}, 31, "aes256gcm16-prfsha256-x25519", 1},
		{"integrity NONE among others", []string{both},
			[]wire.Proposal{ike(1, gcm256t, sha256t, nointeg, prf256t, x25519t)}, 31, "aes256gcm16-prfsha256-x25519", 1},
		{"a transform twice", []string{both},
			[]wire.Proposal{ike(1, gcm256t, gcm256t, prf256t, prf256t, x25519t, x25519t)}, 31, "aes256gcm16-prfsha256-x25519", 1},
		{"an unknown attribute on another", []string{both},
			[]wire.Proposal{ike(1, odd(gcm256t), chachat, prf256t, x25519t)}, 31, "chacha20poly1305-prfsha256-x25519", 1},
		{"past an unknown type", []string{both},
			[]wire.Proposal{ike(1, gcm256t, prf256t, x25519t, wire.Transform{Type: 6, ID: 36}), ike(2, gcm256t, prf256t, x25519t)}, 31, "aes256gcm16-prfsha256-x25519", 2},
		{"integrity of ours", []string{"aes256-sha256-x25519"},
			[]wire.Proposal{ike(1, cbc256t, sha256t, prf256t, x25519t)}, 31, "aes256-sha256-x25519", 1},
		{"both kinds of cipher mixed", []string{both, "aes256-sha256-x25519"},
			[]wire.Proposal{ike(1, gcm256t, cbc256t, sha256t, prf256t, x25519t)}, 31, "aes256-sha256-x25519", 1},
		{"numbers that do not count up", []string{both}, []wire.Proposal{ike(200, gcm256t, prf256t, x25519t)}, 31, "aes256gcm16-prfsha256-x25519", 200},
	} {
		got, err := Choose(own(t, ParseIKE, v.own...), v.offered, wire.ProtoIKE, v.guess)
		if err != nil || got.String() != v.want || got.Number != v.number {
			t.Errorf("%s: got %s number %d, %v; want %s number %d", v.name, got, got.Number, err, v.want, v.number)
		}
	}
}

func TestChooseESP(t *testing.T) {
	for _, v := range []struct {
		name    string
		own     string
		offered []wire.Proposal
		want    string
	}{
		{"plain", "aes256gcm16", []wire.Proposal{esp(1, gcm256t, noesnt)}, "aes256gcm16"},
		{"our order of ESN", "aes256gcm16-esn-noesn", []wire.Proposal{esp(1, gcm256t, noesnt, esnt)}, "aes256gcm16-esn"},
		{"the ESN that both have", "aes256gcm16-esn-noesn", []wire.Proposal{esp(1, gcm256t, noesnt)}, "aes256gcm16"},
		{"KE NONE", "aes256gcm16", []wire.Proposal{esp(1, gcm256t, noesnt, noke)}, "aes256gcm16"},
		{"KE NONE among groups", "aes256gcm16-x25519", []wire.Proposal{esp(1, gcm256t, noesnt, x25519t, noke)}, "aes256gcm16"},
		{"our KE is for rekeying", "aes256gcm16-x25519", []wire.Proposal{esp(1, gcm256t, noesnt)}, "aes256gcm16"},
		{"AH before ESP", "aes256gcm16", []wire.Proposal{
			{Number: 1, Protocol: wire.ProtoAH, SPI: []byte{1, 1, 1, 1}, Transforms: []wire.Transform{sha256t, noesnt}}, esp(2, gcm256t, noesnt)}, "aes256gcm16"},
		{"CBC", "aes256-sha256", []wire.Proposal{esp(1, cbc256t, sha256t, noesnt)}, "aes256-sha256"},
	} {
		ours := own(t, ParseESP, v.own)
		got, err := Choose(ours, v.offered, wire.ProtoESP, 0)
		if err != nil || got.String() != v.want || len(got.SPI) != 4 || got.KE != 0 {
			t.Errorf("%s: got %s SPI %x, %v; want %s", v.name, got, got.SPI, err, v.want)
			continue
		}
		back, err := Accept(ours, []wire.Proposal{got.Wire(1, wire.ProtoESP, got.SPI)}, wire.ProtoESP)
		if err != nil || back.Choice != got.Choice {
			t.Errorf("%s: the answer is not accepted: %v", v.name, err)
		}
	}
}

// refused is every proposal that must not be chosen, as an offer or as an
// answer, though each is one step from a good one.
func refused() []struct {
	name  string
	proto wire.ProtocolID
	p     wire.Proposal
} {
	with := func(p wire.Proposal, f func(*wire.Proposal)) wire.Proposal { f(&p); return p }
	spi := func(b ...byte) func(*wire.Proposal) { return func(p *wire.Proposal) { p.SPI = b } }
	proto := func(id wire.ProtocolID) func(*wire.Proposal) { return func(p *wire.Proposal) { p.Protocol = id } }
	goodIKE, goodESP := ike(1, gcm256t, prf256t, x25519t), esp(1, gcm256t, noesnt)
	type row = struct {
		name  string
		proto wire.ProtocolID
		p     wire.Proposal
	}
	rows := []row{
		{"no transforms", wire.ProtoIKE, ike(1)},
		{"no encryption", wire.ProtoIKE, ike(1, prf256t, x25519t)},
		{"no PRF", wire.ProtoIKE, ike(1, gcm256t, x25519t)},
		{"no KE", wire.ProtoIKE, ike(1, gcm256t, prf256t)},
		{"KE NONE", wire.ProtoIKE, ike(1, gcm256t, prf256t, noke)},
		{"another cipher", wire.ProtoIKE, ike(1, cbc256t, prf256t, x25519t)},
		{"another PRF", wire.ProtoIKE, ike(1, gcm256t, wire.Transform{Type: 2, ID: 2}, x25519t)},
		{"another group", wire.ProtoIKE, ike(1, gcm256t, prf256t, wire.Transform{Type: 4, ID: 2})},
		{"integrity beside an AEAD", wire.ProtoIKE, ike(1, gcm256t, sha256t, prf256t, x25519t)},
		{"an odd integrity NONE", wire.ProtoIKE, ike(1, gcm256t, odd(nointeg), prf256t, x25519t)},
		{"CBC with integrity NONE", wire.ProtoIKE, ike(1, bits(cbc256t, 128), nointeg, prf256t, x25519t)},
		{"CBC without integrity", wire.ProtoIKE, ike(1, bits(cbc256t, 128), prf256t, x25519t)},
		{"CBC with another integrity", wire.ProtoIKE, ike(1, bits(cbc256t, 128), wire.Transform{Type: 3, ID: 2}, prf256t, x25519t)},
		{"another key length", wire.ProtoIKE, ike(1, bits(gcm256t, 192), prf256t, x25519t)},
		{"no key length", wire.ProtoIKE, ike(1, bits(gcm256t, 0), prf256t, x25519t)},
		{"key length 1", wire.ProtoIKE, ike(1, bits(gcm256t, 1), prf256t, x25519t)},
		{"key length 127", wire.ProtoIKE, ike(1, bits(gcm256t, 127), prf256t, x25519t)},
		{"key length 512", wire.ProtoIKE, ike(1, bits(gcm256t, 512), prf256t, x25519t)},
		{"key length in bytes", wire.ProtoIKE, ike(1, bits(gcm256t, 32), prf256t, x25519t)},
		{"a key length on ChaCha20", wire.ProtoIKE, ike(1, bits(chachat, 256), prf256t, x25519t)},
		{"a key length on the PRF", wire.ProtoIKE, ike(1, gcm256t, bits(prf256t, 256), x25519t)},
		{"a key length on the group", wire.ProtoIKE, ike(1, gcm256t, prf256t, bits(x25519t, 256))},
		{"an odd cipher", wire.ProtoIKE, ike(1, odd(gcm256t), prf256t, x25519t)},
		{"an odd PRF", wire.ProtoIKE, ike(1, gcm256t, odd(prf256t), x25519t)},
		{"an odd group", wire.ProtoIKE, ike(1, gcm256t, prf256t, odd(x25519t))},
		{"ESN in IKE", wire.ProtoIKE, ike(1, gcm256t, prf256t, x25519t, noesnt)},
		{"type 0", wire.ProtoIKE, ike(1, gcm256t, prf256t, x25519t, wire.Transform{})},
		{"an additional key exchange", wire.ProtoIKE, ike(1, gcm256t, prf256t, x25519t, wire.Transform{Type: 6, ID: 36})},
		{"type 241", wire.ProtoIKE, ike(1, gcm256t, prf256t, x25519t, wire.Transform{Type: 241, ID: 1})},
		{"an SPI of 4", wire.ProtoIKE, with(goodIKE, spi(1, 2, 3, 4))},
		{"an SPI of 9", wire.ProtoIKE, with(goodIKE, spi(1, 2, 3, 4, 5, 6, 7, 8, 9))},
		{"no SPI", wire.ProtoESP, with(goodESP, spi())},
		{"an SPI of 3", wire.ProtoESP, with(goodESP, spi(1, 2, 3))},
		{"an SPI of 8", wire.ProtoESP, with(goodESP, spi(1, 2, 3, 4, 5, 6, 7, 8))},
		{"SPI 0", wire.ProtoESP, with(goodESP, spi(0, 0, 0, 0))},
		{"a reserved SPI", wire.ProtoESP, with(goodESP, spi(0, 0, 0, 255))},
		{"no ESN", wire.ProtoESP, esp(1, gcm256t)},
		{"the other ESN", wire.ProtoESP, esp(1, gcm256t, esnt)},
		{"an odd ESN", wire.ProtoESP, esp(1, gcm256t, odd(noesnt))},
		{"ESN 2", wire.ProtoESP, esp(1, gcm256t, wire.Transform{Type: 5, ID: 2})},
		{"PRF in ESP", wire.ProtoESP, esp(1, gcm256t, noesnt, prf256t)},
		{"a group in the first Child", wire.ProtoESP, esp(1, gcm256t, noesnt, x25519t)},
		{"an odd KE NONE", wire.ProtoESP, esp(1, gcm256t, noesnt, odd(noke))},
		{"no encryption, ESP", wire.ProtoESP, esp(1, noesnt)},
		{"NULL encryption", wire.ProtoESP, esp(1, wire.Transform{Type: 1, ID: 11}, sha256t, noesnt)},
		{"integrity alone", wire.ProtoESP, esp(1, sha256t, noesnt)},
		{"integrity beside an AEAD, ESP", wire.ProtoESP, esp(1, gcm256t, sha256t, noesnt)},
		{"CBC without integrity, ESP", wire.ProtoESP, esp(1, bits(cbc256t, 128), noesnt)},
	}
	for id := range 256 {
		name := fmt.Sprint("protocol ", id)
		if id := wire.ProtocolID(id); id != wire.ProtoIKE {
			rows = append(rows, row{name, wire.ProtoIKE, with(goodIKE, proto(id))})
		}
		if id := wire.ProtocolID(id); id != wire.ProtoESP {
			rows = append(rows, row{name, wire.ProtoESP, with(goodESP, proto(id))})
		}
	}
	return rows
}

func TestRefused(t *testing.T) {
	ikes := own(t, ParseIKE, "aes256gcm16-chacha20poly1305-prfsha256-x25519", "aes128-sha256-x25519")
	esps := own(t, ParseESP, "aes256gcm16-x25519", "aes128-sha256")
	for _, v := range refused() {
		ours := ikes
		if v.proto == wire.ProtoESP {
			ours = esps
		}
		if got, err := Choose(ours, []wire.Proposal{v.p}, v.proto, 31); !errors.Is(err, ErrNoProposal) {
			t.Errorf("%s: chosen %s, %v", v.name, got, err)
		}
		for n := range ours {
			v.p.Number = uint8(n + 1)
			if got, err := Accept(ours, []wire.Proposal{v.p}, v.proto); !errors.Is(err, ErrAnswer) {
				t.Errorf("%s: accepted %s, %v", v.name, got, err)
			}
		}
	}
	for _, offered := range [][]wire.Proposal{nil, {}} {
		if got, err := Choose(ikes, offered, wire.ProtoIKE, 31); !errors.Is(err, ErrNoProposal) {
			t.Errorf("nothing offered: %s, %v", got, err)
		}
	}
	if got, err := Choose(nil, []wire.Proposal{ike(1, gcm256t, prf256t, x25519t)}, wire.ProtoIKE, 31); !errors.Is(err, ErrNoProposal) {
		t.Errorf("nothing of our own: %s, %v", got, err)
	}
	for _, proto := range []wire.ProtocolID{wire.ProtoNone, wire.ProtoAH, 255} {
		p := esp(1, gcm256t, noesnt)
		p.Protocol = proto
		if got, err := Choose(esps, []wire.Proposal{p}, proto, 0); !errors.Is(err, ErrNoProposal) {
			t.Errorf("asked for protocol %d: %s, %v", proto, got, err)
		}
	}
}

// TestAccept is what only an initiator refuses: an answer that is no subset,
// or that leaves a choice open.
func TestAccept(t *testing.T) {
	ours := own(t, ParseIKE, "aes256gcm16-aes128gcm16-prfsha256-x25519-ecp256", "chacha20poly1305-prfsha256-x25519")
	good := ike(1, gcm128t, prf256t, ecp256t)
	got, err := Accept(ours, []wire.Proposal{good}, wire.ProtoIKE)
	if err != nil || got.String() != "aes128gcm16-prfsha256-ecp256" || got.Number != 1 {
		t.Errorf("got %s, %v", got, err)
	}
	rekeyed := good
	rekeyed.SPI = []byte{1, 2, 3, 4, 5, 6, 7, 8}
	if got, err := Accept(ours, []wire.Proposal{rekeyed}, wire.ProtoIKE); err != nil || !slices.Equal(got.SPI, rekeyed.SPI) {
		t.Errorf("a rekeyed IKE SA: %x, %v", got.SPI, err)
	}
	for name, answer := range map[string][]wire.Proposal{
		"nothing":               nil,
		"two proposals":         {good, good},
		"number 0":              {ike(0, gcm128t, prf256t, x25519t)},
		"number 3":              {ike(3, gcm128t, prf256t, x25519t)},
		"number 255":            {ike(255, gcm128t, prf256t, x25519t)},
		"the other's number":    {ike(2, gcm128t, prf256t, x25519t)},
		"two ciphers":           {ike(1, gcm128t, gcm256t, prf256t, x25519t)},
		"a cipher twice":        {ike(1, gcm128t, gcm128t, prf256t, x25519t)},
		"two groups":            {ike(1, gcm128t, prf256t, x25519t, ecp256t)},
		"a group twice":         {ike(1, gcm128t, prf256t, x25519t, x25519t)},
		"a PRF twice":           {ike(1, gcm128t, prf256t, prf256t, x25519t)},
		"integrity twice":       {ike(1, gcm128t, prf256t, nointeg, nointeg, x25519t)},
		"a group and NONE":      {ike(1, gcm128t, prf256t, x25519t, noke)},
		"another after ours":    {ike(1, gcm128t, cbc256t, prf256t, x25519t)},
		"an odd transform more": {ike(1, gcm128t, prf256t, x25519t, odd(nointeg))},
	} {
		if got, err := Accept(ours, answer, wire.ProtoIKE); !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: accepted %s, %v", name, got, err)
		}
	}
}

// checkChoose wants what is chosen to be of the offer and of ours, and the
// answer to be accepted by who made the offer.
func checkChoose(t *testing.T, ours []Proposal, o wire.Proposal, guess uint16) bool {
	t.Helper()
	got, err := Choose(ours, []wire.Proposal{o}, o.Protocol, guess)
	again, errAgain := Choose(ours, []wire.Proposal{o}, o.Protocol, guess)
	if err != errAgain || got.Choice != again.Choice {
		t.Errorf("%+v: %s, then %s", o, got, again)
	}
	if err != nil {
		return false
	}
	w := got.Wire(got.Number, o.Protocol, got.SPI)
	for _, tr := range w.Transforms {
		if !slices.Contains(o.Transforms, tr) {
			t.Errorf("chosen %+v of %+v", w, o)
		}
	}
	if !slices.ContainsFunc(ours, func(p Proposal) bool {
		_, err := Accept([]Proposal{p}, []wire.Proposal{w}, o.Protocol)
		return err == nil
	}) {
		t.Errorf("%+v is not of ours", w)
	}
	return true
}

var espSuites = []string{"aes256gcm16-chacha20poly1305-esn-noesn", "aes128-aes256-sha256-sha512"}

// TestChooseGenerated makes offers out of good transforms and broken ones.
func TestChooseGenerated(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pool := []wire.Transform{gcm256t, gcm128t, cbc256t, chachat, prf256t, prf384t, sha256t, nointeg, x25519t, ecp256t, noke, esnt, noesnt}
	ikes, esps := own(t, ParseIKE, ikeSuites...), own(t, ParseESP, espSuites...)
	chosen := 0
	for range 20000 {
		ours, o := ikes, ike(1)
		if r.IntN(2) == 0 {
			ours, o = esps, esp(1)
		}
		for range r.IntN(9) {
			tr := pool[r.IntN(len(pool))]
			switch r.IntN(40) {
			case 0:
				tr = odd(tr)
			case 1:
				tr.KeyBits ^= 1 << r.IntN(16)
			case 2:
				tr.ID = uint16(r.IntN(40))
			case 3:
				tr.Type = wire.TransformType(r.IntN(9))
			}
			o.Transforms = append(o.Transforms, tr)
		}
		if checkChoose(t, ours, o, uint16(r.IntN(33))) {
			chosen++
		}
	}
	if chosen < 500 || chosen > 10000 {
		t.Errorf("%d of 20000 chosen: the offers are not what they should be", chosen)
	}
}

// FuzzChoose offers anything.
func FuzzChoose(f *testing.F) {
	f.Add([]byte{1, 0, 20, 1, 0, 2, 0, 5, 0, 0, 4, 0, 31, 0, 0}, uint8(1), uint8(0), uint16(31))
	f.Add([]byte{1, 0, 20, 1, 0, 5, 0, 0, 0, 0, 4, 0, 0, 0, 0}, uint8(3), uint8(4), uint16(0))
	f.Add([]byte{1, 0, 12, 0, 128, 3, 0, 12, 0, 0, 5, 0, 0, 0, 0}, uint8(3), uint8(4), uint16(0))
	f.Add([]byte{1, 0, 28, 0, 0, 2, 0, 5, 0, 0, 4, 0, 21, 0, 0, 3, 0, 0, 0, 0}, uint8(1), uint8(8), uint16(19))
	ikes, esps := own(f, ParseIKE, ikeSuites...), own(f, ParseESP, espSuites...)
	f.Fuzz(func(t *testing.T, b []byte, proto, spiLen uint8, guess uint16) {
		ours := ikes
		if wire.ProtocolID(proto) == wire.ProtoESP {
			ours = esps
		}
		o := wire.Proposal{Number: 1, Protocol: wire.ProtocolID(proto), SPI: slices.Repeat([]byte{9}, int(spiLen))}
		for ; len(b) >= 5; b = b[5:] {
			o.Transforms = append(o.Transforms, wire.Transform{
				Type: wire.TransformType(b[0] & 0x7f), Unknown: b[0]&0x80 != 0,
				ID: uint16(b[1])<<8 | uint16(b[2]), KeyBits: uint16(b[3])<<8 | uint16(b[4]),
			})
		}
		checkChoose(t, ours, o, guess)
	})
}
