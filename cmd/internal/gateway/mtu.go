package gateway

import (
	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike/tun"
)

// mtu is the MTU of a connection's tunnels.
func mtu(c *config.Connection) int {
	if c.MTU == 0 {
		return tun.DefaultMTU
	}
	return c.MTU
}

// deviceMTU is that of the one interface: the largest of any tunnel's, and
// enough for the kernel to do IPv6 on it.
func deviceMTU(c *config.Config) int {
	largest := config.MinIPv6MTU
	for i := range c.Connections {
		largest = max(largest, mtu(&c.Connections[i]))
	}
	return largest
}

// poolRoutes lead to the pools, each with the smallest MTU of the connections
// that give out its addresses.
func poolRoutes(c *config.Config) (out []tun.Route) {
	smallest := map[string]int{}
	for i := range c.Connections {
		conn := &c.Connections[i]
		for _, name := range conn.Pools {
			if now, there := smallest[name]; !there || mtu(conn) < now {
				smallest[name] = mtu(conn)
			}
		}
	}
	for _, p := range c.Pools {
		out = append(out, tun.Route{To: p.Addresses, MTU: smallest[p.Name]})
	}
	return out
}
