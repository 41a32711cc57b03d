package test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/lab/charon"
)

// TestStrongSwanOnTheNATTPort: a client that begins on port 4500 is answered
// there and stays there, behind a NAT and without one: the handshake, traffic,
// what either side asks of the other, and the end.
func TestStrongSwanOnTheNATTPort(t *testing.T) {
	for _, natted := range []bool{true, false} {
		name := map[bool]string{true: "behind a NAT", false: "without one"}[natted]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 1, gatewayConfig{})
			routes := routing(t, s.net.Gateway)
			all := s.uplink(nil)
			config := peerConfig{more: "local_port = 4500\nremote_port = 4500\ndpd_delay = 1s"}
			ns, client := s.net.Clients[0], (*charon.Daemon)(nil)
			if natted {
				client = s.client(0, "", config)
			} else {
				if err := s.net.Masq.Remove(); err != nil {
					t.Fatal(err)
				}
				ns = s.net.NAT
				client = startCharon(t, s.gw, ns, t.TempDir(), "", swanctl(config))
			}
			initiate(t, client, "net")
			theirs, child := only(t, client)
			ours, port := s.gw.peer(), netip.AddrPortFrom(lab.NATAddr, lab.NATTPort)
			if ours.Local.Port() != lab.NATTPort || ours.Remote.Addr() != lab.NATAddr || (ours.Remote == port) == natted || theirs.NATLocal != natted || !child.Encap {
				t.Errorf("ours %+v, theirs %+v", ours, theirs)
			}
			vip := vipOf(t, theirs.LocalVIPs)
			ping(t, ns, vip, inner, 3, 10*time.Millisecond)
			ping(t, s.net.Gateway, inner, vip, 3, 10*time.Millisecond)
			checkOne(s, ours)
			s.gw.must("probe", "anna@example.org")
			await(t, "each side has asked and was answered", func() bool {
				return len(messages(all, true, informational, true)) > 0 && len(messages(all, false, informational, true)) > 0
			})
			if err := client.Terminate("home"); err != nil {
				t.Fatal(err)
			}
			s.cleared(routes)
			seen := 0
			for _, f := range all.Frames() {
				from, to, _, ok := f.UDP()
				if !ok {
					continue
				}
				seen++
				gateway := to
				if !f.Outgoing {
					gateway = from
				}
				if gateway != netip.AddrPortFrom(lab.GatewayAddr, lab.NATTPort) || from.Port() == 500 || to.Port() == 500 {
					t.Errorf("a datagram from %v to %v", from, to)
				}
			}
			if n := len(messages(all, true, saInit, true)); n == 0 || seen < n+6 {
				t.Errorf("%d answers to IKE_SA_INIT in %d datagrams", n, seen)
			}
		})
	}
}
