package config

import (
	"fmt"
	"net/netip"
)

// Limits of a tunnel's MTU: what every IPv4 host takes, and what the largest
// frames have room for.
const (
	minMTU = 576
	maxMTU = 9000
)

// MinIPv6MTU is the least MTU of a link for IPv6. RFC 8200 §5
const MinIPv6MTU = 1280

// checkMTU finds what an MTU is too small for. Pools are looked at when all of
// them are known.
func (c *Connection) checkMTU(v value) {
	for _, a := range c.VIPs {
		if lessThanIPv6(c.MTU, a) {
			v.failKey("%s", tooSmallForIPv6(c.MTU, a))
			return
		}
	}
	for _, ch := range c.Children {
		for _, s := range append(ch.LocalTS[:len(ch.LocalTS):len(ch.LocalTS)], ch.RemoteTS...) {
			if !s.Dynamic && lessThanIPv6(c.MTU, s.Prefix.Addr()) {
				v.failKey("%s", tooSmallForIPv6(c.MTU, s))
				return
			}
		}
	}
}

// lessThanIPv6 is true for an MTU that is set, and too small for an address.
func lessThanIPv6(mtu int, a netip.Addr) bool { return mtu != 0 && mtu < MinIPv6MTU && a.Is6() }

func tooSmallForIPv6(mtu int, inside fmt.Stringer) string {
	return fmt.Sprintf("%s is IPv6, which needs an mtu of %d; this connection has %d", inside, MinIPv6MTU, mtu)
}
