package test

import (
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab/charon"
)

// TestStrangersWithOneAddress: clients behind one NAT that say the same private
// address for their identity, each that its contact is the first, as Windows does
// and strongSwan can: each has its tunnel and an address of its own.
func TestStrangersWithOneAddress(t *testing.T) {
	t.Parallel()
	c := gatewayConfig{}
	s := &site{T: t, net: network(t, 3)}
	s.gw = start(t, s.net.Gateway, strings.ReplaceAll(c.yaml(), `"*@example.org"`, `"%any"`), c.secrets())
	var clients []*charon.Daemon
	for i := range s.net.Clients {
		client := s.client(i, "", peerConfig{id: "192.168.1.5"})
		initiate(t, client, "net")
		if !strings.Contains(client.Log(), "N(INIT_CONTACT)") {
			t.Errorf("client %d does not say that its contact is the first", i)
		}
		clients = append(clients, client)
	}
	seen := map[string]bool{}
	for i, client := range clients {
		sa, _ := only(t, client)
		vip := vipOf(t, sa.LocalVIPs)
		if seen[vip.String()] {
			t.Errorf("client %d has %v, as another", i, vip)
		}
		seen[vip.String()] = true
		ping(t, s.net.Clients[i], vip, inner, 3, 10*time.Millisecond)
		ping(t, s.net.Gateway, inner, vip, 3, 10*time.Millisecond)
	}
	peers := s.gw.peers()
	for _, p := range peers {
		if p.Identity != "192.168.1.5" || p.State != "established" || p.Child == nil {
			t.Errorf("%+v", p)
		}
	}
	if st := s.gw.status(); len(peers) != 3 || st.IKE.Up != 3 || st.IKE.Leases["office"] != 3 || st.IKE.Counters["replaced"] != 0 {
		t.Errorf("%d peers, %d up, leases %v, %d replaced", len(peers), st.IKE.Up, st.IKE.Leases, st.IKE.Counters["replaced"])
	}
}
