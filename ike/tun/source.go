package tun

import (
	"net/netip"
	"slices"

	"github.com/ikepulse/ikepulse/ike/barrier"
)

// source is an inner source that a tunnel may bring by a plan.
type source struct {
	addr netip.Addr
	plan uint64 // its number
}

// brings reports whether a packet that a tunnel was agreed for may come by it:
// not if its source stays outside, as our next hop and our neighbours do under
// a tunnel for everything, and not if another tunnel is for it, up or not. Else
// whoever is at the other end could speak for them. A gateway may speak for its
// own outer address, though that is outside: it tells so of what it cannot pass
// on. What no host sends from, and what we were given to send from, comes from
// nobody, though a kernel may be told to take it.
func (t *tunnel) brings(inner []byte, plan *barrier.Plan) bool {
	src, _, ok := addressesOf(inner)
	if !ok {
		return false
	}
	// Many come from the same: that is remembered.
	if s := (source{src, plan.Number()}); s != t.source {
		switch {
		case src.IsLoopback(), src.IsMulticast(), src.IsUnspecified(), src.Is4In6(), slices.Contains(t.virtual, src):
			return false
		case !t.holds(src, plan) && src != t.path.Remote.Addr():
			return false
		}
		t.source = s
	}
	return true
}

// holds reports whether an address is in a network of the tunnel that is not
// wider than what the plan has for it.
func (t *tunnel) holds(a netip.Addr, plan *barrier.Plan) bool {
	least, ok := plan.Tunnel(a)
	return ok && slices.ContainsFunc(t.routes, func(r netip.Prefix) bool { return r.Bits() >= least && r.Contains(a) })
}
