package main

import (
	"encoding/binary"
	"math/rand/v2"
)

// Where the parts of a spoofed first message stand.
const (
	ipHeader   = 20
	udpHeader  = 8
	ikeHeader  = 28
	saPayload  = 40
	kePayload  = 40
	nonceBytes = 36
	ikeAt      = ipHeader + udpHeader
	keAt       = ikeAt + ikeHeader + saPayload
	nonceAt    = keAt + kePayload
	firstSize  = nonceAt + nonceBytes
)

// offer is the SA payload: AES-128-GCM, HMAC-SHA-256, X25519. RFC 7296 §3.3
var offer = []byte{
	34, 0, 0, saPayload, // KE follows
	0, 0, 0, 36, 1, 1, 0, 3,
	3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 0, 128,
	3, 0, 0, 8, 2, 0, 0, 5,
	0, 0, 0, 8, 4, 0, 0, 31,
}

// newFirst is an IPv4 packet with an IKE_SA_INIT request that any responder of
// this configuration takes. It is the shortest such, so that an answer which is
// longer than its request shows. The kernel fills in lengths and checksum of the
// header; UDP has none.
func newFirst() []byte {
	b := make([]byte, firstSize)
	b[0], b[8], b[9] = 4<<4|ipHeader/4, 64, 17
	to := gatewayAddr.As4()
	copy(b[16:], to[:])
	udp := b[ipHeader:]
	binary.BigEndian.PutUint16(udp, 500)
	binary.BigEndian.PutUint16(udp[2:], 500)
	binary.BigEndian.PutUint16(udp[4:], firstSize-ipHeader)
	ike := b[ikeAt:]
	ike[16], ike[17], ike[18], ike[19] = 33, 0x20, 34, 0x08 // SA follows; version, exchange, initiator
	binary.BigEndian.PutUint32(ike[24:], firstSize-ikeAt)
	copy(ike[ikeHeader:], offer)
	copy(b[keAt:], []byte{40, 0, 0, kePayload, 0, 31}) // the nonce follows
	b[nonceAt+3] = nonceBytes
	return b
}

// renew makes another client's message of it: another address, SPI, public value
// and nonce.
func renew(b []byte, r *rand.ChaCha8) {
	from := spoofed.Addr().As4()
	host := uint32(r.Uint64()) & (1<<(32-spoofed.Bits()) - 1)
	binary.BigEndian.PutUint32(b[12:], binary.BigEndian.Uint32(from[:])|host)
	for _, part := range [][]byte{b[ikeAt : ikeAt+8], b[keAt+8 : nonceAt], b[nonceAt+4:]} {
		r.Read(part)
	}
}
