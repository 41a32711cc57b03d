package gateway

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike/barrier"
)

func addresses(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// TestCachingResolver: check names a resolver of this host that asks by the
// tunnel, with whom to spare, and is silent where names are found.
func TestCachingResolver(t *testing.T) {
	home := barrier.Host{Attached: []barrier.Attached{{Network: netip.MustParsePrefix("192.168.1.0/24"), Interface: "eth0"}}}
	for _, c := range []struct {
		what               string
		servers, upstreams []netip.Addr
		change             func(*config.Config)
		says               string // "": nothing
	}{
		{"by address", addresses("9.9.9.9"), nil, nil, ""},
		{"a second one by address", addresses("127.0.0.1", "9.9.9.9"), nil, nil, ""},
		{"a resolver of whom nothing is known", addresses("127.0.0.1", "::1"), nil, nil,
			"127.0.0.1 is a resolver of this host, which asks others by the tunnel: vpn.example.org is not found while that is down, unless they are in bypass"},
		{"systemd-resolved", addresses("127.0.0.53"), addresses("9.9.9.9", "2620:fe::fe"), nil,
			"which asks 9.9.9.9, 2620:fe::fe by the tunnel: vpn.example.org is not found while that is down; bypass: [9.9.9.9, 2620:fe::fe], or a nameserver"},
		{"the router is asked", addresses("127.0.0.53"), addresses("192.168.1.1"), nil, ""},
		{"one of two is spared", addresses("127.0.0.53"), addresses("9.9.9.9", "149.112.112.112"), func(c *config.Config) {
			c.Bypass = []netip.Prefix{netip.MustParsePrefix("9.9.9.9/32")}
		}, ""},
		{"no name", addresses("127.0.0.53"), nil, func(c *config.Config) {
			c.Connections[0].Remote.Addresses = []config.Host{{Addr: netip.MustParseAddr("203.0.113.7")}}
		}, ""},
		{"nothing is blocked", addresses("127.0.0.53"), nil, func(c *config.Config) { c.Unprotected = "pass" }, ""},
		{"a tunnel to one network", addresses("127.0.0.53"), nil, func(c *config.Config) {
			c.Connections[0].Children[0].RemoteTS = []config.Selector{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}
		}, ""},
		{"a tunnel to the network of those", addresses("127.0.0.53"), addresses("10.1.1.1"), func(c *config.Config) {
			c.Connections[0].Children[0].RemoteTS = []config.Selector{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}
		}, "asks 10.1.1.1 by the tunnel"},
	} {
		conf := &config.Config{Unprotected: "block", Connections: []config.Connection{{Remote: config.Party{Addresses: []config.Host{{Name: "vpn.example.org"}}},
			Children: []config.Child{{RemoteTS: []config.Selector{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Prefix: netip.MustParsePrefix("::/0")}}}}}}}
		if c.change != nil {
			c.change(conf)
		}
		got := facts{nameServers: c.servers, upstreams: c.upstreams, host: home}.cachingProblem(conf)
		if c.says == "" && got != "" || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q, want %q", c.what, got, c.says)
		}
	}
}

func TestNameServers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	for text, want := range map[string][]netip.Addr{
		"# nameserver 9.9.9.9\n;nameserver 1.1.1.1\nsearch example.org\n": addresses("127.0.0.1", "::1"),
		"nameserver 127.0.0.53\noptions edns0\n":                          addresses("127.0.0.53"),
		"nameserver 9.9.9.9\n\tnameserver fe80::1%eth0\nnameserver x\n":   addresses("9.9.9.9", "fe80::1"),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := nameServers(file); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	if got := nameServers(file + ".none"); len(got) != 2 {
		t.Errorf("without a file: %v", got)
	}
}

func TestByTunnel(t *testing.T) {
	failed := func(server string, missing bool) error {
		return &net.DNSError{Err: "server misbehaving", Name: "vpn.example.org", Server: server, IsNotFound: missing}
	}
	const why = "asks others by the tunnel"
	for _, c := range []struct {
		err  error
		want bool
	}{
		{failed("127.0.0.53:53", false), true}, {failed("[::1]:53", false), true}, {failed("127.0.0.53:53", true), false},
		{failed("9.9.9.9:53", false), false}, {failed("", false), false}, {errors.New("else"), false},
	} {
		if got := byTunnel(c.err).Error(); strings.Contains(got, why) != c.want {
			t.Errorf("%v: %s", c.err, got)
		}
	}
	if err := byTunnel(nil); err != nil {
		t.Error(err)
	}
}

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
