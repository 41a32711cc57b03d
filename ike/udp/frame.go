package udp

import "encoding/binary"

const (
	keepalive = 0xff // RFC 3948 §2.3
	ikeHeader = 28   // RFC 7296 §3.1
	espHeader = 8    // SPI and sequence number, RFC 4303 §2
)

// marker stands in front of IKE where ESP has its SPI, which is never 0.
// RFC 3948 §2.2
var marker [4]byte

// kind is what a datagram is.
type kind uint8

const (
	kindIKE kind = iota
	kindESP
	kindKeepalive
	kindShort
)

// classify tells what a datagram is and where its message begins. On the IKE
// port it can only be IKE; on a NAT traversal port the first four bytes tell.
// What could not even be a header is not worth an owner's time.
func classify(natt bool, b []byte) (kind, []byte) {
	switch {
	case !natt:
	case len(b) == 1 && b[0] == keepalive:
		return kindKeepalive, nil
	case len(b) < len(marker):
		return kindShort, nil
	case binary.BigEndian.Uint32(b) != 0:
		if len(b) < espHeader {
			return kindShort, nil
		}
		return kindESP, b
	default:
		b = b[len(marker):]
	}
	if len(b) < ikeHeader {
		return kindShort, nil
	}
	return kindIKE, b
}
