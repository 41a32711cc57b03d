package gateway

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/loader"
)

// HiddenNetworks says which networks that this host is on lie in what a tunnel
// covers. It is not asked on a host that has none of the listen addresses: the
// configuration is for another.
func HiddenNetworks(c *config.Config) (all []string) {
	host := hostHere()
	here := func(a barrier.Attached) bool { return slices.Contains(c.Listen.Addresses, a.Address) }
	if !slices.ContainsFunc(host.Attached, here) {
		return nil
	}
	config := covers(c)
	for _, hidden := range config.Plan(host).Hidden {
		all = append(all, hiddenText(hidden))
	}
	return all
}

// hostHere is what this host has, beside what is the default instance's own;
// nothing, if it cannot be looked at.
func hostHere() barrier.Host {
	names := NamesOf(loader.DefaultInstance)
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return barrier.Host{}
	}
	defer h.Close()
	host, err := barrier.Look(h, names.TUN, names.Table)
	if err != nil {
		return barrier.Host{}
	}
	return host
}

// covers is what a configuration says of barriers.
func covers(c *config.Config) barrier.Config {
	out := barrier.Config{Bypass: c.Bypass, Listen: c.Listen.Addresses, Pass: c.Unprotected == "pass"}
	for _, p := range c.Pools {
		out.Pools = append(out.Pools, p.Addresses)
	}
	for i := range c.Connections {
		conn := &c.Connections[i]
		out.Peers = append(out.Peers, conn.Remote.Literal()...)
		for _, ch := range conn.Children {
			out.Tunnels = append(out.Tunnels, barrier.Tunnel{Name: conn.Name, Local: fixed(ch.LocalTS), Remote: fixed(ch.RemoteTS)})
		}
	}
	return out
}

// fixed are the prefixes that do not depend on a peer's address.
func fixed(selectors []config.Selector) (out []netip.Prefix) {
	for _, s := range selectors {
		if !s.Dynamic {
			out = append(out, s.Prefix.Masked())
		}
	}
	return out
}

func hiddenText(h barrier.Hidden) string {
	return fmt.Sprintf("the network %v of %s lies in %v, which the tunnel of %s covers: its hosts cannot be reached; give it as local_ts, or as bypass",
		h.Network, h.Interface, h.Remote, h.Tunnel)
}

// coversWorld reports whether a tunnel is for all addresses of a family.
func coversWorld(c *config.Config) bool {
	return slices.ContainsFunc(covers(c).Tunnels, func(t barrier.Tunnel) bool {
		return slices.ContainsFunc(t.Remote, func(p netip.Prefix) bool { return p.Bits() == 0 })
	})
}
