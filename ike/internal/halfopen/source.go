package halfopen

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// source is whom a limit counts as one: an IPv4 address, or the /64 of an IPv6
// one, since that is what one host can choose from. RFC 8019 §4.3
type source struct {
	bits uint64
	v6   bool
}

func sourceOf(a netip.Addr) source {
	b := a.As16()
	if a.Is4() || a.Is4In6() {
		return source{bits: uint64(binary.BigEndian.Uint32(b[12:]))}
	}
	return source{bits: binary.BigEndian.Uint64(b[:]), v6: true}
}

// String is the address, or the prefix of an IPv6 source.
func (s source) String() string {
	if !s.v6 {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(s.bits)))).String()
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], s.bits)
	return fmt.Sprintf("%v/64", netip.AddrFrom16(b))
}
