package gateway

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike/barrier"
)

// deaf is a filter of a kernel that lacks nft_socket.
type deaf struct{ barrier.Filter }

func (deaf) Hears() bool { return false }

// hearing is that of a kernel that has it.
type hearing struct{ barrier.Filter }

func (hearing) Hears() bool { return true }

// TestUnheard: status names the covered name servers that a filter does not let
// answer, and no others.
func TestUnheard(t *testing.T) {
	servers := addresses("9.9.9.9", "192.168.1.1", "127.0.0.53")
	for _, c := range []struct {
		what   string
		filter barrier.Filter
		host   config.Host
		bypass []netip.Prefix
		says   string // "": nothing
	}{
		{"it hears", hearing{}, config.Host{Name: "vpn.example.org"}, nil, ""},
		{"it is deaf", deaf{}, config.Host{Name: "vpn.example.org"}, nil, "no nft_socket, by which we would hear 9.9.9.9, whom"},
		{"no name", deaf{}, config.Host{Addr: netip.MustParseAddr("203.0.113.7")}, nil, ""},
		{"spared", deaf{}, config.Host{Name: "vpn.example.org"}, []netip.Prefix{netip.MustParsePrefix("9.9.9.9/32")}, ""},
	} {
		conf := &config.Config{Unprotected: "block", Bypass: c.bypass, Connections: []config.Connection{{
			Remote:   config.Party{Addresses: []config.Host{c.host}},
			Children: []config.Child{{RemoteTS: []config.Selector{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}}}}}}}
		covered := covers(conf)
		g := &guard{named: len(remoteNames(conf)) > 0, filters: []barrier.Filter{c.filter},
			plan: covered.Plan(barrier.Host{Attached: []barrier.Attached{{Network: netip.MustParsePrefix("192.168.1.0/24"), Interface: "eth0"}}})}
		b := Barriers{Unheard: g.unheard(servers)}
		if got := strings.Join(b.problems(), "\n"); c.says == "" && got != "" || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q, want %q", c.what, got, c.says)
		}
	}
}
