package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestNotify(t *testing.T) {
	checkCodec(t, []codecTest{
		{name: "status", body: "00 00 4000", want: &Notify{Kind: InitialContact}},
		{name: "with data", body: "00 00 0011 0013", want: &Notify{Kind: InvalidKEPayload, Data: []byte{0, 0x13}}},
		{name: "rekeying ESP", body: "03 04 4009 c0000001",
			want: &Notify{ProtoESP, []byte{0xc0, 0, 0, 1}, RekeySA, nil}},
		{name: "SPI and data", body: "02 04 0027 c0000001 0102",
			want: &Notify{ProtoAH, []byte{0xc0, 0, 0, 1}, InvalidSelectors, []byte{1, 2}}},
		{name: "protocol without SPI is ignored", body: "01 00 4004 01", other: "00 00 4004 01",
			want: &Notify{Kind: NATDetectionSource, Data: []byte{1}}},
		{name: "unknown protocol with any SPI", body: "c8 03 ffff 010203",
			want: &Notify{200, []byte{1, 2, 3}, 65535, nil}},
	})
	checkRefusals(t, TypeNotify, []refusal{
		{"empty", "", "needs 1 bytes, 0 are left"},
		{"half a header", "00 00 40", "needs 2 bytes, 1 are left"},
		{"SPI beyond the payload", "03 04 4009 c00000", "needs 4 bytes, 3 are left"},
		{"IKE with its SPI", "01 08 4009 0102030405060708", "SPI of 8 bytes for IKE"},
		{"ESP with an SPI of IKE", "03 08 4009 0102030405060708", "SPI of 8 bytes for ESP"},
	})
}

func TestNotifySPISizes(t *testing.T) {
	allowed := map[ProtocolID][]int{ProtoIKE: {0}, ProtoAH: {0, 4}, ProtoESP: {0, 4}}
	for proto := range 256 {
		for size := range 256 {
			body := append([]byte{byte(proto), byte(size), 0x40, 9}, make([]byte, size)...)
			_, err := ParsePayloads(TypeNotify, generically(body))
			if want := fits(allowed, ProtocolID(proto), size); (err == nil) != want {
				t.Errorf("protocol %d, SPI of %d bytes: %v", proto, size, err)
			}
		}
	}
}

// "If the SPI field is empty, this field MUST be sent as zero."
func TestNotifyWithoutSPIWritesNoProtocol(t *testing.T) {
	b, _ := AppendPayloads(nil, []Payload{&Notify{Protocol: ProtoESP, Kind: NoProposalChosen}})
	if want := generically(unhex(t, "00 00 000e")); !bytes.Equal(b, want) {
		t.Errorf("wrote %x, want %x", b, want)
	}
}

// Nor does a Delete of the IKE SA name SPIs, which stand in the header.
func TestDeleteIKEWritesNoSPI(t *testing.T) {
	b, _ := AppendPayloads(nil, []Payload{&Delete{ProtoIKE, []uint32{1}}})
	if want := generically(unhex(t, "01 00 0000")); !bytes.Equal(b, want) {
		t.Errorf("wrote %x, want %x", b, want)
	}
}

// Every kind is kept, known or not; below 16384 it is an error.
func TestNotifyKinds(t *testing.T) {
	for kind := range 1 << 16 {
		b, first := AppendPayloads(nil, []Payload{&Notify{Kind: NotifyType(kind)}})
		ps, err := ParsePayloads(first, b)
		if err != nil {
			t.Fatalf("kind %d: %v", kind, err)
		}
		n, ok := FindNotify(ps, NotifyType(kind))
		if !ok || n.Kind.IsError() != (kind < 16384) {
			t.Fatalf("kind %d: found %v, error %v", kind, ok, ok && n.Kind.IsError())
		}
	}
}

func TestDelete(t *testing.T) {
	checkCodec(t, []codecTest{
		{name: "the IKE SA", body: "01 00 0000", want: &Delete{Protocol: ProtoIKE}},
		{name: "one ESP SA", body: "03 04 0001 c0000001", want: &Delete{ProtoESP, []uint32{0xc0000001}}},
		{name: "two AH SAs", body: "02 04 0002 c0000001 00000100", want: &Delete{ProtoAH, []uint32{0xc0000001, 0x100}}},
		{name: "no ESP SA", body: "03 04 0000", want: &Delete{Protocol: ProtoESP}},
		{name: "very many", body: "03 04 3ffd" + strings.Repeat("00000101", 0x3ffd),
			want: &Delete{ProtoESP, repeat(0x101, 0x3ffd)}},
	})
	checkRefusals(t, TypeDelete, []refusal{
		{"empty", "", "needs 1 bytes, 0 are left"},
		{"half a header", "03 04 00", "needs 2 bytes, 1 are left"},
		{"IKE with a size", "01 08 0000", "0 SPIs of 8 bytes for the IKE SA"},
		{"IKE with a count", "01 00 0001", "1 SPIs of 0 bytes for the IKE SA"},
		{"IKE with an SPI", "01 08 0001 0102030405060708", "for the IKE SA"},
		{"ESP without size", "03 00 0000", "SPIs of 0 bytes for ESP"},
		{"ESP with an SPI of IKE", "03 08 0001 0102030405060708", "SPIs of 8 bytes for ESP"},
		{"AH without size", "02 00 0001", "SPIs of 0 bytes for AH"},
		{"no protocol", "00 00 0000", "protocol 0"},
		{"unknown protocol", "04 04 0001 c0000001", "protocol 4"},
		{"fewer than announced", "03 04 0002 c0000001", "2 SPIs announced, 4 bytes"},
		{"far fewer than announced", "03 04 ffff c0000001", "65535 SPIs announced, 4 bytes"},
		{"more than announced", "03 04 0001 c0000001 c0000002", "1 SPIs announced, 8 bytes"},
		{"none announced", "03 04 0000 c0000001", "0 SPIs announced, 4 bytes"},
		{"IKE with bytes behind", "01 00 0000 00", "0 SPIs announced, 1 bytes"},
		{"half an SPI", "03 04 0002 c0000001 c000", "2 SPIs announced, 6 bytes"},
	})
}

func repeat(spi uint32, n int) []uint32 {
	spis := make([]uint32, n)
	for i := range spis {
		spis[i] = spi
	}
	return spis
}
