package wire

import (
	"fmt"
	"strings"
	"testing"
)

func TestCP(t *testing.T) {
	checkCodec(t, []codecTest{{
		name: "request",
		body: "01 000000  0001 0000  0003 0000  0008 0000  000a 0000",
		want: &CP{CFGRequest, []CPAttr{
			{CPInternalIP4Address, nil}, {CPInternalIP4DNS, nil}, {CPInternalIP6Address, nil}, {CPInternalIP6DNS, nil}}},
	}, {
		name: "reply",
		body: `02 000000  0001 0004 0a070002  0002 0004 ffffffff  0003 0004 0a070001
			0008 0011 20010db8000000000000000000000002 40`,
		want: &CP{CFGReply, []CPAttr{
			{CPInternalIP4Address, []byte{10, 7, 0, 2}},
			{CPInternalIP4Netmask, []byte{255, 255, 255, 255}},
			{CPInternalIP4DNS, []byte{10, 7, 0, 1}},
			{CPInternalIP6Address, []byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 64}}}},
	}, {
		name: "no attribute",
		body: "03 000000",
		want: &CP{Kind: CFGSet},
	}, {
		name:  "reserved is ignored, unknown kinds are kept",
		body:  "c8 ffffff  8001 0000  f002 0003 010203",
		other: "c8 000000  0001 0000  7002 0003 010203",
		want:  &CP{200, []CPAttr{{CPInternalIP4Address, nil}, {0x7002, []byte{1, 2, 3}}}},
	}})
	checkRefusals(t, TypeCP, []refusal{
		{"empty", "", "needs 1 bytes, 0 are left"},
		{"half a header", "01 0000", "needs 3 bytes, 2 are left"},
		{"half an attribute", "01 000000 0001 00", "needs 2 bytes, 1 are left"},
		{"attribute beyond the payload", "01 000000 7002 0003 0102", "needs 3 bytes, 2 are left"},
		{"trailing byte", "01 000000 0001 0000 00", "needs 2 bytes, 1 are left"},
	})
}

// TestCPLengths: clients get the lengths of addresses wrong, and are understood
// all the same.
func TestCPLengths(t *testing.T) {
	for kind := range uint16(30) {
		for n := range 40 {
			cp := &CP{CFGRequest, []CPAttr{{kind, make([]byte, n)}}}
			b, first := AppendPayloads(nil, []Payload{cp})
			got, err := ParsePayloads(first, b)
			if err != nil || len(got[0].(*CP).Attrs[0].Value) != n {
				t.Errorf("attribute %d of %d bytes: %v, %v", kind, n, got, err)
			}
		}
	}
}

func TestCPLimits(t *testing.T) {
	for _, n := range []int{64, 65, 16000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			_, err := ParsePayloads(TypeCP, generically(unhex(t, "01000000"+strings.Repeat("00010000", n))))
			if n > maxAttributes {
				checkSyntax(t, err, TypeCP, "more than 64 attributes")
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
