package gateway

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike/tun"
)

// TestMTU: the interface has room for the largest, and a pool's route for the
// smallest of its connections.
func TestMTU(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("10.99.0.0/16"), netip.MustParsePrefix("2001:db8:99::/64")
	pools := []config.Pool{{Name: "v4", Addresses: v4}, {Name: "v6", Addresses: v6}}
	both := []string{"v4", "v6"}
	for _, c := range []struct {
		name        string
		connections []config.Connection
		device      int
		v4, v6      int
	}{
		{"none", nil, 1280, 0, 0},
		{"auto", []config.Connection{{Pools: both}}, 1400, 1400, 1400},
		{"one", []config.Connection{{MTU: 1300, Pools: both}}, 1300, 1300, 1300},
		{"too small for IPv6", []config.Connection{{MTU: 1180, Pools: both[:1]}}, 1280, 1180, 0},
		{"small and auto", []config.Connection{{MTU: 1180, Pools: both[:1]}, {Pools: both}, {MTU: 1380}}, 1400, 1180, 1400},
		{"large and auto", []config.Connection{{MTU: 8900, Pools: both[1:]}, {Pools: both}}, 8900, 1400, 1400},
	} {
		cfg := &config.Config{Connections: c.connections, Pools: pools}
		if got := deviceMTU(cfg); got != c.device {
			t.Errorf("%s: the interface has %d, want %d", c.name, got, c.device)
		}
		want := []tun.Route{{To: v4, MTU: c.v4}, {To: v6, MTU: c.v6}}
		if got := poolRoutes(cfg); !slices.Equal(got, want) {
			t.Errorf("%s: routes %v, want %v", c.name, got, want)
		}
	}
}
