package sa

import (
	"net/netip"
	"slices"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// addressAttrs asks for addresses and for DNS servers of their families.
func addressAttrs(want []netip.Addr) []wire.CPAttr {
	var attrs []wire.CPAttr
	for _, a := range want {
		attr := wire.CPAttr{Type: addressKind(a)}
		if !a.IsUnspecified() {
			attr.Value = addressValue(a)
		}
		attrs = append(attrs, attr, wire.CPAttr{Type: dnsKind(a)})
	}
	return attrs
}

// addressKind and dnsKind are the attributes of an address's family.
func addressKind(a netip.Addr) uint16 {
	if a.Is4() {
		return wire.CPInternalIP4Address
	}
	return wire.CPInternalIP6Address
}

func dnsKind(a netip.Addr) uint16 {
	if a.Is4() {
		return wire.CPInternalIP4DNS
	}
	return wire.CPInternalIP6DNS
}

// addressValue is the value of INTERNAL_IP4_ADDRESS, or of its IPv6 twin,
// which has a prefix length behind the address. RFC 7296 §3.15.1
func addressValue(a netip.Addr) []byte {
	if a.Is4() {
		return a.AsSlice()
	}
	return append(a.AsSlice(), 128)
}

// addressSize is the length of the address in an attribute that has one of a
// host, 0 for any other.
func addressSize(t uint16) int {
	switch t {
	case wire.CPInternalIP4Address:
		return 4
	case wire.CPInternalIP6Address:
		return 16
	}
	return 0
}

// addressOf is the address that an attribute names. It is unspecified, which
// asks for any, if the value is empty or no address: what a client would like to
// have is no reason to refuse him. Some leave out the prefix length of IPv6.
func addressOf(at wire.CPAttr) netip.Addr {
	v, size := at.Value, addressSize(at.Type)
	if size == 16 && len(v) == 17 {
		v = v[:16]
	}
	if len(v) != size {
		v = make([]byte, size)
	}
	a, _ := netip.AddrFromSlice(v)
	return a
}

// wanted are the addresses that a CFG_REQUEST asks for, one a family: the first.
func (a *authMessage) wanted() (out []netip.Addr) {
	if a.cp == nil || a.cp.Kind != wire.CFGRequest {
		return nil
	}
	var have []uint16
	for _, at := range a.cp.Attrs {
		if addressSize(at.Type) != 0 && !slices.Contains(have, at.Type) {
			have = append(have, at.Type)
			out = append(out, addressOf(at))
		}
	}
	return out
}

// asks reports whether an attribute is in a request.
func asks(cp *wire.CP, kind uint16) bool {
	return slices.ContainsFunc(cp.Attrs, func(at wire.CPAttr) bool { return at.Type == kind })
}

// configReply is what a request asks for and can have. What it asks for beside
// that is left out, and so is what it does not ask for. RFC 7296 §3.15.1
func configReply(asked *wire.CP, c Admitted) *wire.CP {
	cp := &wire.CP{Kind: wire.CFGReply}
	for _, a := range c.Addrs {
		cp.Attrs = append(cp.Attrs, wire.CPAttr{Type: addressKind(a), Value: addressValue(a)})
	}
	for _, a := range c.DNS {
		if asks(asked, dnsKind(a)) {
			cp.Attrs = append(cp.Attrs, wire.CPAttr{Type: dnsKind(a), Value: a.AsSlice()})
		}
	}
	if asks(asked, wire.CPInternalDNSDomain) {
		cp.Attrs = append(cp.Attrs, domainAttrs(cp, c.Domains)...)
	}
	return cp
}

// domainAttrs are the domains of those servers that a reply gives: a client that
// has none would have nobody to ask. RFC 8598 §3.2
func domainAttrs(reply *wire.CP, domains []policy.Domain) (attrs []wire.CPAttr) {
	var given []string
	for _, d := range domains {
		server := wire.CPInternalIP4DNS
		if d.IPv6 {
			server = wire.CPInternalIP6DNS
		}
		if asks(reply, server) && !slices.Contains(given, d.Name) {
			given = append(given, d.Name)
			attrs = append(attrs, wire.CPAttr{Type: wire.CPInternalDNSDomain, Value: []byte(d.Name)})
		}
	}
	return attrs
}
