package suite

import (
	"slices"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

func TestParse(t *testing.T) {
	gcm256 := EncrKey{wire.EncrAESGCM16, 256}
	cbc128 := EncrKey{wire.EncrAESCBC, 128}
	for _, v := range []struct {
		parse func(string) (Proposal, error)
		in    string
		want  Proposal
		out   string
	}{
		{ParseIKE, "aes256gcm16-prfsha384-x25519",
			Proposal{Encr: []EncrKey{gcm256}, PRF: []uint16{6}, KE: []uint16{31}}, ""},
		{ParseIKE, "aes256gcm-prfsha2_384-curve25519",
			Proposal{Encr: []EncrKey{gcm256}, PRF: []uint16{6}, KE: []uint16{31}}, "aes256gcm16-prfsha384-x25519"},
		{ParseIKE, "aes-sha2_256-ecp256",
			Proposal{Encr: []EncrKey{cbc128}, Integ: []uint16{12}, PRF: []uint16{5}, KE: []uint16{19}}, "aes128-sha256-ecp256"},
		{ParseIKE, "aes128-sha512-sha256-ecp256-modp2048-x25519",
			Proposal{Encr: []EncrKey{cbc128}, Integ: []uint16{14, 12}, PRF: []uint16{7, 5}, KE: []uint16{19, 14, 31}}, ""},
		{ParseIKE, "aes128-sha256-prfsha512-ecp521",
			Proposal{Encr: []EncrKey{cbc128}, Integ: []uint16{12}, PRF: []uint16{7}, KE: []uint16{21}}, ""},
		{ParseIKE, "x25519-prfsha256-chacha20poly1305-aes256gcm16",
			Proposal{Encr: []EncrKey{{28, 0}, gcm256}, PRF: []uint16{5}, KE: []uint16{31}},
			"chacha20poly1305-aes256gcm16-prfsha256-x25519"},
		{ParseESP, "aes256gcm16", Proposal{Encr: []EncrKey{gcm256}, ESN: []uint16{0}}, ""},
		{ParseESP, "aes256gcm16-noesn", Proposal{Encr: []EncrKey{gcm256}, ESN: []uint16{0}}, "aes256gcm16"},
		{ParseESP, "aes256gcm16-esn", Proposal{Encr: []EncrKey{gcm256}, ESN: []uint16{1}}, ""},
		{ParseESP, "aes256gcm16-esn-noesn", Proposal{Encr: []EncrKey{gcm256}, ESN: []uint16{1, 0}}, ""},
		{ParseESP, "aes128-sha384-x25519-noesn-esn",
			Proposal{Encr: []EncrKey{cbc128}, Integ: []uint16{13}, KE: []uint16{31}, ESN: []uint16{0, 1}}, ""},
	} {
		got, err := v.parse(v.in)
		if err != nil || !same(got, v.want) {
			t.Errorf("%s: got %+v, %v, want %+v", v.in, got, err, v.want)
		}
		if v.out == "" {
			v.out = v.in
		}
		if got.String() != v.out {
			t.Errorf("%s: printed as %s, want %s", v.in, got, v.out)
		}
	}
}

func same(a, b Proposal) bool {
	return slices.Equal(a.Encr, b.Encr) && slices.Equal(a.Integ, b.Integ) &&
		slices.Equal(a.PRF, b.PRF) && slices.Equal(a.KE, b.KE) && slices.Equal(a.ESN, b.ESN)
}

// TestParseRefuses is every way for a proposal to be wrong, with what the
// error must name.
func TestParseRefuses(t *testing.T) {
	for _, v := range []struct{ proto, in, names, says string }{
		{"ike", "", `""`, "empty word"},
		{"ike", "aes256gcm16--prfsha256-x25519", "aes256gcm16--prfsha256-x25519", "empty word"},
		{"ike", "-aes256gcm16-prfsha256-x25519", "-aes256gcm16-prfsha256-x25519", "empty word"},
		{"ike", "aes256gcm16-prfsha256-x25519-", "aes256gcm16-prfsha256-x25519-", "empty word"},
		{"ike", "aes257gcm16-prfsha256-x25519", "aes257gcm16", "no known algorithm"},
		{"ike", "aes256gcm8-prfsha256-x25519", "aes256gcm8", "no known algorithm"},
		{"ike", "aes256ccm16-prfsha256-x25519", "aes256ccm16", "no known algorithm"},
		{"ike", "aes256gcm16-prfsha256-x25519 ", "x25519 ", "no known algorithm"},
		{"ike", "aes256gcm16,prfsha256,x25519", "aes256gcm16,prfsha256,x25519", "no known algorithm"},
		{"ike", "AES256GCM16-prfsha256-x25519", "AES256GCM16", `is written "aes256gcm16"`},
		{"ike", "aes256gcm16-prfsha256-X25519", "X25519", `is written "x25519"`},
		{"ike", "3des-sha256-ecp256", "3des", "too weak"},
		{"ike", "des-sha256-ecp256", "des", "too weak"},
		{"ike", "null-sha256-ecp256", "null", "too weak"},
		{"ike", "aes128-sha1-ecp256", "sha1", "too weak"},
		{"ike", "aes128-md5-ecp256", "md5", "too weak"},
		{"ike", "aes128gcm16-prfsha1-ecp256", "prfsha1", "too weak"},
		{"ike", "aes128gcm16-prfmd5-ecp256", "prfmd5", "too weak"},
		{"ike", "aes128-sha256-modp768", "modp768", "too weak"},
		{"ike", "aes128-sha256-modp1024", "modp1024", "too weak"},
		{"ike", "aes128-sha256-modp1536", "modp1536", "too weak"},
		{"ike", "aes128-sha256-ecp192", "ecp192", "too weak"},
		{"ike", "aes256gcm16-aes256gcm16-prfsha256-x25519", "aes256gcm16", "twice"},
		{"ike", "aes256gcm16-aes256gcm-prfsha256-x25519", "aes256gcm", "twice"},
		{"ike", "aes256gcm16-prfsha256-x25519-curve25519", "curve25519", "twice"},
		{"ike", "prfsha256-x25519", "prfsha256-x25519", "no encryption"},
		{"ike", "aes256gcm16-x25519", "aes256gcm16", "needs a PRF"},
		{"ike", "chacha20poly1305-x25519", "chacha20poly1305", "needs a PRF"},
		{"ike", "aes256gcm16-prfsha256", "aes256gcm16-prfsha256", "no key exchange"},
		{"ike", "aes256-sha256", "aes256-sha256", "no key exchange"},
		{"ike", "aes256-prfsha256-x25519", "aes256", "needs an integrity"},
		{"ike", "aes256gcm16-sha256-prfsha256-x25519", "sha256", "authenticates by itself"},
		{"ike", "aes256gcm16-aes256-sha256-prfsha256-x25519", "aes256", "cannot stand in one proposal"},
		{"ike", "aes256gcm16-prfsha256-x25519-esn", "esn", "for ESP"},
		{"ike", "aes256gcm16-prfsha256-x25519-noesn", "noesn", "for ESP"},
		{"esp", "", `""`, "empty word"},
		{"esp", "esn", "esn", "no encryption"},
		{"esp", "sha256", "sha256", "no encryption"},
		{"esp", "aes256", "aes256", "needs an integrity"},
		{"esp", "aes256gcm16-sha256", "sha256", "authenticates by itself"},
		{"esp", "aes256gcm16-prfsha256", "prfsha256", "for IKE"},
		{"esp", "aes256gcm16-esn-esn", "esn", "twice"},
		{"esp", "aes128-chacha20poly1305-sha256", "chacha20poly1305", "cannot stand in one proposal"},
	} {
		parse := map[string]func(string) (Proposal, error){"ike": ParseIKE, "esp": ParseESP}[v.proto]
		p, err := parse(v.in)
		if err == nil || !strings.Contains(err.Error(), v.names) || !strings.Contains(err.Error(), v.says) {
			t.Errorf("%s %q: %v, %v; want an error with %q and %q", v.proto, v.in, p, err, v.names, v.says)
		}
	}
}

// TestWeakIsAbsent wants nothing weak in the table, under any name or number.
func TestWeakIsAbsent(t *testing.T) {
	for _, word := range weak {
		if named(word) != nil {
			t.Errorf("%s is in the table", word)
		}
	}
	for kind, ids := range map[wire.TransformType][]uint16{
		wire.TransformEncr:  {1, 2, 3, 4, 5, 6, 7, 8, 9, 11},
		wire.TransformPRF:   {1, 2, 3, 4},
		wire.TransformInteg: {1, 2, 3, 4, 5, 6, 7},
		wire.TransformKE:    {1, 2, 5, 22, 23, 24, 25, 26},
	} {
		for _, a := range table {
			if a.kind == kind && slices.Contains(ids, a.id) {
				t.Errorf("%v is in the table", a.names)
			}
		}
	}
}

func TestChoiceString(t *testing.T) {
	for _, s := range []string{"aes256gcm16-prfsha384-x25519", "aes256-sha512-ecp256", "aes256-sha512-prfsha256-ecp256"} {
		if got := choice(t, s).String(); got != s {
			t.Errorf("got %s, want %s", got, s)
		}
	}
	if got := (Choice{Encr: wire.EncrAESGCM16, KeyBits: 128, ESN: 1}).String(); got != "aes128gcm16-esn" {
		t.Errorf("got %s", got)
	}
	if got := (Choice{Encr: 3, KeyBits: 7}).String(); got != "unknown(1,3,7)" {
		t.Errorf("got %s", got)
	}
}

// TestWire wants the transforms in order, no KE in an ESP offer (RFC 7296
// §1.2), and the SPI copied.
func TestWire(t *testing.T) {
	p, err := ParseESP("aes128-aes256-sha256-x25519-esn-noesn")
	if err != nil {
		t.Fatal(err)
	}
	spi := []byte{1, 2, 3, 4}
	w := p.Wire(2, wire.ProtoESP, spi)
	want := []wire.Transform{{Type: 1, ID: 12, KeyBits: 128}, {Type: 1, ID: 12, KeyBits: 256}, {Type: 3, ID: 12}, {Type: 5, ID: 1}, {Type: 5, ID: 0}}
	if w.Number != 2 || w.Protocol != wire.ProtoESP || !slices.Equal(w.Transforms, want) {
		t.Errorf("got %+v", w)
	}
	if spi[0] = 9; w.SPI[0] != 1 {
		t.Error("the SPI is a view")
	}
	w = choice(t, "aes256-sha256-prfsha512-x25519").Wire(1, wire.ProtoIKE, nil)
	want = []wire.Transform{{Type: 1, ID: 12, KeyBits: 256}, {Type: 2, ID: 7}, {Type: 3, ID: 12}, {Type: 4, ID: 31}}
	if !slices.Equal(w.Transforms, want) {
		t.Errorf("got %+v", w)
	}
}

// FuzzParseProposalString: what parses is usable, and printed it parses to the
// same.
func FuzzParseProposalString(f *testing.F) {
	for _, s := range append(ikeSuites, "aes256gcm16-esn-noesn", "aes128-sha384-x25519", "3des", "-", "AES") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParseIKE(s); err == nil {
			again, err := ParseIKE(p.String())
			if err != nil || !same(p, again) {
				t.Errorf("%q: %v, again %v, %v", s, p, again, err)
			}
			c := choice(t, s)
			k := keys(c)
			msg := c.Seal(nil, header, nil, &k.Ei, &k.Ai, 1)
			if _, err := c.Open(msg, parsed(t, msg), &k.Ei, &k.Ai); err != nil {
				t.Errorf("%q: %v", s, err)
			}
		}
		if p, err := ParseESP(s); err == nil {
			again, err := ParseESP(p.String())
			if err != nil || !same(p, again) {
				t.Errorf("%q: %v, again %v, %v", s, p, again, err)
			}
		}
	})
}
