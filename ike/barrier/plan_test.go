package barrier

import (
	"fmt"
	"math/rand"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func addresses(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func attached(network, address string, permanent bool) Attached {
	return Attached{Network: netip.MustParsePrefix(network), Interface: "c0", Address: netip.MustParseAddr(address), Permanent: permanent}
}

func TestPlan(t *testing.T) {
	lan := attached("10.7.0.0/24", "10.7.0.2", true)
	hop := NextHop{Addr: netip.MustParseAddr("10.7.0.1")}
	everywhere := Tunnel{Name: "home", Remote: prefixes("0.0.0.0/0", "::/0")}
	for _, c := range []struct {
		name                 string
		config               Config
		host                 Host
		covered, spared, hop []string // addresses
		free                 []string
		hidden, replies      string
	}{
		{"a site", Config{Tunnels: []Tunnel{{Local: prefixes("10.0.0.0/8"), Remote: prefixes("10.20.0.0/16")}}}, Host{},
			[]string{"10.20.0.1", "10.20.255.255"}, nil, nil, []string{"10.21.0.0", "10.19.255.255", "10.0.0.1", "2001:db8::1"}, "", ""},
		{"a pool within our network", Config{Tunnels: []Tunnel{{Local: prefixes("10.0.0.0/8")}}, Pools: prefixes("10.99.0.0/24")}, Host{},
			[]string{"10.99.0.7"}, nil, nil, []string{"10.98.0.1"}, "", ""},
		{"our network within theirs", Config{Tunnels: []Tunnel{{Local: prefixes("10.20.0.0/16"), Remote: prefixes("10.0.0.0/8")}}}, Host{},
			[]string{"10.30.0.1"}, []string{"10.20.3.4"}, nil, nil, "", ""},
		{"a site within our network within theirs", Config{Tunnels: []Tunnel{
			{Local: prefixes("10.20.0.0/16"), Remote: prefixes("10.0.0.0/8")}, {Local: prefixes("10.20.0.0/16"), Remote: prefixes("10.20.5.0/24")}}},
			Host{}, []string{"10.30.0.1", "10.20.5.1"}, []string{"10.20.4.1"}, nil, nil, "", ""},
		{"a part of a pool is sent to everywhere", Config{Pools: prefixes("10.99.0.0/16"),
			Tunnels: []Tunnel{{Local: prefixes("10.99.5.0/24"), Remote: prefixes("0.0.0.0/0")}}}, Host{},
			[]string{"10.99.5.7", "10.99.6.7", "8.8.8.8"}, nil, nil, nil, "", ""},
		{"a part of a site is sent to everywhere", Config{Tunnels: []Tunnel{
			{Local: prefixes("0.0.0.0/0"), Remote: prefixes("10.20.0.0/16")}, {Local: prefixes("10.20.5.0/24"), Remote: prefixes("0.0.0.0/0")}}}, Host{},
			[]string{"10.20.5.7", "10.20.6.7", "8.8.8.8"}, nil, nil, nil, "", ""},
		{"our network within two of theirs", Config{Tunnels: []Tunnel{
			{Local: prefixes("10.20.0.0/16"), Remote: prefixes("0.0.0.0/0")}, {Local: prefixes("10.20.0.0/16"), Remote: prefixes("10.0.0.0/8")}}}, Host{},
			[]string{"10.30.0.1", "8.8.8.8"}, []string{"10.20.3.4"}, nil, nil, "", ""},
		{"everywhere, from a private network", Config{Tunnels: []Tunnel{everywhere}, Peers: addresses("198.51.100.1")},
			Host{Attached: []Attached{lan}, NextHops: []NextHop{hop}},
			[]string{"198.51.100.2", "10.8.0.1", "2001:db8::1", "224.0.1.1", "ff05::2"},
			[]string{"198.51.100.1", "10.7.0.1", "10.7.0.9", "fe80::1", "ff02::1", "224.0.0.18", "255.255.255.255"}, nil, nil, "", ""},
		{"everywhere, from a public network", Config{Tunnels: []Tunnel{everywhere}, Listen: addresses("203.0.113.2")},
			Host{Attached: []Attached{attached("203.0.113.0/24", "203.0.113.2", true)}},
			[]string{"203.0.113.80", "203.0.113.2"}, nil, nil, nil, "", ""},
		{"a public next hop, pushed", Config{Tunnels: []Tunnel{everywhere}},
			Host{NextHops: []NextHop{{netip.MustParseAddr("203.0.113.80"), true}}}, nil, nil, []string{"203.0.113.80"}, nil, "", ""},
		{"a public next hop, written down", Config{Tunnels: []Tunnel{everywhere}},
			Host{NextHops: []NextHop{{netip.MustParseAddr("203.0.113.80"), false}}}, nil, []string{"203.0.113.80"}, nil, nil, "", ""},
		{"everywhere at both ends", Config{Tunnels: []Tunnel{{Local: prefixes("0.0.0.0/0"), Remote: prefixes("0.0.0.0/0")}}, Listen: addresses("198.51.100.1")},
			Host{Attached: []Attached{attached("198.51.100.0/24", "198.51.100.1", true)}}, []string{"198.51.100.9"}, nil, nil, nil,
			"", "198.51.100.1 198.51.100.0/24"},
		{"the same, by DHCP", Config{Tunnels: []Tunnel{{Local: prefixes("0.0.0.0/0"), Remote: prefixes("0.0.0.0/0")}}, Listen: addresses("198.51.100.1")},
			Host{Attached: []Attached{attached("198.51.100.0/24", "198.51.100.1", false)}}, []string{"198.51.100.9"}, nil, nil, nil, "", ""},
		{"a wide network hides an attached one", Config{Tunnels: []Tunnel{{Name: "corp", Remote: prefixes("10.0.0.0/8")}}},
			Host{Attached: []Attached{lan}, NextHops: []NextHop{hop}}, []string{"10.7.0.9"}, []string{"10.7.0.1"}, nil, nil, "10.7.0.0/24 corp 10.0.0.0/8", ""},
		{"the same with bypass", Config{Tunnels: []Tunnel{{Remote: prefixes("10.0.0.0/8")}}, Bypass: prefixes("10.7.0.0/16")},
			Host{Attached: []Attached{lan}}, []string{"10.8.0.9"}, []string{"10.7.0.9", "10.7.200.1"}, nil, nil, "", ""},
		{"between two hosts", Config{Tunnels: []Tunnel{{Remote: prefixes("198.51.100.1/32")}}, Peers: addresses("198.51.100.1")}, Host{},
			[]string{"198.51.100.1"}, nil, nil, nil, "", ""},
		{"dynamic", Config{Tunnels: []Tunnel{{Local: prefixes("10.0.0.0/8")}}, Peers: addresses("198.51.100.1")}, Host{}, nil, nil, nil,
			[]string{"198.51.100.1", "10.0.0.1"}, "", ""},
	} {
		p := c.config.Plan(c.host)
		for v, list := range map[Verdict][]string{Covered: c.covered, Spared: c.spared, Next: c.hop, Free: c.free} {
			for _, a := range addresses(list...) {
				if got := p.At(single(a)); got != v {
					t.Errorf("%s: %v has verdict %d, want %d", c.name, a, got, v)
				}
				blocked := slices.ContainsFunc(p.Ranges(a.Is4()), func(r Range) bool { return !a.Less(r.First) && !r.Last.Less(a) })
				if want := v == Covered || v == Next; blocked != want {
					t.Errorf("%s: %v is in the ranges: %t", c.name, a, blocked)
				}
			}
		}
		var hidden, replies []string
		for _, h := range p.Hidden {
			hidden = append(hidden, fmt.Sprint(h.Network, " ", h.Tunnel, " ", h.Remote))
		}
		for _, r := range p.Replies {
			replies = append(replies, fmt.Sprint(r.From, " ", r.To))
		}
		if got := strings.Join(hidden, ", "); got != c.hidden {
			t.Errorf("%s: hidden %q, want %q", c.name, got, c.hidden)
		}
		if got := strings.Join(replies, ", "); got != c.replies {
			t.Errorf("%s: replies %q, want %q", c.name, got, c.replies)
		}
		if !p.Equal(c.config.Plan(c.host)) {
			t.Errorf("%s: two plans for one host differ", c.name)
		}
	}
}

// TestRanges: of any prefixes, an address is in a range if the longest prefix
// around it covers it, and ranges stand apart, in order.
func TestRanges(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 2000 {
		p := &Plan{verdicts: map[netip.Prefix]Verdict{}}
		for range r.Intn(8) {
			a := netip.AddrFrom4([4]byte{255, 255, 255, byte(r.Intn(256))})
			x, _ := a.Prefix(24 + r.Intn(9))
			p.set(x, Verdict(1+r.Intn(3)))
		}
		ranges := p.Ranges(true)
		for i, x := range ranges {
			if x.Last.Less(x.First) || i > 0 && !ranges[i-1].Last.Next().Less(x.First) {
				t.Fatalf("%v of %v", ranges, p.verdicts)
			}
		}
		for n := range 256 {
			a := netip.AddrFrom4([4]byte{255, 255, 255, byte(n)})
			in := slices.ContainsFunc(ranges, func(x Range) bool { return !a.Less(x.First) && !x.Last.Less(a) })
			if v := p.At(single(a)); in != (v == Covered || v == Next) {
				t.Fatalf("%v is in %v: %t, of %v", a, ranges, in, p.verdicts)
			}
		}
	}
}

// TestNestedRemote: two peers agree about the wider of two networks of a child
// where it has both, so that this is the narrower's tunnel, too; not where
// another tunnel is between them.
func TestNestedRemote(t *testing.T) {
	nested := Tunnel{Name: "site", Remote: prefixes("10.20.0.0/16", "10.0.0.0/8", "10.20.7.0/24", "10.9.9.0/24")}
	c := Config{Tunnels: []Tunnel{nested, {Name: "other", Remote: prefixes("10.9.0.0/16")}}}
	for range 20 { // in whatever order
		rand.Shuffle(len(nested.Remote), func(i, j int) {
			nested.Remote[i], nested.Remote[j] = nested.Remote[j], nested.Remote[i]
		})
		p := c.Plan(Host{})
		for a, want := range map[string]int{"10.1.0.1": 8, "10.20.0.1": 8, "10.20.7.1": 8, "10.9.0.1": 16, "10.9.9.1": 24} {
			if bits, ok := p.Tunnel(netip.MustParseAddr(a)); bits != want || !ok {
				t.Errorf("%v: %s by a /%d, %t; want /%d", nested.Remote, a, bits, ok, want)
			}
		}
	}
}
