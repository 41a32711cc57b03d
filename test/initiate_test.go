package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
)

// callerConfig is our daemon as a client.
const callerConfig = `
listen: {addresses: [%v]}
xdp: {capacity: 64}
log: {level: debug, format: json}
connections:
  office:
    local: {auth: psk, id: anna@example.org}
    remote: {auth: psk, id: gw.example, addresses: [%v]}
    proposals: [aes256gcm16-prfsha256-x25519, aes256-sha256-ecp256]
    esp_proposals: [aes256gcm16]
    dpd: {%s}
    nat_keepalive: 300ms
    vips: ["0.0.0.0"]
    children: {net: {local_ts: [dynamic], remote_ts: [10.99.0.0/16]}}
secrets:
  - {id: gw.example, psk_file: psk}
`

// officeConf is strongSwan as a gateway: %[1]s are its IKE proposals.
const officeConf = `connections {
	home {
		version = 2
		local_addrs = 198.51.100.1
		proposals = %[1]s
		dpd_delay = 1s
		pools = office
		local {
			auth = psk
			id = gw.example
		}
		remote {
			auth = psk
			id = anna@example.org
		}
		children {
			net {
				local_ts = 10.99.0.1/32
				esp_proposals = aes256gcm16
			}
		}
	}
}
pools {
	office {
		addrs = 10.98.0.7/32
	}
}
secrets {
	ike-1 {
		id-1 = gw.example
		id-2 = anna@example.org
		secret = "` + psk + `"
	}
}
`

// TestStrongSwanIsCalled: we call from behind the NAT. The mapping is kept
// open, strongSwan's questions are answered, its end is noticed, and it can be
// called again.
func TestStrongSwanIsCalled(t *testing.T) {
	for name, proposals := range map[string]string{
		"first guess right": "aes256gcm16-prfsha256-x25519",
		"first guess wrong": "aes256-sha256-ecp256",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			net := network(t, 1)
			routes := routing(t, net.Clients[0])
			ours := start(t, net.Clients[0], fmt.Sprintf(callerConfig, lab.ClientAddr(0), lab.GatewayAddr, shortDPD),
				map[string]string{"psk": psk})
			s := &site{T: t, net: net, gw: ours}
			idle := routing(t, net.Clients[0])
			dir := t.TempDir()
			all := s.uplink(nil)
			call := func() {
				office := startCharon(t, ours, net.Gateway, dir, "", fmt.Sprintf(officeConf, proposals))
				ours.must("initiate", "office")
				theirs, child := only(t, office)
				p := ours.peer()
				vip := netip.MustParseAddr("10.98.0.7")
				if p.Role != "initiator" || p.Suite != proposals || p.Child.Suite != "aes256gcm16" || !p.LocalNATted || theirs.Initiator ||
					!theirs.NATRemote || theirs.Remote.Addr() != lab.NATAddr || !slices.Equal(p.Child.VIPs, []netip.Addr{vip}) {
					t.Errorf("ours %+v, theirs %+v", p, theirs)
				}
				if !slices.Equal(p.Child.RemoteTS, []string{"10.99.0.1/32"}) || !slices.Equal(child.RemoteTS, []string{"10.98.0.7/32"}) {
					t.Errorf("selectors: ours %+v, theirs %+v", p.Child, child)
				}
				ping(t, net.Clients[0], netip.Addr{}, inner, 5, 10*time.Millisecond)
				ping(t, net.Gateway, inner, vip, 5, 10*time.Millisecond)

				before := len(messages(all, true, informational, false))
				await(t, "three keepalives of ours, and two questions of strongSwan's", func() bool {
					kept := 0
					for _, f := range all.Frames() {
						if f.Keepalive() && f.Outgoing {
							kept++
						}
					}
					return kept >= 3 && len(messages(all, true, informational, false)) >= before+2
				})
				if strings.Contains(office.Log(), "retransmit ") {
					t.Error("strongSwan had to ask again")
				}
				again := len(ours.logged("retransmit"))
				kill(office)
				s.cleared(idle)
				if n := len(ours.logged("retransmit")) - again; n != requests-1 {
					t.Errorf("%d retransmissions", n)
				}
			}
			call()
			call()
			if dead := ours.logged("dead"); len(dead) != 2 {
				t.Errorf("our log: %+v", dead)
			}
			ours.stop()
			if now := routing(t, net.Clients[0]); !slices.Equal(now, routes) {
				t.Errorf("routing is %q, was %q", now, routes)
			}
		})
	}
}
