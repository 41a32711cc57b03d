package ike

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

func TestBadConfig(t *testing.T) {
	l := &link{ends: map[netip.Addr]*end{}}
	for want, change := range map[string]func(*Config){
		"":                            func(*Config) {},
		"the capacity":                func(c *Config) { c.Capacity = 0 },
		"number of shards":            func(c *Config) { c.Shards = 0 },
		`"roadwarriors" stands twice`: func(c *Config) { c.Connections = append(c.Connections, c.Connections[0]) },
		`"office" stands twice`:       func(c *Config) { c.Pools = append(c.Pools, c.Pools[0]) },
		`no pool "attic"`:             func(c *Config) { c.Connections[0].Pools = []string{"attic"} },
		"local identity":              func(c *Config) { c.Connections[0].LocalID = "" },
		"remote identity":             func(c *Config) { c.Connections[0].RemoteID = "*nonsense" },
		"no proposal":                 func(c *Config) { c.Connections[0].Proposals = nil },
		"has no key exchange":         func(c *Config) { c.Connections[0].Proposals = []string{"aes256gcm16-prfsha256"} },
		"for IKE, not for ESP":        func(c *Config) { c.Connections[0].ESPProposals = []string{"aes256gcm16-prfsha256"} },
		"no mode of DPD":              func(c *Config) { c.Connections[0].DPD.Mode = "always" },
		"no kind of uniqueness":       func(c *Config) { c.Connections[0].Unique = "yes" },
		"no address to call":          func(c *Config) { c.Connections[0].Start = true },
		"nothing resolves it":         func(c *Config) { c.Connections[0].Hosts = []Host{{Name: "vpn.example.org"}} },
		"has no prefix":               func(c *Config) { c.Connections[0].Child.LocalTS = []Selector{{}} },
		"stands alone": func(c *Config) {
			c.Connections[0].Child.RemoteTS = make([]Selector, 2)
			c.Connections[0].Child.RemoteTS[0].Dynamic = true
		},
		"[secret of *@example.org] stands twice": func(c *Config) {
			c.Secrets = []Secret{{ID: "*@example.org"}, {ID: "*@example.org", LocalID: "vpn.example.org"}, {ID: "*@Example.org"}}
		},
		"secret: ":    func(c *Config) { c.Secrets[0].ID = "" },
		"pool office": func(c *Config) { c.Pools[0].Prefixes = append(c.Pools[0].Prefixes, c.Pools[0].Prefixes[0]) },
	} {
		c := gatewayConfig()
		change(&c)
		_, err := New(c, (&end{link: l}).edges())
		if want == "" && err == nil {
			continue
		}
		if err == nil || want == "" || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// TestNamePinsNobody: addresses say where a peer may call from; beside a name
// nothing does, since what it has today is not where he is tomorrow.
func TestNamePinsNobody(t *testing.T) {
	address, name := Host{Addr: gatewayAddr}, Host{Name: "vpn.example.org"}
	for _, c := range []struct {
		hosts []Host
		want  string
	}{{nil, "[]"}, {[]Host{address}, "[198.51.100.1]"}, {[]Host{name}, "[]"}, {[]Host{address, name}, "[]"}, {[]Host{name, address}, "[]"}} {
		config := clientConfig()
		config.Connections[0].Hosts = c.hosts
		set, err := config.policy()
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(set.Connections[0].Pins); got != c.want {
			t.Errorf("%v: he may call from %s, want %s", c.hosts, got, c.want)
		}
		if got := set.Connections[0].Hosts; len(got) != len(c.hosts) {
			t.Errorf("%v: %v are called", c.hosts, got)
		}
	}
}

func TestIdentities(t *testing.T) {
	for in, want := range map[string]Identity{
		"Anna@Example.org":       {Kind: wire.IDRFC822, Data: "anna@example.org"},
		"vpn.example.org":        {Kind: wire.IDFQDN, Data: "vpn.example.org"},
		"198.51.100.1":           {Kind: wire.IDIPv4, Data: "\xc6\x33\x64\x01"},
		"keyid:Box 7":            {Kind: wire.IDKeyID, Data: "Box 7"},
		"keyid:#00ff":            {Kind: wire.IDKeyID, Data: "\x00\xff"},
		"keyid:#0":               {},
		"keyid:#":                {},
		"":                       {},
		"two words":              {},
		"x\ny":                   {},
		strings.Repeat("x", 200): {},
	} {
		got, err := ParseIdentity(in)
		if got != want || (err == nil) != (want != Identity{}) {
			t.Errorf("%q: %+v %v", in, got, err)
		}
		p, err := ParsePattern(in)
		if err == nil && !p.Match(want) || (err == nil) != (want != Identity{}) {
			t.Errorf("%q as a pattern: %+v %v", in, p, err)
		}
	}
	if p, err := ParsePattern("*@example.org"); err != nil || !p.Match(policy.ID{Kind: wire.IDRFC822, Data: "anna@example.org"}) {
		t.Errorf("%+v %v", p, err)
	}
}

func TestProposals(t *testing.T) {
	if CheckIKEProposal("aes256gcm16-prfsha384-x25519") != nil || CheckIKEProposal("aes256gcm16") == nil ||
		CheckESPProposal("aes256gcm16-esn") != nil || CheckESPProposal("3des-sha1") == nil {
		t.Error("proposals are judged wrongly")
	}
}

// A prefix becomes the range of its addresses; ports and protocol stay.
func TestSelectors(t *testing.T) {
	got, err := selectors([]Selector{{Prefix: netip.MustParsePrefix("10.1.2.3/16"), Protocol: 6, FromPort: 80, ToPort: 81}})
	want := wire.Selector{Protocol: 6, StartPort: 80, EndPort: 81, Start: netip.MustParseAddr("10.1.0.0"), End: netip.MustParseAddr("10.1.255.255")}
	if err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := selectors([]Selector{{Dynamic: true}}); err != nil || got != nil {
		t.Errorf("dynamic: %+v %v", got, err)
	}
}

// However a configuration is printed, its secrets are not.
func TestSecretsAreNotPrinted(t *testing.T) {
	c := gatewayConfig()
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		if s := fmt.Sprintf(format, c.Secrets); strings.Contains(s, testPSK) || strings.Contains(s, fmt.Sprint([]byte(testPSK))[1:20]) {
			t.Errorf("%s prints %s", format, s)
		}
	}
	if b, err := json.Marshal(c.Secrets); err != nil || strings.Contains(string(b), base64.StdEncoding.EncodeToString([]byte(testPSK))[:12]) {
		t.Errorf("%s, %v", b, err)
	}
}
