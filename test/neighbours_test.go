package test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
)

// TestStrongSwanNeighbours: two clients behind one address of a NAT are told
// apart, and neither can send as the other.
func TestStrongSwanNeighbours(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, gatewayConfig{})
	a, b := s.client(0, keyLog), s.client(1, "", peerConfig{id: "bert@example.org"})
	initiate(t, a, "net")
	initiate(t, b, "net")
	saA, _ := only(t, a)
	saB, _ := only(t, b)
	vipA, vipB := vipOf(t, saA.LocalVIPs), vipOf(t, saB.LocalVIPs)
	peers := s.gw.peers()
	if len(peers) != 2 || peers[0].Remote.Addr() != lab.NATAddr || peers[1].Remote.Addr() != lab.NATAddr ||
		peers[0].Remote.Port() == peers[1].Remote.Port() || vipA == vipB {
		t.Fatalf("peers: %+v", peers)
	}
	for i, vip := range []netip.Addr{vipA, vipB} {
		ping(t, s.net.Clients[i], vip, inner, 5, 10*time.Millisecond)
		ping(t, s.net.Gateway, inner, vip, 5, 10*time.Millisecond)
	}

	st := s.gw.status()
	tunnel := tap(t, s.net.Gateway, st.Dataplane.Interface, nil)
	f := s.newForger(0, a)
	good := f.seal(echo(t, vipA, inner))
	broken := f.seal(echo(t, vipA, inner))
	broken[len(broken)-1] ^= 1
	for _, tt := range []struct {
		name    string
		packet  []byte
		counter string
	}{
		{"A as itself", good, "in"},
		{"the same again", good, "replay"},
		{"A as itself, one bit wrong", broken, "icv"},
		{"A as B", f.seal(echo(t, vipB, inner)), "selector"},
		{"A as nobody", f.seal(echo(t, netip.MustParseAddr("192.0.2.1"), inner)), "selector"},
		{"A as the gateway", f.seal(echo(t, inner, inner)), "selector"},
		{"A to B", f.seal(echo(t, vipA, vipB)), "selector"},
		{"A to the gateway's outer address", f.seal(echo(t, vipA, lab.GatewayAddr)), "selector"},
		{"A as itself to the last", f.seal(echo(t, vipA, inner)), "in"},
	} {
		before := s.gw.status().Dataplane.Counters
		f.send(tt.packet)
		await(t, tt.name+" is counted as "+tt.counter, func() bool {
			return s.gw.status().Dataplane.Counters[tt.counter] == before[tt.counter]+1
		})
	}
	await(t, "A's own requests are answered", func() bool { return len(passed(tunnel)) >= 4 })
	asked, answered := vipA.String()+" > "+inner.String(), inner.String()+" > "+vipA.String()
	if got := passed(tunnel); !slices.Equal(got, []string{asked, answered, asked, answered}) {
		t.Errorf("through the tunnel's interface went %q", got)
	}
	ping(t, s.net.Clients[0], vipA, inner, 3, 10*time.Millisecond)
	ping(t, s.net.Clients[1], vipB, inner, 3, 10*time.Millisecond)
}

// TestStrongSwanTwins: two devices of one person, which do not say that the
// other is gone, have a tunnel and an address each.
func TestStrongSwanTwins(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, gatewayConfig{})
	routes := routing(t, s.net.Gateway)
	var vips []netip.Addr
	for i := range 2 {
		client := s.client(i, "", peerConfig{more: "unique = never"})
		initiate(t, client, "net")
		sa, _ := only(t, client)
		vips = append(vips, vipOf(t, sa.LocalVIPs))
	}
	if vips[0] == vips[1] || len(s.gw.peers()) != 2 {
		t.Errorf("addresses %v, peers %+v", vips, s.gw.peers())
	}
	for i, vip := range vips {
		ping(t, s.net.Clients[i], vip, inner, 3, 10*time.Millisecond)
	}
	s.gw.must("terminate", "anna@example.org")
	s.cleared(routes)
}
