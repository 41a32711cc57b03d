package gateway

import (
	"fmt"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike"
)

// withoutIPv6 leaves no address in the pools of IPv6: nobody is given what no
// packet could be carried for. A pool stays, so that a connection that has no
// other gives none away, rather than doing without.
func withoutIPv6(c ike.Config) ike.Config {
	for n, p := range c.Pools {
		if p.Prefixes[0].Addr().Is6() {
			c.Pools[n].Prefixes = nil
		}
	}
	return c
}

// ipv6Problems says what off, the setting without which there would be IPv6,
// keeps from those who would use it.
func ipv6Problems(off string, pools []config.Pool) (all []string) {
	for _, p := range pools {
		if off != "" && p.Addresses.Addr().Is6() {
			all = append(all, fmt.Sprintf("pool %s (%v) gives no address: %s; IPv4 goes on; put it right and restart the daemon", p.Name, p.Addresses, off))
		}
	}
	return all
}
