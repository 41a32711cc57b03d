package replay

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/ikepulse/ikepulse/bpf"
)

// What is read of a frame, from IANA's registries.
const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd

	protocolHopByHop    = 0
	protocolUDP         = 17
	protocolRouting     = 43
	protocolFragment    = 44
	protocolESP         = 50
	protocolAH          = 51
	protocolDestination = 60
)

// target is what a frame is addressed to: what must be registered for it to be
// known. It is found here apart from the program, and no field of it is the
// program's.
type target struct {
	dst netip.Addr // not valid: not IP
	sa  SA         // Dst not valid: no SPI
	seq bool       // the sequence number is there, too

	// natt is the class of a datagram to the NAT-T port, by as much of its
	// payload as is there; empty: none.
	natt string
}

// inspect reads as far as it gets; the program judges what is wrong.
func inspect(frame []byte, nattPort uint16) target {
	etherType := binary.BigEndian.Uint16(frame[12:])
	rest := frame[ethernetHeader:]
	for range 2 {
		if (etherType == 0x8100 || etherType == 0x88a8) && len(rest) >= 4 {
			etherType, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
		}
	}
	switch {
	case etherType == etherIPv4 && len(rest) >= 20:
		return inspectIPv4(rest, nattPort)
	case etherType == etherIPv6 && len(rest) >= 40:
		return inspectIPv6(rest, nattPort)
	}
	return target{}
}

func inspectIPv4(b []byte, nattPort uint16) target {
	t := target{dst: netip.AddrFrom4([4]byte(b[16:20]))}
	header := int(b[0]&0xf) * 4
	first := b[6]&0x20 != 0
	b = b[:min(len(b), int(binary.BigEndian.Uint16(b[2:])))] // frames are padded
	if len(b) < max(header, 20) || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return t
	}
	return t.inspectPayload(b[9], b[header:], first, nattPort)
}

func inspectIPv6(b []byte, nattPort uint16) target {
	t := target{dst: netip.AddrFrom16([16]byte(b[24:40])).Unmap()}
	end := min(len(b), 40+int(binary.BigEndian.Uint16(b[4:])))
	protocol, b, first := b[6], b[40:end], false
	for slices.Contains([]byte{protocolHopByHop, protocolRouting, protocolFragment, protocolDestination}, protocol) && len(b) >= 8 {
		size := 8
		if protocol != protocolFragment {
			size += int(b[1]) * 8
		} else if binary.BigEndian.Uint16(b[2:])&0xfff8 != 0 {
			return t
		} else if b[3]&1 != 0 {
			first = true
		}
		if size > len(b) {
			return t
		}
		protocol, b = b[0], b[size:]
	}
	return t.inspectPayload(protocol, b, first, nattPort)
}

// inspectPayload adds the SA that the payload belongs to. IKE behind the
// non-ESP marker has SPI 0, which is none.
func (t target) inspectPayload(protocol byte, b []byte, first bool, nattPort uint16) target {
	switch {
	case protocol == protocolESP && len(b) >= 4:
		t.sa = SA{Dst: t.dst, SPI: binary.BigEndian.Uint32(b)}
		t.seq = len(b) >= 8
	case protocol == protocolAH && len(b) >= 8:
		t.sa = SA{Dst: t.dst, SPI: binary.BigEndian.Uint32(b[4:]), AH: true}
		t.seq = len(b) >= 12
	case protocol == protocolUDP && len(b) >= 8 && binary.BigEndian.Uint16(b[2:]) == nattPort:
		return t.inspectNATT(b[8:], first)
	}
	return t
}

func (t target) inspectNATT(b []byte, first bool) target {
	t.natt = classNATTShort
	if len(b) >= 4 {
		t.sa = SA{Dst: t.dst, SPI: binary.BigEndian.Uint32(b)}
		t.seq = len(b) >= 8
	}
	if t.sa.Dst.IsValid() && t.sa.SPI == 0 {
		t.natt = classIKENATT
	} else if t.seq {
		t.natt = classESPInUDP
	}
	if first {
		t.natt = classFirst + t.natt
	}
	return t
}

// class is the one of the program's reason, except where that says less than
// is there, or more: a datagram whose lengths disagree is still IKE or ESP, and
// one that was cut before the marker need not be IKE.
func (t target) class(reason bpf.Reason) string {
	class := classes[reason]
	if t.natt == "" {
		return class
	}
	kind := strings.TrimPrefix(class, classFirst)
	cut := (kind == classIKENATT || kind == classESPInUDP) && !t.sa.Dst.IsValid()
	if cut || reason == bpf.ReasonUDPLength {
		return t.natt
	}
	return class
}
