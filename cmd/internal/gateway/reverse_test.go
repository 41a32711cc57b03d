package gateway

import (
	"net/netip"
	"testing"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
)

func TestAnywhere(t *testing.T) {
	everything, everything6 := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
	address, name := config.Host{Addr: netip.MustParseAddr("203.0.113.7")}, config.Host{Name: "vpn.example.org"}
	for _, c := range []struct {
		what        string
		remote      netip.Prefix
		hosts       []config.Host
		unprotected string
		want        bool
	}{
		{"a peer who calls", everything, nil, "block", true},
		{"a peer with a name", everything, []config.Host{address, name}, "block", true},
		{"a peer with an address", everything, []config.Host{address}, "block", false},
		{"nothing of IPv4 is covered", everything6, nil, "block", false},
		{"nothing is blocked", everything, nil, "pass", false},
	} {
		conf := &config.Config{Unprotected: c.unprotected, Connections: []config.Connection{{Remote: config.Party{Addresses: c.hosts},
			Children: []config.Child{{RemoteTS: []config.Selector{{Prefix: c.remote}}}}}}}
		if got := anywhere(conf); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	dynamic := &config.Config{Unprotected: "block", Connections: []config.Connection{{Children: []config.Child{{RemoteTS: []config.Selector{{Dynamic: true}}}}}}}
	if anywhere(dynamic) {
		t.Error("roadwarriors cover nothing")
	}
}
