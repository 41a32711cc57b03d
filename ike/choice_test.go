package ike

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
)

// choiceConfig has a connection of each kind.
func choiceConfig() Config {
	c := gatewayConfig()
	base := c.Connections[0]
	c.Connections, c.Secrets = nil, nil
	for _, w := range []struct {
		name, local, remote string
		pins                []string
	}{
		{"anyone", "vpn.example.org", "%any", nil},
		{"staff", "vpn.example.org", "*.example.org", nil},
		{"east", "vpn.example.org", "site.example.org", []string{"203.0.113.7", "203.0.113.6"}},
		{"west", "vpn.example.org", "site.example.org", []string{"203.0.113.8"}},
		{"lab", "lab.example.org", "site.example.org", []string{"203.0.113.7"}},
		{"lost", "lab.example.org", "lost.example.net", nil},
	} {
		in := base
		in.Name, in.LocalID, in.RemoteID, in.Hosts = w.name, w.local, w.remote, nil
		for _, a := range w.pins {
			in.Hosts = append(in.Hosts, Host{Addr: netip.MustParseAddr(a)})
		}
		c.Connections = append(c.Connections, in)
	}
	for _, ids := range [][2]string{{"vpn.example.org", "%any"}, {"", "*.example.org"}, {"vpn.example.org", "site.example.org"}} {
		c.Secrets = append(c.Secrets, Secret{LocalID: ids[0], ID: ids[1], PSK: []byte(ids[0] + "|" + ids[1])})
	}
	return c
}

// TestChoose: what is said of a peer is what happens to him when he calls.
func TestChoose(t *testing.T) {
	c := choiceConfig()
	set, err := c.policy()
	if err != nil {
		t.Fatal(err)
	}
	refused := map[policy.Rule]error{policy.NoIdentity: ErrNoIdentity, policy.NoOwnIdentity: ErrNoOwnIdentity, policy.WrongAddress: ErrWrongAddress, policy.NoSecret: ErrNoSecret}
	seen := map[error]int{}
	for _, id := range []string{"site.example.org", "x.example.org", "lost.example.net", "anna@example.org", "keyid:box"} {
		for _, asked := range []string{"", "vpn.example.org", "lab.example.org", "no.example.org"} {
			for _, from := range []string{"203.0.113.6", "203.0.113.7", "203.0.113.8", "2001:db8::1"} {
				claim := Claim{From: netip.MustParseAddr(from)}
				claim.ID, _ = ParseIdentity(id)
				if asked != "" {
					claim.Asked, _ = ParseIdentity(asked)
				}
				got, err := c.Choose(claim)
				if err != nil {
					t.Fatal(err)
				}
				conn, rule := set.Find(claim)
				var psk []byte
				if rule == policy.Accepted {
					var ok bool
					if psk, ok = set.Secret(conn.LocalID, claim.ID); !ok {
						rule = policy.NoSecret
					}
				}
				name := ""
				if conn != nil {
					name = conn.Name
				}
				if got.Connection != name || got.Refused != refused[rule] || string(got.Secret.PSK) != string(psk) || got.Refused == nil && got.Secret.LocalID+"|"+got.Secret.ID != string(psk) {
					t.Errorf("%s to %q from %s: %+v, want %s, %v", id, asked, from, got, name, refused[rule])
				}
				seen[got.Refused]++
			}
		}
	}
	for _, err := range []error{nil, ErrNoOwnIdentity, ErrWrongAddress, ErrNoSecret} {
		if seen[err] == 0 {
			t.Errorf("nobody is told %v", err)
		}
	}
}

func TestChooseWithoutAnAddress(t *testing.T) {
	c := choiceConfig()
	site, _ := ParseIdentity("site.example.org")
	got, err := c.Choose(Claim{ID: site})
	if err != nil || got.Connection != "east" || got.Refused != nil || !slices.Equal(got.Others, []string{"lab", "west"}) {
		t.Errorf("%+v, %v", got, err)
	}
	c.Connections = c.Connections[1:2]
	stranger, _ := ParseIdentity("anna@example.org")
	if got, err := c.Choose(Claim{ID: stranger}); err != nil || !errors.Is(got.Refused, ErrNoIdentity) || got.Connection != "" || len(got.Others) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	c.Connections[0].RemoteID = "*"
	if got, err := c.Choose(Claim{ID: site}); err == nil {
		t.Errorf("of a bad configuration: %+v", got)
	}
}

func TestCommonIKE(t *testing.T) {
	list := func(s ...string) []string { return s }
	for _, tt := range []struct {
		a, b []string
		want bool
	}{
		{list("aes256gcm16-prfsha384-x25519"), list("aes256-sha256-modp2048"), false},
		{list("aes256gcm16-prfsha384-x25519"), list("aes256-sha256-modp2048", "aes128gcm16-aes256gcm16-prfsha256-prfsha384-ecp256-x25519"), true},
		{list("aes256gcm16-prfsha384-x25519"), list("aes256gcm16-prfsha384-ecp256"), false},
		{list("aes256gcm16-prfsha384-x25519"), list("aes256gcm16-prfsha256-x25519"), false},
		{list("aes256-sha256-ecp256"), list("aes128-sha256-ecp256"), false},
		{list("aes256-sha256-ecp256", "aes128-sha256-x25519"), list("aes128-sha256-x25519"), true},
		{list("nonsense"), list("nonsense"), false},
		{list("aes256-sha256-ecp256"), nil, false},
	} {
		if CommonIKE(tt.a, tt.b) != tt.want || CommonIKE(tt.b, tt.a) != tt.want {
			t.Errorf("%v and %v have something in common: %v", tt.a, tt.b, !tt.want)
		}
	}
}
