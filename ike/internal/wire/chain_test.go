package wire

import (
	"errors"
	"strings"
	"testing"
)

func TestEncryptedInsideEncrypted(t *testing.T) {
	for _, typ := range []PayloadType{TypeSK, TypeSKF} {
		_, err := ParsePayloads(typ, generically(filled(40, 1)))
		checkSyntax(t, err, typ, "inside an encrypted payload")
	}
}

// For every payload type: what the critical bit does, and whether two of them
// may stand in one chain.
func TestPayloadTypes(t *testing.T) {
	known := map[PayloadType]Payload{
		TypeSA: sampleESPOffer(), TypeKE: &KE{KEX25519, []byte{1}}, TypeIDi: &ID{T: TypeIDi}, TypeIDr: &ID{T: TypeIDr},
		TypeCert: &Raw{T: TypeCert}, TypeCReq: &Raw{T: TypeCReq}, TypeAuth: &Auth{Data: []byte{1}},
		TypeNonce: &Nonce{filled(16, 1)}, TypeNotify: &Notify{}, TypeDelete: &Delete{Protocol: ProtoIKE},
		TypeVendor: &Raw{T: TypeVendor}, TypeTSi: sampleTS(TypeTSi), TypeTSr: sampleTS(TypeTSr), TypeCP: new(CP),
		TypeEAP: &Raw{T: TypeEAP},
	}
	repeatable := map[PayloadType]bool{TypeCert: true, TypeCReq: true, TypeNotify: true, TypeDelete: true,
		TypeVendor: true, TypeCP: true}
	for n := 1; n < 256; n++ {
		typ := PayloadType(n)
		if sealed(typ) {
			continue
		}
		p, ok := known[typ]
		if !ok {
			p = &Raw{T: typ}
		}
		b, first := AppendPayloads(nil, []Payload{p, p})
		if _, err := ParsePayloads(first, b); ok && !repeatable[typ] {
			checkSyntax(t, err, typ, "comes twice")
		} else if err != nil {
			t.Errorf("two of %s: %v", typ, err)
		}
		b, first = AppendPayloads(nil, []Payload{p})
		b[1] |= 0x80
		_, err := ParsePayloads(first, b)
		var critical *CriticalError
		switch {
		case ok && err != nil:
			t.Errorf("critical %s: %v", typ, err)
		case !ok && (!errors.As(err, &critical) || critical.Type != typ):
			t.Errorf("critical unknown payload %d: %v", n, err)
		}
	}
}

func TestTooManyPayloads(t *testing.T) {
	for _, n := range []int{256, 257, 10000} {
		b := strings.Repeat("2b000004", n-1) + "00000004"
		ps, err := ParsePayloads(TypeVendor, unhex(t, b))
		if n > maxPayloads {
			checkSyntax(t, err, TypeVendor, "more than 256 payloads")
		} else if err != nil || len(ps) != n {
			t.Errorf("%d payloads: %d, %v", n, len(ps), err)
		}
	}
}

// A chain fails at the first thing wrong with it, and gives no half of itself.
func TestErrorOffset(t *testing.T) {
	b, first := AppendPayloads(nil, []Payload{&Notify{Kind: InitialContact}, &Nonce{filled(15, 1)}, &Nonce{filled(3, 1)}})
	ps, err := ParsePayloads(first, b)
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || syntax.Payload != TypeNonce || syntax.Offset != 12 || ps != nil {
		t.Errorf("got %v, %v", ps, err)
	}
}
