package replay

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// SA names an inbound SA the way RFC 4301 section 4.1 does.
type SA struct {
	Dst netip.Addr
	SPI uint32
	AH  bool // else ESP, in UDP or not
}

// ParseSA reads DST/SPI, or DST/SPI/ah, the SPI in decimal or with 0x in
// hexadecimal. A 0 in front of decimal digits is refused: elsewhere they are
// octal, and other commands print hexadecimal ones so.
func ParseSA(s string) (SA, error) {
	rest, ah := strings.CutSuffix(s, "/ah")
	dst, number, _ := strings.Cut(rest, "/")
	address, err := netip.ParseAddr(dst)
	if err != nil || address.Zone() != "" {
		return SA{}, fmt.Errorf("%q: want DST/SPI, as in 192.0.2.1/0x12345678", s)
	}
	base := 10
	digits, ok := strings.CutPrefix(number, "0x")
	if ok {
		base = 16
	}
	spi, err := strconv.ParseUint(digits, base, 32)
	if err != nil || spi == 0 || !ok && digits[0] == '0' {
		return SA{}, fmt.Errorf("%q: want an SPI of 32 bits that is not 0, in decimal or as 0x12345678", s)
	}
	return SA{Dst: address.Unmap(), SPI: uint32(spi), AH: ah}, nil
}

// String is what [ParseSA] reads.
func (s SA) String() string {
	if s.AH {
		return s.key() + "/ah"
	}
	return s.key()
}

func (s SA) key() string { return fmt.Sprintf("%s/0x%08x", s.Dst, s.SPI) }

func (s SA) protocol() uint32 {
	if s.AH {
		return protocolAH
	}
	return protocolESP
}
