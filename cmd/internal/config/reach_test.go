package config

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/ike"
)

// TestNotesAgainstEveryPeer: of small configurations the notes say of secrets and
// of peers who do not say whom they want what comes out when every peer calls, by
// the gateway's own code.
func TestNotesAgainstEveryPeer(t *testing.T) {
	locals := []string{"v.b", "w.c"}
	remotes := []string{"%any", "*.b", "*.a.b", "x.a.b", "y.b", "*@b", "m@b", "v.b", "w.c", "keyid:k"}
	peers := []string{"z.b", "z.a.b", "z.z.a.b", "x.a.b", "y.b", "m@b", "n@b", "v.b", "w.c", "q.d", "m@c", "keyid:k", "keyid:l"}
	r := rand.New(rand.NewSource(1))
	one := func(of []string) string { return of[r.Intn(len(of))] }
	good, unused, unsaid := 0, 0, 0
	for range 3000 {
		var b strings.Builder
		b.WriteString(minimal + "connections:\n")
		for i := range 1 + r.Intn(4) {
			fmt.Fprintf(&b, "  %c: {local: {auth: psk, id: %s}, remote: {auth: psk, id: %q}, children: {net: {local_ts: [10.0.0.0/8]}}}\n", 'a'+i, one(locals), one(remotes))
		}
		b.WriteString("secrets:\n")
		for range 1 + r.Intn(5) {
			if r.Intn(2) == 0 {
				fmt.Fprintf(&b, "  - {id: %q, psk_file: a.psk}\n", one(remotes))
				continue
			}
			fmt.Fprintf(&b, "  - {ids: [%s, %q], psk_file: a.psk}\n", one(locals), one(remotes))
		}
		cfg, _ := decodeBytes([]byte(b.String()))
		if cfg == nil {
			continue
		}
		good++
		gateway := asGateway(cfg)
		used, first := map[string]bool{}, map[string]bool{}
		for _, id := range peers {
			for _, asked := range append(locals, "") {
				got, err := gateway.Choose(claim(t, id, asked))
				must(t, err)
				used[got.Secret.LocalID+"|"+got.Secret.ID] = true
				if asked == "" && len(got.Others) > 0 {
					first[got.Connection] = true
				}
			}
		}
		for _, s := range cfg.Secrets {
			want := !used[s.Local.String()+"|"+s.ID.String()]
			noted := slices.ContainsFunc(cfg.Notes, func(p Problem) bool {
				return p.Pos == s.Pos && strings.Contains(p.Text, " that of "+pair{s.Local, s.ID}.String()+": ")
			})
			if want != noted {
				t.Fatalf("nobody uses %v: %v, noted: %v\n%s%s", pair{s.Local, s.ID}, want, noted, b.String(), cfg.Notes.Error())
			}
			if want {
				unused++
			}
		}
		for _, c := range cfg.Connections {
			noted := slices.ContainsFunc(cfg.Notes, func(p Problem) bool {
				return strings.HasSuffix(p.Text, "a peer that names none of them gets "+c.Name+", the first by name")
			})
			if first[c.Name] && !noted {
				t.Fatalf("%s is the first by name: %v, noted: %v\n%s%s", c.Name, first[c.Name], noted, b.String(), cfg.Notes.Error())
			}
			if noted {
				unsaid++
			}
		}
	}
	t.Logf("%d configurations; %d secrets that nobody uses, %d connections that are the first of several", good, unused, unsaid)
	if good < 1000 || unused < 1000 || unsaid < 100 {
		t.Error("too few of them")
	}
}

// asGateway is as much of a configuration as decides who gets what.
func asGateway(cfg *Config) *ike.Config {
	var out ike.Config
	for _, c := range cfg.Connections {
		var hosts []ike.Host
		for _, h := range c.Remote.Addresses {
			hosts = append(hosts, ike.Host(h))
		}
		out.Connections = append(out.Connections, ike.Connection{Name: c.Name, LocalID: c.Local.ID.String(), RemoteID: c.Remote.ID.String(),
			Hosts: hosts, Proposals: c.Proposals, ESPProposals: c.ESPProposals, DPD: ike.DPD{Mode: c.DPD.Mode}})
	}
	for _, s := range cfg.Secrets {
		out.Secrets = append(out.Secrets, ike.Secret{ID: s.ID.String(), LocalID: s.Local.String()})
	}
	return &out
}

func claim(t *testing.T, id, asked string) (c ike.Claim) {
	t.Helper()
	var err error
	c.ID, err = ike.ParseIdentity(id)
	must(t, err)
	if asked != "" {
		c.Asked, err = ike.ParseIdentity(asked)
		must(t, err)
	}
	return c
}

// TestThirdWay: a secret may stand under our own identity alone, as the README says,
// and what stands under the peer's goes before it.
func TestThirdWay(t *testing.T) {
	const site = minimal + `connections:
  site:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: berlin.example.org}
    children: {net: {local_ts: [10.0.0.0/8], remote_ts: [10.20.0.0/16]}}
secrets:
  - {id: vpn.example.org, psk_file: a.psk}
`
	for more, want := range map[string]string{
		"":                                      "vpn.example.org",
		"  - {id: \"%any\", psk_file: a.psk}\n": "vpn.example.org",
		"  - {id: \"*.example.org\", psk_file: a.psk}\n":                     "*.example.org",
		"  - {id: berlin.example.org, psk_file: a.psk}\n":                    "berlin.example.org",
		"  - {ids: [vpn.example.org, \"*.example.org\"], psk_file: a.psk}\n": "*.example.org",
		"  - {ids: [vpn.example.org, \"%any\"], psk_file: a.psk}\n":          "%any",
		"  - {ids: [vpn2.example.org, \"%any\"], psk_file: a.psk}\n":         "vpn.example.org",
	} {
		write(t, map[string]string{"a.yaml": site + more, "a.psk": string(secretBytes(32))})
		for name, load := range map[string]func(string, Checks) (*Config, Problems){"load": Load, "check": Check} {
			cfg, ps := load("a.yaml", checks)
			if ps != nil {
				t.Errorf("%s: %s", name, ps.Error())
				continue
			}
			if got, err := asGateway(cfg).Choose(claim(t, "berlin.example.org", "")); err != nil || got.Secret.ID != want || got.Refused != nil {
				t.Errorf("%s with %s: the secret is that of %+v, %v", name, more, got, err)
			}
			if noted := strings.Contains(cfg.Notes.Error(), "nobody uses that of vpn.example.org: there is a closer one"); noted != (want != "vpn.example.org") {
				t.Errorf("%s with %s notes %s", name, more, cfg.Notes.Error())
			}
		}
	}
}

// TestUniqueIsRead: in swanctl's words, for all and for one.
func TestUniqueIsRead(t *testing.T) {
	const two = minimal + `defaults: {local: {auth: psk, id: vpn.example.org}, unique: %s, max_sas: 3, max_leases: 2}
secrets: [{id: "%%any", psk_file: a.psk}]
connections:
  a: {remote: {auth: psk, id: a.example.org}, children: {net: {local_ts: [10.0.0.0/8]}}}
  b: {unique: never, max_sas: 1, max_leases: 1, remote: {auth: psk, id: b.example.org}, children: {net: {local_ts: [10.0.0.0/8]}}}
`
	for _, unique := range []string{"no", "never", "keep", "replace"} {
		cfg, ps := decodeBytes(fmt.Appendf(nil, two, unique))
		if ps != nil {
			t.Fatal(ps.Error())
		}
		a, b := cfg.Connections[0], cfg.Connections[1]
		if a.Unique != unique || a.MaxSAs != 3 || a.MaxLeases != 2 || b.Unique != "never" || b.MaxSAs != 1 || b.MaxLeases != 1 {
			t.Errorf("%s: %+v and %+v", unique, a, b)
		}
	}
	for _, wrong := range []string{"yes", "false", "Keep"} {
		if _, ps := decodeBytes(fmt.Appendf(nil, two, wrong)); ps == nil || !strings.Contains(ps.Error(), "defaults.unique: ") {
			t.Errorf("%s: %s", wrong, ps.Error())
		}
	}
}
