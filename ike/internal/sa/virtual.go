package sa

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

var (
	errAddress = errors.New("the peer gave no virtual address")
	errOutside = errors.New("the peer's traffic selectors do not hold the virtual address that it gave")
)

// AddressError is a virtual address that an initiator does not take.
type AddressError struct {
	Addr netip.Addr
	Why  string
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("the peer gave %v as our virtual address, %s", e.Addr, e.Why)
}

// given are the virtual addresses of the answer, one a family. Who asked for
// none takes none: RFC 7296 §3.15 lets us ignore what we do not expect. Who
// asked may be given another address than the one that he named, but none of a
// family that he did not name and none that is not a host's own to have.
func (s *SA) given(cp *wire.CP) ([]netip.Addr, error) {
	if len(s.rec.Conn.VIPs) == 0 {
		return nil, nil
	}
	if cp == nil || cp.Kind != wire.CFGReply {
		return nil, errAddress
	}
	var out []netip.Addr
	for _, at := range cp.Attrs {
		if addressSize(at.Type) == 0 || len(at.Value) == 0 { // an empty value: none of that family
			continue
		}
		a := addressOf(at)
		if why := s.unfit(a, out); why != "" {
			return nil, &AddressError{a, why}
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, errAddress
	}
	return out, nil
}

// unfit is why an address is not taken beside those that have been; "" if it
// is. What else this host has, its data plane knows.
func (s *SA) unfit(a netip.Addr, taken []netip.Addr) string {
	family := func(b netip.Addr) bool { return b.Is4() == a.Is4() }
	path := s.Path()
	switch {
	case !slices.ContainsFunc(s.rec.Conn.VIPs, family):
		return "of a family that was not asked for"
	case slices.ContainsFunc(taken, family):
		return "a second one of its family"
	case a == path.Local.Addr() || slices.Contains(s.env.Listen, a):
		return "which is this host's already"
	case a == path.Remote.Addr():
		return "which is its own"
	case s.env.Policy.Pinned(a):
		return "which is that of a configured peer"
	}
	return notUnicast(a)
}

// notUnicast is why no host may have an address for its own; "" if one may.
func notUnicast(a netip.Addr) string {
	switch {
	case a.Is4In6():
		return "an IPv4 address in the form of IPv6"
	case a.IsUnspecified():
		return "which is none"
	case a.IsLoopback():
		return "a loopback address"
	case a.IsMulticast():
		return "a multicast address"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	case a.Is4() && a.As4()[0] == 0:
		return "which is no host's" // RFC 1122 §3.2.1.3
	}
	return ""
}

// cut is our side of the Child SA: the answer, once addresses were given. What
// is "dynamic" in the configuration is those addresses and nothing beside them;
// a family that none was given of falls away. Where the configuration names our
// networks, they are what the tunnel carries, and the address must be in one.
func (s *SA) cut(answer []wire.Selector, vips []netip.Addr) ([]wire.Selector, error) {
	if len(vips) == 0 {
		return answer, nil
	}
	var own []wire.Selector
	for _, a := range vips {
		mine := []wire.Selector{single(a)}
		if len(narrow(mine, answer)) == 0 {
			return nil, errOutside
		}
		own = append(own, mine...)
	}
	if len(s.rec.Conn.Child.Local) > 0 {
		return answer, nil
	}
	return narrow(own, answer), nil
}
