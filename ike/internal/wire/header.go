package wire

import (
	"encoding/binary"
	"fmt"
)

// HeaderLen is the size of the IKE header. RFC 7296 §3.1
const HeaderLen = 28

// version2 is the version octet that we send: major 2, minor 0.
const version2 = 0x20

// Header is the IKE header.
//
//	                     1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       IKE SA Initiator's SPI                  |
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       IKE SA Responder's SPI                  |
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                          Message ID                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                            Length                             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// RFC 7296 §3.1
type Header struct {
	SPIi, SPIr uint64
	Next       PayloadType
	Version    uint8 // major in the high four bits, minor in the low
	Exchange   ExchangeType
	Flags      Flags
	MessageID  uint32
	Length     uint32
}

// Major is the major version: 2 for IKEv2.
func (h Header) Major() uint8 { return h.Version >> 4 }

// ParseHeader reads the header alone. It judges neither version nor length, so
// that the caller can tell whom a message is for and whether it gets an answer.
func ParseHeader(b []byte) (Header, error) {
	c := newCursor(b)
	h := c.header()
	return h, c.run.err
}

func (c *cursor) header() Header {
	return Header{
		SPIi:      c.u64(),
		SPIr:      c.u64(),
		Next:      PayloadType(c.u8()),
		Version:   c.u8(),
		Exchange:  ExchangeType(c.u8()),
		Flags:     Flags(c.u8()),
		MessageID: c.u32(),
		Length:    c.u32(),
	}
}

// Append writes the header as it stands: the caller has set Version, Next and
// Length, as whoever seals a message must.
func (h Header) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, h.SPIi)
	dst = binary.BigEndian.AppendUint64(dst, h.SPIr)
	dst = append(dst, byte(h.Next), h.Version, byte(h.Exchange), byte(h.Flags))
	dst = binary.BigEndian.AppendUint32(dst, h.MessageID)
	return binary.BigEndian.AppendUint32(dst, h.Length)
}

// VersionError refuses a message whose major version is not 2. A lower one
// gets no bytes (RFC 9395 retired IKEv1); a higher one may be told
// INVALID_MAJOR_VERSION. RFC 7296 §2.5
type VersionError struct{ Version uint8 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("IKE version %d.%d, only 2 is spoken", e.Version>>4, e.Version&15)
}
