package tun

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// maxRoutes bounds what one tunnel may put into the kernel's table: a range
// that a peer chose badly falls into hundreds of prefixes.
const maxRoutes = 64

// covers tells that an address lies in one of the selectors.
func covers(selectors []wire.Selector, a netip.Addr) bool {
	return slices.ContainsFunc(selectors, func(s wire.Selector) bool {
		return s.Start.Compare(a) <= 0 && a.Compare(s.End) <= 0
	})
}

// routesOf are the destinations that lead a tunnel's packets to it: its remote
// networks.
func routesOf(remote []wire.Selector) ([]netip.Prefix, error) {
	routes := prefixesOf(remote, maxRoutes+1)
	if len(routes) > maxRoutes {
		return nil, fmt.Errorf("the selectors need more than %d routes", maxRoutes)
	}
	return routes, nil
}

// prefixesOf are the prefixes that together make up the selectors' addresses,
// each once, in their order; it stops when there are so many.
func prefixesOf(selectors []wire.Selector, limit int) (out []netip.Prefix) {
	for _, s := range selectors {
		for from := s.Start; from.IsValid() && from.Compare(s.End) <= 0 && len(out) < limit; {
			p := widest(from, s.End)
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
			from = barrier.LastOf(p).Next()
		}
	}
	return out
}

// widest is the shortest prefix that begins at from and does not go beyond to.
func widest(from, to netip.Addr) netip.Prefix {
	p := netip.PrefixFrom(from, from.BitLen())
	for n := from.BitLen() - trailingZeros(from); n < from.BitLen(); n++ {
		if wider := netip.PrefixFrom(from, n); barrier.LastOf(wider).Compare(to) <= 0 {
			return wider
		}
	}
	return p
}

func trailingZeros(a netip.Addr) (n int) {
	b := a.AsSlice()
	for i := len(b) - 1; i >= 0; i-- {
		n += bits.TrailingZeros8(b[i])
		if b[i] != 0 {
			break
		}
	}
	return n
}
