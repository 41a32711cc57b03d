package wire

import (
	"fmt"
	"strings"
	"testing"
)

func TestSA(t *testing.T) {
	checkCodec(t, []codecTest{{
		name: "IKE, first exchange",
		body: `
			00 00 00 24  01 01 00 03    # last, 36 bytes; number 1, IKE, no SPI, 3 transforms
			03 00 00 0c  01 00 00 14  80 0e 01 00  # AES-GCM-16, 256 bits
			03 00 00 08  02 00 00 06               # PRF HMAC-SHA2-384
			00 00 00 08  04 00 00 1f               # X25519`,
		want: &SA{[]Proposal{{Number: 1, Protocol: ProtoIKE, Transforms: []Transform{
			{Type: TransformEncr, ID: EncrAESGCM16, KeyBits: 256},
			{Type: TransformPRF, ID: PRFHMACSHA384},
			{Type: TransformKE, ID: KEX25519},
		}}}},
	}, {
		name: "two for ESP",
		body: `
			02 00 00 20  01 03 04 02  c0 00 00 01
			03 00 00 0c  01 00 00 14  80 0e 00 80
			00 00 00 08  05 00 00 01
			00 00 00 28  02 03 04 03  c0 00 00 02
			03 00 00 0c  01 00 00 0c  80 0e 01 00
			03 00 00 08  03 00 00 0c
			00 00 00 08  05 00 00 00`,
		want: &SA{[]Proposal{{Number: 1, Protocol: ProtoESP, SPI: []byte{0xc0, 0, 0, 1}, Transforms: []Transform{
			{Type: TransformEncr, ID: EncrAESGCM16, KeyBits: 128},
			{Type: TransformESN, ID: ESNYes},
		}}, {Number: 2, Protocol: ProtoESP, SPI: []byte{0xc0, 0, 0, 2}, Transforms: []Transform{
			{Type: TransformEncr, ID: EncrAESCBC, KeyBits: 256},
			{Type: TransformInteg, ID: IntegSHA256128},
			{Type: TransformESN, ID: ESNNo},
		}}}},
	}, {
		name: "IKE rekeying, one transform",
		body: "00 00 00 18  01 01 08 01  01 02 03 04 05 06 07 08  00 00 00 08  04 00 00 13",
		want: &SA{[]Proposal{{Number: 1, Protocol: ProtoIKE, SPI: []byte{1, 2, 3, 4, 5, 6, 7, 8},
			Transforms: []Transform{{Type: TransformKE, ID: KEECP256}}}}},
	}, {
		name:  "reserved bytes are ignored",
		body:  "00 ff 00 14  01 03 04 01  00 00 01 00  00 ff 00 08  05 ff 00 00",
		other: "00 00 00 14  01 03 04 01  00 00 01 00  00 00 00 08  05 00 00 00",
		want: &SA{[]Proposal{{Number: 1, Protocol: ProtoESP, SPI: []byte{0, 0, 1, 0},
			Transforms: []Transform{{Type: TransformESN}}}}},
	}, {
		name: "unknown protocol with any SPI, unknown transform type",
		body: "00 00 00 13  07 c8 03 01  aa bb cc  00 00 00 08  f0 00 12 34",
		want: &SA{[]Proposal{{Number: 7, Protocol: 200, SPI: []byte{0xaa, 0xbb, 0xcc},
			Transforms: []Transform{{Type: 240, ID: 0x1234}}}}},
	}})
}

// An attribute that is not exactly one Key Length makes a transform that must
// not be chosen, and it stays that when it is written again.
func TestTransformAttributes(t *testing.T) {
	body := func(attrs string) string {
		n := len(strings.ReplaceAll(attrs, " ", "")) / 2
		return fmt.Sprintf("00 00 %04x 01 01 00 01  00 00 %04x 01 00 00 14 %s", 16+n, 8+n, attrs)
	}
	aes := func(bits uint16, unknown bool) *SA {
		return &SA{[]Proposal{{Number: 1, Protocol: ProtoIKE,
			Transforms: []Transform{{Type: TransformEncr, ID: EncrAESGCM16, KeyBits: bits, Unknown: unknown}}}}}
	}
	checkCodec(t, []codecTest{
		{name: "none", body: body(""), want: aes(0, false)},
		{name: "odd key length", body: body("800e 007f"), want: aes(127, false)},
		{name: "longest key length", body: body("800e ffff"), want: aes(65535, false)},
		{name: "key length 0", body: body("800e 0000"), want: aes(0, true)},
		{name: "key length twice", body: body("800e 0080 800e 0100"), want: aes(128, true), other: body("800e 0080 800e 0000")},
		{name: "key length as a long attribute", body: body("000e 0002 0100"), want: aes(0, true), other: body("800e 0000")},
		{name: "other short attribute", body: body("800f 0100"), want: aes(0, true), other: body("800e 0000")},
		{name: "other long attribute", body: body("0011 0003 010203 800e 0100"), want: aes(256, true), other: body("800e 0100 800e 0000")},
		{name: "empty long attribute", body: body("0011 0000"), want: aes(0, true), other: body("800e 0000")},
	})
	checkRefusals(t, TypeSA, []refusal{
		{"half an attribute", body("800e"), "needs 2 bytes, 0 are left"},
		{"long attribute beyond its transform", body("0011 0004 010203"), "needs 4 bytes, 3 are left"},
	})
}

func TestSARefused(t *testing.T) {
	const transform = "00000008 05000000"
	checkRefusals(t, TypeSA, []refusal{
		{"no proposal", "", "no proposal"},
		{"proposal without transforms", "00000008 01010000", "without transforms"},
		{"proposal shorter than its header", "00000003 01030401 01020304" + transform, "length 3"},
		{"proposal longer than the payload", "00000015 01030401 01020304" + transform, "needs 17 bytes, 16 are left"},
		{"last, yet another follows", "00000014 01030401 01020304" + transform + "00000014 02030401 01020304" + transform, "proposal marked 0 where 2"},
		{"more, yet none follows", "02000014 01030401 01020304" + transform, "proposal marked 2 where 0"},
		{"proposal marked otherwise", "01000014 01030401 01020304" + transform, "proposal marked 1"},
		{"trailing byte", "00000014 01030401 01020304" + transform + "00", "proposal marked 0 where 2"},
		{"trailing byte in the proposal", "00000015 01030401 01020304" + transform + "00", "transform marked 0 where 3"},
		{"fewer numbers later", "02000014 02030401 01020304" + transform + "00000014 01030401 01020304" + transform, "proposal 1 after 2"},
		{"transform count too small", "0000001c 01030401 01020304 03000008 05000001" + transform, "trailing"},
		{"transform count too large", "00000014 01030402 01020304" + transform, "2 transforms announced, 1 found"},
		{"transform shorter than its header", "00000014 01030401 01020304 00000003 05000000", "length 3"},
		{"transform without type and number", "00000010 01030401 01020304 00000004", "needs 1 bytes, 0 are left"},
		{"transform longer than its proposal", "00000014 01030401 01020304 00000009 05000000", "needs 5 bytes, 4 are left"},
		{"last transform, yet another follows", "0000001c 01030402 01020304 00000008 05000001" + transform, "transform marked 0 where 3"},
		{"more transforms, yet none follows", "00000014 01030401 01020304 03000008 05000000", "transform marked 3 where 0"},
		{"SPI longer than its proposal", "0000000a 01c80401 0102", "needs 4 bytes, 2 are left"},
	})
}

func TestProposalSPISizes(t *testing.T) {
	allowed := map[ProtocolID][]int{ProtoIKE: {0, 8}, ProtoAH: {4}, ProtoESP: {4}}
	for proto := range 256 {
		for size := range 256 {
			p := ProtocolID(proto)
			sa := &SA{[]Proposal{{Number: 1, Protocol: p, SPI: make([]byte, size), Transforms: make([]Transform, 1)}}}
			b, first := AppendPayloads(nil, []Payload{sa})
			_, err := ParsePayloads(first, b)
			if want := fits(allowed, p, size); (err == nil) != want {
				t.Errorf("%s, SPI of %d bytes: %v", p, size, err)
			}
		}
	}
}

// fits says whether the table allows the size; a protocol that it does not
// have may have any.
func fits(allowed map[ProtocolID][]int, p ProtocolID, size int) bool {
	sizes, known := allowed[p]
	for _, s := range sizes {
		if s == size {
			return true
		}
	}
	return !known
}

func TestSALimits(t *testing.T) {
	offer := func(proposals, transforms int) []Payload {
		sa := new(SA)
		for i := range proposals {
			sa.Proposals = append(sa.Proposals, Proposal{Number: uint8(i + 1), Protocol: ProtoIKE,
				Transforms: make([]Transform, transforms)})
		}
		return []Payload{sa}
	}
	for _, tt := range []struct {
		proposals, transforms int
		want                  string
	}{
		{1, 1, ""}, {64, 1, ""}, {64, 4, ""}, {1, 255, ""},
		{65, 1, "more than 64 proposals"},
		{255, 1, "more than 64 proposals"},
		{64, 5, "more than 256 transforms"},
		{2, 129, "more than 256 transforms"},
		{2, 255, "more than 256 transforms"},
	} {
		t.Run(fmt.Sprintf("%d of %d", tt.proposals, tt.transforms), func(t *testing.T) {
			b, first := AppendPayloads(nil, offer(tt.proposals, tt.transforms))
			_, err := ParsePayloads(first, b)
			if tt.want != "" {
				checkSyntax(t, err, TypeSA, tt.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
