package loadtest

import "net/netip"

// Hosts are the addresses of a prefix that a host may have, the first most of
// them. RFC 4291 §2.6.1 keeps the first of an IPv6 prefix for its routers.
func Hosts(p netip.Prefix, most int) (out []netip.Addr) {
	p = p.Masked()
	a := p.Addr()
	some := p.Bits() <= a.BitLen()-2 // else every address is a host's. RFC 3021, RFC 6164
	if some {
		a = a.Next()
	}
	for len(out) < most && p.Contains(a) {
		next := a.Next()
		broadcast := some && a.Is4() && !p.Contains(next)
		if !broadcast {
			out = append(out, a)
		}
		a = next
	}
	return out
}
