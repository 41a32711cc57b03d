package tun

import "net/netip"

// minIPv6MTU is the least that a link may have. RFC 8200 §5
const minIPv6MTU = 1280

// metric is the MTU that a route needs beside its interface's, or 0. IPv6 keeps
// its least MTU: what a path then does not take is fragmented outside.
func metric(to netip.Prefix, mtu, device int) int {
	if mtu == 0 {
		return 0
	}
	if to.Addr().Is6() {
		mtu = max(mtu, minIPv6MTU)
	}
	if mtu >= device {
		return 0
	}
	return mtu
}

// mtuOf is the MTU of a tunnel that was given this one, 0 for none.
func (d *Device) mtuOf(given int) int { return min(orDefault(given, DefaultMTU), d.net.mtu) }
