package ike

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPeersGetWhatIsSaidOfThem: on the wire, too, the closest connection and secret
// decide, in whatever order they stand: who has one of his own falls into no other,
// because he calls from elsewhere, or offers what another takes.
func TestPeersGetWhatIsSaidOfThem(t *testing.T) {
	const modern, old = "aes256gcm16-prfsha256-x25519", "aes256-sha256-ecp256"
	base := gatewayConfig()
	with := func(name, remote, proposal string, pins ...netip.Addr) Connection {
		c := base.Connections[0]
		c.Name, c.RemoteID, c.Proposals = name, remote, []string{proposal}
		for _, a := range pins {
			c.Hosts = append(c.Hosts, Host{Addr: a})
		}
		return c
	}
	base.Connections = []Connection{with("anyone", "%any", modern), with("staff", "*.example.org", modern), with("old-box", "old.example.org", old),
		with("here", "site.example.org", modern, clientAddr), with("there", "site.example.org", modern, netip.MustParseAddr("203.0.113.7")),
		with("far", "far.example.org", modern, netip.MustParseAddr("203.0.113.8"))}
	key := func(of string) []byte { return []byte("a secret of more than twenty bytes: " + of) }
	base.Secrets = []Secret{{ID: "%any", PSK: key("%any")}, {ID: "*.example.org", PSK: key("*.example.org")}}
	for _, peer := range []struct {
		id, secret string
		offers     []string
		want       string // "": he is refused
	}{
		{"anna.example.org", "*.example.org", []string{modern}, "staff"}, // with the key of staff, not of everybody
		{"anna.example.org", "%any", []string{modern}, ""},
		{"anna.example.net", "%any", []string{modern}, "anyone"},
		{"anna.example.net", "*.example.org", []string{modern}, ""},
		{"old.example.org", "*.example.org", []string{old}, "old-box"},
		{"old.example.org", "*.example.org", []string{modern}, ""}, // which staff and anyone take
		{"old.example.org", "%any", []string{modern, old}, ""},
		{"site.example.org", "*.example.org", []string{modern}, "here"},
		{"far.example.org", "*.example.org", []string{modern}, ""},
		{"far.example.org", "%any", []string{modern}, ""},
	} {
		for turn := range len(base.Connections) {
			inBubble(t, func(t *testing.T, l *link) {
				config := base
				config.Connections = slices.Concat(base.Connections[turn:], base.Connections[:turn])
				config.Secrets = slices.Clone(base.Secrets)
				if turn%2 == 1 {
					slices.Reverse(config.Connections)
					slices.Reverse(config.Secrets)
				}
				calls := clientConfig()
				calls.Connections[0].LocalID, calls.Connections[0].Proposals = peer.id, peer.offers
				calls.Secrets[0].PSK = key(peer.secret)
				gateway, client := l.end(t, config), l.end(t, calls)
				err := client.gateway.Initiate(context.Background(), "home")
				time.Sleep(time.Minute)
				_, got, _ := strings.Cut(gateway.logged(), "msg=established connection=")
				got, _, _ = strings.Cut(got, " ")
				if got != peer.want || (err == nil) != (got != "") {
					t.Errorf("%s, with the secret of %s, offers %v: gets %q, want %q; %v", peer.id, peer.secret, peer.offers, got, peer.want, err)
				}
				client.stop()
				gateway.stop()
			})
		}
	}
}
