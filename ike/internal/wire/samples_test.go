package wire

import (
	"bytes"
	"net/netip"
)

// Messages of our own making, as a gateway and its clients exchange them: the
// subjects of the hostile tests and the seeds of the fuzz targets.

func filled(n int, v byte) []byte { return bytes.Repeat([]byte{v}, n) }

func sampleIKEOffer(spi []byte) *SA {
	return &SA{[]Proposal{
		{Number: 1, Protocol: ProtoIKE, SPI: spi, Transforms: []Transform{
			{Type: TransformEncr, ID: EncrAESGCM16, KeyBits: 256},
			{Type: TransformEncr, ID: EncrAESGCM16, KeyBits: 128},
			{Type: TransformEncr, ID: EncrChaCha20Poly1305},
			{Type: TransformPRF, ID: PRFHMACSHA384},
			{Type: TransformKE, ID: KEX25519},
			{Type: TransformKE, ID: KEECP256},
		}},
		{Number: 2, Protocol: ProtoIKE, SPI: spi, Transforms: []Transform{
			{Type: TransformEncr, ID: EncrAESCBC, KeyBits: 256},
			{Type: TransformInteg, ID: IntegSHA256128},
			{Type: TransformPRF, ID: PRFHMACSHA256},
			{Type: TransformKE, ID: KEMODP2048},
		}},
	}}
}

func sampleESPOffer() *SA {
	return &SA{[]Proposal{{Number: 1, Protocol: ProtoESP, SPI: []byte{0xc1, 2, 3, 4}, Transforms: []Transform{
		{Type: TransformEncr, ID: EncrAESGCM16, KeyBits: 256},
		{Type: TransformESN, ID: ESNYes},
		{Type: TransformESN, ID: ESNNo},
	}}}}
}

func sampleTS(t PayloadType) *TS {
	ip := netip.MustParseAddr
	return &TS{t, []Selector{
		{0, 0, 65535, ip("10.7.0.0"), ip("10.7.255.255")},
		{17, 65535, 0, ip("2001:db8::"), ip("2001:db8::ffff")},
	}}
}

// sampleMessages have every payload that stands outside encryption.
func sampleMessages() []*Message {
	request := func(x ExchangeType, id uint32, ps ...Payload) *Message {
		return &Message{Header{SPIi: 0x0102030405060708, SPIr: 0x1112131415161718, Exchange: x, Flags: FlagInitiator, MessageID: id}, ps}
	}
	return []*Message{
		request(IKESAInit, 0, sampleIKEOffer(nil), &KE{KEX25519, filled(32, 7)}, &Nonce{filled(32, 9)},
			&Notify{Kind: NATDetectionSource, Data: filled(20, 1)}, &Notify{Kind: NATDetectionDest, Data: filled(20, 2)},
			&Raw{T: TypeVendor, Data: []byte("a vendor")}, &Raw{T: 200, Data: []byte("unknown")}),
		request(IKESAInit, 0, &Notify{Kind: Cookie, Data: filled(32, 3)}, &Raw{T: TypeCReq, Data: filled(21, 4)}),
		request(IKESAInit, 0, &Notify{Kind: InvalidKEPayload, Data: []byte{0, 19}}),
		request(IKEAuth, 1, &Encrypted{Next: TypeIDi, Body: filled(60, 0xe5)}),
		request(Informational, 2, &Encrypted{Next: NoNext, Body: filled(28, 0xe6)}),
		request(IKEAuth, 1, &Notify{Kind: MOBIKESupported}, &Raw{T: TypeSKF, Next: TypeIDi, Data: filled(64, 0xe7)}),
		request(IKEAuth, 1, &ID{TypeIDi, IDFQDN, []byte("client.test")}, &Auth{AuthSharedKey, filled(32, 5)},
			&Delete{Protocol: ProtoIKE}, &CP{Kind: CFGRequest}, sampleTS(TypeTSi)),
		request(Informational, 3),
	}
}

// sampleChains are what SK payloads have inside.
func sampleChains() [][]Payload {
	return [][]Payload{
		{&ID{TypeIDi, IDFQDN, []byte("client.test")}, &Raw{T: TypeCert, Data: filled(40, 1)}, &Notify{Kind: InitialContact},
			&ID{TypeIDr, IDIPv4, []byte{198, 51, 100, 1}}, &Auth{AuthSharedKey, filled(48, 5)},
			&CP{CFGRequest, []CPAttr{{CPInternalIP4Address, nil}, {CPInternalIP6Address, filled(17, 8)}, {0x7000, []byte("x")}}},
			sampleESPOffer(), sampleTS(TypeTSi), sampleTS(TypeTSr), &Raw{T: TypeEAP, Data: filled(5, 6)}},
		{&Notify{ProtoESP, []byte{0xc1, 2, 3, 4}, RekeySA, nil}, sampleESPOffer(), &Nonce{filled(16, 9)},
			&KE{KEECP256, filled(64, 7)}, sampleTS(TypeTSi), sampleTS(TypeTSr)},
		{sampleIKEOffer(filled(8, 0x33)), &Nonce{filled(256, 9)}, &KE{KEX25519, filled(32, 7)}},
		{&Delete{ProtoESP, []uint32{0xc1020304, 256}}, &Delete{Protocol: ProtoIKE}, &Notify{Kind: AuthenticationFailed}},
		{},
	}
}
