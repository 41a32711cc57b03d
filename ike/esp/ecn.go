package esp

import "encoding/binary"

// The ECN field. RFC 3168 §5
const (
	notECT = 0
	ect1   = 1
	ect0   = 2
	ce     = 3
)

// applyECN brings the outer ECN field into the inner packet, as the table of
// RFC 6040 §4.2 has it; ok is false where that says to drop the packet.
func applyECN(inner []byte, outer uint8) (ok bool) {
	ipv6 := inner[0]>>4 == 6
	field := inner[1] & 3
	if ipv6 {
		field = inner[1] >> 4 & 3
	}
	switch {
	case outer == ce && field == notECT:
		return false
	case outer == ce && field != ce, outer == ect1 && field == ect0:
		if ipv6 {
			inner[1] = inner[1]&^0x30 | outer<<4
		} else {
			setIPv4ECN(inner, outer)
		}
	}
	return true
}

// setIPv4ECN writes the field and mends the header checksum. RFC 1624 §3
func setIPv4ECN(b []byte, ecn uint8) {
	before := binary.BigEndian.Uint16(b)
	b[1] = b[1]&^3 | ecn
	after := binary.BigEndian.Uint16(b)
	sum := uint32(^binary.BigEndian.Uint16(b[10:])) + uint32(^before) + uint32(after)
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
}
