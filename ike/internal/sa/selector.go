package sa

import (
	"net/netip"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// maxSelectors bounds each side of a Child SA: they have a fixed place in its
// record.
const maxSelectors = 4

// single is the selector of one address, any protocol and port.
func single(a netip.Addr) wire.Selector {
	return wire.Selector{EndPort: 65535, Start: a, End: a}
}

// whole is the selector of all addresses of a's family.
func whole(a netip.Addr) wire.Selector {
	if a.Is4() {
		return wire.Selector{EndPort: 65535, Start: netip.IPv4Unspecified(), End: netip.AddrFrom4([4]byte{255, 255, 255, 255})}
	}
	end := [16]byte{}
	for i := range end {
		end[i] = 255
	}
	return wire.Selector{EndPort: 65535, Start: netip.IPv6Unspecified(), End: netip.AddrFrom16(end)}
}

// narrow is what both sides want: each offered selector cut to each of ours,
// in the order of the offer, so that the packet that started it (which comes
// first) stays covered. RFC 7296 §2.9
func narrow(own, offered []wire.Selector) []wire.Selector {
	var out []wire.Selector
	for _, o := range offered {
		for _, w := range own {
			if s, ok := intersect(o, w); ok && !covered(s, out) && len(out) < maxSelectors {
				out = append(out, s)
			}
		}
	}
	return out
}

func intersect(a, b wire.Selector) (wire.Selector, bool) {
	s := a
	if a.Start.BitLen() != b.Start.BitLen() {
		return s, false
	}
	if s.Start.Less(b.Start) {
		s.Start = b.Start
	}
	if b.End.Less(s.End) {
		s.End = b.End
	}
	if s.End.Less(s.Start) {
		return s, false
	}
	if s.Protocol == 0 {
		s.Protocol = b.Protocol
	} else if b.Protocol != 0 && b.Protocol != s.Protocol {
		return s, false
	}
	var ok bool
	s.StartPort, s.EndPort, ok = intersectPorts(a, b)
	return s, ok
}

// intersectPorts treats OPAQUE (start 65535, end 0) as a range of its own that
// only "any" contains. RFC 7296 §3.13.1
func intersectPorts(a, b wire.Selector) (start, end uint16, ok bool) {
	switch {
	case opaque(a) && (opaque(b) || anyPort(b)), opaque(b) && anyPort(a):
		return 65535, 0, true
	case opaque(a) || opaque(b):
		return 0, 0, false
	}
	start, end = max(a.StartPort, b.StartPort), min(a.EndPort, b.EndPort)
	return start, end, start <= end
}

func opaque(s wire.Selector) bool  { return s.StartPort == 65535 && s.EndPort == 0 }
func anyPort(s wire.Selector) bool { return s.StartPort == 0 && s.EndPort == 65535 }

// covered tells that one of the outer selectors contains s.
func covered(s wire.Selector, outer []wire.Selector) bool {
	for _, o := range outer {
		if cut, ok := intersect(s, o); ok && cut == s {
			return true
		}
	}
	return false
}

// within tells that an answer does not go beyond what was offered.
func within(answer, offered []wire.Selector) bool {
	for _, s := range answer {
		if !covered(s, offered) {
			return false
		}
	}
	return len(answer) > 0 && len(answer) <= maxSelectors
}
