package wire

import (
	"fmt"
	"strings"
	"testing"
)

func TestKE(t *testing.T) {
	checkCodec(t, []codecTest{
		{name: "X25519", body: "001f 0000 0102030405", want: &KE{KEX25519, []byte{1, 2, 3, 4, 5}}},
		{name: "reserved is ignored", body: "0013 ffff 01", other: "0013 0000 01", want: &KE{KEECP256, []byte{1}}},
	})
	checkRefusals(t, TypeKE, []refusal{
		{"empty", "", "needs 2 bytes, 0 are left"},
		{"half a header", "001f 00", "needs 2 bytes, 1 are left"},
		{"no data", "001f 0000", "no key exchange data"},
	})
}

func TestNonce(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 32, 256, 257, 65000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			body := strings.Repeat("5a", n)
			if n < 16 || n > 256 {
				checkRefusals(t, TypeNonce, []refusal{{"refused", body, fmt.Sprintf("nonce of %d bytes", n)}})
				return
			}
			checkCodec(t, []codecTest{{name: "read", body: body, want: &Nonce{unhex(t, body)}}})
		})
	}
}

func TestID(t *testing.T) {
	checkCodec(t, []codecTest{
		{name: "IPv4", body: "01 000000 0a070001", want: &ID{TypeIDi, IDIPv4, []byte{10, 7, 0, 1}}},
		{name: "IPv6", body: "05 000000 20010db8000000000000000000000001",
			want: &ID{TypeIDr, IDIPv6, []byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}},
		{name: "FQDN", body: "02 000000 67772e746573742e", want: &ID{TypeIDr, IDFQDN, []byte("gw.test.")}},
		{name: "empty key ID", body: "0b 000000", want: &ID{TypeIDi, IDKeyID, nil}},
		{name: "reserved is ignored", body: "02 ffffff 61", other: "02 000000 61", want: &ID{TypeIDi, IDFQDN, []byte("a")}},
	})
	checkRefusals(t, TypeIDi, []refusal{
		{"empty", "", "needs 1 bytes, 0 are left"},
		{"half a header", "02 0000", "needs 3 bytes, 2 are left"},
		{"IPv4 without address", "01 000000", "ID_IPV4_ADDR of 0 bytes"},
		{"IPv4 too long", "01 000000 0a07000100", "ID_IPV4_ADDR of 5 bytes"},
		{"IPv6 with an IPv4 address", "05 000000 0a070001", "ID_IPV6_ADDR of 4 bytes"},
	})
}

// Identities of every kind and size are kept byte for byte.
func TestIDKinds(t *testing.T) {
	for kind := range 256 {
		for _, n := range []int{0, 1, 4, 16, 255, 256, 65527} {
			id := &ID{TypeIDr, IDType(kind), make([]byte, n)}
			b, first := AppendPayloads(nil, []Payload{id})
			ps, err := ParsePayloads(first, b)
			want := IDType(kind) != IDIPv4 && IDType(kind) != IDIPv6 ||
				IDType(kind) == IDIPv4 && n == 4 || IDType(kind) == IDIPv6 && n == 16
			if (err == nil) != want {
				t.Errorf("%s of %d bytes: %v", id.Kind, n, err)
			}
			if got, ok := FindID(ps, TypeIDr); ok && (got.Kind != id.Kind || len(got.Data) != n) {
				t.Errorf("%s of %d bytes became %s of %d", id.Kind, n, got.Kind, len(got.Data))
			}
		}
	}
}

// What a hostile name holds never reaches the text of an error.
func TestIDErrorIsPlain(t *testing.T) {
	_, err := ParsePayloads(TypeIDi, generically([]byte("\x01\x00\x00\x00;$(x)\n\x1b[2J")))
	if want := fmt.Sprintf("%q", err.Error()); want != `"`+err.Error()+`"` {
		t.Errorf("error text %s", want)
	}
}

func TestAuth(t *testing.T) {
	checkCodec(t, []codecTest{
		{name: "shared key", body: "02 000000 010203", want: &Auth{AuthSharedKey, []byte{1, 2, 3}}},
		{name: "unknown method", body: "c8 000000 01", want: &Auth{200, []byte{1}}},
		{name: "reserved is ignored", body: "02 ffffff 01", other: "02 000000 01", want: &Auth{AuthSharedKey, []byte{1}}},
	})
	checkRefusals(t, TypeAuth, []refusal{
		{"empty", "", "needs 1 bytes, 0 are left"},
		{"half a header", "02 0000", "needs 3 bytes, 2 are left"},
		{"no data", "02 000000", "no authentication data"},
	})
}
