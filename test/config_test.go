package test

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/lab/charon"
)

const psk = "correct horse battery staple"

// gatewayConfig is what differs between our gateways; a field that is empty
// has the value that most tests want.
type gatewayConfig struct {
	ike, esp string // proposals
	dpd      string // the keys of dpd
	pool     string // where virtual addresses come from
	answer   string // xdp.answer_interval
	names    string // the keys of DNS of the pool, behind a comma
}

func (c gatewayConfig) yaml() string {
	return fmt.Sprintf(`
listen: {addresses: [%v]}
xdp: {capacity: 256, answer_interval: %s}
log: {level: debug, format: json}
connections:
  home:
    local: {auth: psk, id: gw.example}
    remote: {auth: psk, id: "*@example.org"}
    proposals: [%s]
    esp_proposals: [%s]
    dpd: {%s}
    pools: [office]
    children: {net: {local_ts: [%v/32]}}
  branches:
    local: {auth: psk, id: gw.example}
    remote: {auth: psk, id: "*.branch.example"}
    proposals: [%[3]s]
    esp_proposals: [%[4]s]
    dpd: {%[5]s}
    children: {lan: {local_ts: [%[6]v/32], remote_ts: [10.20.0.0/16]}}
pools:
  office: {addresses: %[7]s%[8]s}
secrets:
  - {id: "*@example.org", psk_file: psk}
  - {id: "*.branch.example", psk_file: psk}
`, lab.GatewayAddr, cmp.Or(c.answer, "10s"),
		cmp.Or(c.ike, "aes256gcm16-prfsha256-x25519"), cmp.Or(c.esp, "aes256gcm16"),
		cmp.Or(c.dpd, "mode: off"), inner, cmp.Or(c.pool, "10.98.0.0/24"), c.names)
}

func (c gatewayConfig) secrets() map[string]string { return map[string]string{"psk": psk} }

// peerConfig is one connection of a strongSwan that calls our gateway; a field
// that is empty has the value that most tests want.
type peerConfig struct {
	name     string // of the connection and of its child
	id       string
	psk      string
	ike, esp string
	vips     string // "none": no virtual address is asked for
	localTS  string
	remoteTS string
	more     string // further lines of the connection
	child    string // further lines of its child
}

func (c peerConfig) connection() string {
	lines := []string{
		cmp.Or(c.name, "home") + " {", "version = 2", "remote_addrs = " + lab.GatewayAddr.String(),
		"proposals = " + cmp.Or(c.ike, "aes256gcm16-prfsha256-x25519"), c.more,
		"local {", "auth = psk", "id = " + cmp.Or(c.id, "anna@example.org"), "}",
		"remote {", "auth = psk", "id = gw.example", "}",
		"children {", cmp.Or(c.name, "net") + " {",
		"esp_proposals = " + cmp.Or(c.esp, "aes256gcm16"), "remote_ts = " + cmp.Or(c.remoteTS, inner.String()+"/32"), c.child,
	}
	if c.localTS != "" {
		lines = append(lines, "local_ts = "+c.localTS)
	}
	lines = append(lines, "}", "}")
	if c.vips != "none" {
		lines = append(lines, "vips = "+cmp.Or(c.vips, "0.0.0.0"))
	}
	return strings.Join(append(lines, "}\n"), "\n")
}

func (c peerConfig) secret(n int) string {
	return fmt.Sprintf("ike-%d {\nid-1 = %s\nid-2 = gw.example\nsecret = %q\n}\n", n, cmp.Or(c.id, "anna@example.org"), cmp.Or(c.psk, psk))
}

// swanctl is swanctl.conf with these connections.
func swanctl(connections ...peerConfig) string {
	var conns, secrets strings.Builder
	for i, c := range connections {
		conns.WriteString(c.connection())
		secrets.WriteString(c.secret(i))
	}
	return "connections {\n" + conns.String() + "}\nsecrets {\n" + secrets.String() + "}\n"
}

// client starts a strongSwan at client i.
func (s *site) client(i int, settings string, connections ...peerConfig) *charon.Daemon {
	s.Helper()
	return s.clientIn(s.TempDir(), i, settings, connections...)
}

// clientIn is client with a folder in which another has been killed.
func (s *site) clientIn(dir string, i int, settings string, connections ...peerConfig) *charon.Daemon {
	s.Helper()
	if len(connections) == 0 {
		connections = []peerConfig{{}}
	}
	return startCharon(s.T, s.gw, s.net.Clients[i], dir, settings, swanctl(connections...))
}

// startCharon starts a strongSwan that outlives the test's own daemon, so that
// it hears the goodbyes.
func startCharon(t *testing.T, ours *daemon, n *lab.Namespace, dir, settings, conf string) *charon.Daemon {
	t.Helper()
	// When our second answer to IKE_SA_INIT comes while it is busy with the
	// first, strongSwan drops it and must ask again: that need not take 4 s.
	d, err := charon.Start(n, dir, "retransmit_timeout = 1.0\n"+settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if ours.t == t {
			ours.stop()
		}
		if t.Failed() {
			t.Logf("%s: strongSwan:\n%s", n.Name(), d.Log())
		}
		d.Process().Kill() // before its folder goes
	})
	if err := d.Load(conf); err != nil {
		t.Fatal(err)
	}
	return d
}

// initiate brings up a child.
func initiate(t *testing.T, d *charon.Daemon, child string) {
	t.Helper()
	if err := d.Initiate(child); err != nil {
		t.Fatal(err)
	}
}

// only returns strongSwan's single SA with its single child.
func only(t *testing.T, d *charon.Daemon) (charon.SA, charon.Child) {
	t.Helper()
	sas, err := d.SAs()
	if err != nil {
		t.Fatal(err)
	}
	if len(sas) != 1 || len(sas[0].Children) != 1 {
		t.Fatalf("strongSwan: want one SA with one child, have %+v", sas)
	}
	return sas[0], sas[0].Children[0]
}
