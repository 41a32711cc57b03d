package suite

import (
	"slices"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// of is a proposal of these transforms.
func of(proto wire.ProtocolID, ts ...wire.Transform) wire.Proposal {
	return wire.Proposal{Number: 1, Protocol: proto, Transforms: ts}
}

func tf(kind wire.TransformType, id uint16, bits ...uint16) wire.Transform {
	t := wire.Transform{Type: kind, ID: id}
	if len(bits) > 0 {
		t.KeyBits = bits[0]
	}
	return t
}

const (
	enc, prfT, integT, keT, esnT = wire.TransformEncr, wire.TransformPRF, wire.TransformInteg, wire.TransformKE, wire.TransformESN
	ikeP, espP                   = wire.ProtoIKE, wire.ProtoESP
)

// TestDescribeOffer: what clients offer reads as in swanctl.conf, whether we
// have it or not.
func TestDescribeOffer(t *testing.T) {
	odd := tf(enc, 12, 256)
	odd.Unknown = true
	for _, c := range []struct {
		name  string
		offer []wire.Proposal
		want  []string
	}{
		{"Windows, IKE", []wire.Proposal{
			of(ikeP, tf(enc, 3), tf(integT, 2), tf(prfT, 2), tf(keT, 2)),
			of(ikeP, tf(enc, 12, 256), tf(integT, 2), tf(prfT, 2), tf(keT, 2)),
			of(ikeP, tf(enc, 3), tf(integT, 12), tf(prfT, 5), tf(keT, 2)),
			of(ikeP, tf(enc, 12, 256), tf(integT, 12), tf(prfT, 5), tf(keT, 2)),
			of(ikeP, tf(enc, 3), tf(integT, 13), tf(prfT, 6), tf(keT, 2)),
			of(ikeP, tf(enc, 12, 256), tf(integT, 13), tf(prfT, 6), tf(keT, 2)),
		}, []string{"3des-sha1-modp1024", "aes256-sha1-modp1024", "3des-sha256-modp1024", "aes256-sha256-modp1024",
			"3des-sha384-modp1024", "aes256-sha384-modp1024"}},
		{"Windows, ESP", []wire.Proposal{
			of(espP, tf(enc, 12, 256), tf(integT, 2), tf(esnT, 0)),
			of(espP, tf(enc, 12, 128), tf(integT, 2), tf(esnT, 0)),
			of(espP, tf(enc, 3), tf(integT, 2), tf(esnT, 0)),
			of(espP, tf(enc, 2), tf(integT, 2), tf(esnT, 0)),
			of(espP, tf(enc, 11), tf(integT, 2), tf(esnT, 0)),
		}, []string{"aes256-sha1", "aes128-sha1", "3des-sha1", "des-sha1", "null-sha1"}},
		{"Apple, IKE", []wire.Proposal{
			of(ikeP, tf(enc, 12, 256), tf(integT, 12), tf(prfT, 5), tf(keT, 14)),
			of(ikeP, tf(enc, 12, 256), tf(integT, 12), tf(prfT, 5), tf(keT, 5)),
			of(ikeP, tf(enc, 12, 128), tf(integT, 2), tf(prfT, 2), tf(keT, 2)),
		}, []string{"aes256-sha256-modp2048", "aes256-sha256-modp1536", "aes128-sha1-modp1024"}},
		{"one proposal of many, with PRFs of its own", []wire.Proposal{
			of(ikeP, tf(enc, 12, 128), tf(enc, 12, 192), tf(enc, 23, 256), tf(integT, 12), tf(integT, 5),
				tf(prfT, 5), tf(prfT, 4), tf(prfT, 8), tf(keT, 31), tf(keT, 32), tf(keT, 28)),
		}, []string{"aes128-aes192-camellia256-sha256-aesxcbc-prfsha256-prfaesxcbc-prfaescmac-x25519-x448-ecp256bp"}},
		{"the PRFs of the integrity", []wire.Proposal{
			of(ikeP, tf(enc, 12, 128), tf(integT, 5), tf(integT, 1), tf(integT, 8), tf(prfT, 4), tf(prfT, 1), tf(prfT, 8), tf(keT, 19)),
		}, []string{"aes128-aesxcbc-md5-aescmac-ecp256"}},
		{"authenticated ciphers", []wire.Proposal{
			of(ikeP, tf(enc, 20, 256), tf(enc, 18, 128), tf(enc, 28), tf(prfT, 7), tf(keT, 19)),
			of(espP, tf(enc, 20, 256), tf(integT, 0), tf(keT, 0), tf(esnT, 1), tf(esnT, 0)),
			of(espP, tf(enc, 16, 128), tf(enc, 21, 256), tf(esnT, 1)),
		}, []string{"aes256gcm16-aes128gcm8-chacha20poly1305-prfsha512-ecp256", "aes256gcm16-esn-noesn", "aes128ccm16-aes256gmac-esn"}},
		{"additional key exchanges", []wire.Proposal{
			of(ikeP, tf(enc, 20, 256), tf(prfT, 6), tf(keT, 31), tf(6, 36), tf(6, 37), tf(12, 99)),
		}, []string{"aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_mlkem1024-ke7_ke(99)"}},
		{"numbers without a name", []wire.Proposal{
			of(ikeP, tf(enc, 1024, 256), tf(enc, 35), tf(integT, 77), tf(prfT, 9), tf(keT, 65535)),
			of(espP, tf(enc, 12, 256), tf(integT, 12), tf(esnT, 7), tf(13, 2), tf(241, 3, 8)),
		}, []string{"encr(1024,256)-encr(35)-integ(77)-prf(9)-ke(65535)", "aes256-sha256-esn(7)-transform13(2)-transform241(3,8)"}},
		{"key lengths and attributes that do not belong", []wire.Proposal{
			of(espP, tf(enc, 12), tf(enc, 12, 512), tf(enc, 28, 256), tf(enc, 3, 192), tf(integT, 12, 256), odd),
		}, []string{"aes(0)-aes512-chacha20poly1305(256)-3des(192)-aes256(attribute)-sha256(256)"}},
		{"other protocols", []wire.Proposal{
			of(wire.ProtoAH, tf(integT, 2), tf(esnT, 0)),
			of(9, tf(enc, 12, 256)),
		}, []string{"AH:sha1", "protocol 9:aes256"}},
		{"the same again", []wire.Proposal{
			of(espP, tf(enc, 12, 256), tf(integT, 2), tf(esnT, 0)),
			of(espP, tf(enc, 12, 256), tf(integT, 2), tf(esnT, 0), tf(keT, 0)),
		}, []string{"aes256-sha1"}},
		{"nothing", nil, nil},
	} {
		if got := DescribeOffer(c.offer); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

// TestDescribeOwn: what we offer ourselves reads as it stands in the config.
func TestDescribeOwn(t *testing.T) {
	for _, s := range []string{"aes256gcm16-prfsha384-x25519", "aes256-sha256-ecp256", "aes128-sha512-sha256-ecp256-modp2048-x25519",
		"aes128-sha256-prfsha512-ecp521", "chacha20poly1305-aes256gcm16-prfsha256-modp4096"} {
		p, err := ParseIKE(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := DescribeOffer([]wire.Proposal{p.Wire(1, ikeP, nil)}); !slices.Equal(got, []string{s}) {
			t.Errorf("%s reads %q", s, got)
		}
	}
	for _, s := range []string{"aes256gcm16", "aes256gcm16-esn-noesn", "aes128-sha384-noesn-esn", "aes192-sha256-esn"} {
		p, err := ParseESP(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := DescribeOffer([]wire.Proposal{p.Wire(1, espP, []byte{0, 0, 1, 0})}); !slices.Equal(got, []string{s}) {
			t.Errorf("%s reads %q", s, got)
		}
	}
}

// TestForeignIsForeign: no name stands for two numbers, and what the table has
// is only there, but for the families of ciphers by their key length.
func TestForeignIsForeign(t *testing.T) {
	for kind, names := range foreign {
		seen := map[string]bool{}
		for id, word := range names {
			if seen[word] {
				t.Errorf("%v: %s twice", kind, word)
			}
			seen[word] = true
			if named(word) != nil || find(kind, id, 0) != nil {
				t.Errorf("%v %d is %s, which the table has", kind, id, word)
			}
		}
	}
}
