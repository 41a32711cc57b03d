package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// TestStrongSwanMakesBeforeBreak: a strongSwan that authenticates itself anew, and makes
// the new association before it breaks the old one, keeps its address, and its packets
// flow.
func TestStrongSwanMakesBeforeBreak(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	client := s.client(0, "make_before_break = yes", peerConfig{more: "reauth_time = 4s\nover_time = 2s\nrand_time = 0"})
	initiate(t, client, "net")
	sa, _ := only(t, client)
	vip := vipOf(t, sa.LocalVIPs)
	lost := 0
	seen := map[string]bool{}
	for deadline := time.Now().Add(limit); len(seen) < 4 && time.Now().Before(deadline); {
		p := lab.Ping{Src: vip, Dst: inner, Count: 5, Interval: 50 * time.Millisecond, Timeout: time.Second}
		sent, received, err := s.net.Clients[0].Ping(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		lost += sent - received
		for _, peer := range s.gw.peers() {
			seen[peer.SPI] = true
			if c := peer.Child; c != nil && !slices.Equal(c.RemoteTS, []string{vip.String() + "/32"}) {
				t.Errorf("the association %s has %v, the client had %v", peer.SPI, c.RemoteTS, vip)
			}
		}
		if leases := s.gw.status().IKE.Leases["office"]; leases != 1 {
			t.Errorf("%d addresses are leased", leases)
		}
	}
	if len(seen) < 4 || lost > 0 {
		t.Errorf("%d associations, %d pings were lost", len(seen), lost)
	}
	if n := len(s.gw.logged("replaced")); n > 0 {
		t.Errorf("%d were replaced", n)
	}
}

// siteConfig is one of two gateways that both start the tunnel between them. %[1]s is
// its own name, %[2]v its address, %[3]s and %[4]v the other's, %[5]v and %[6]v their
// networks.
const siteConfig = `
listen: {addresses: [%[2]v]}
xdp: {capacity: 64}
log: {level: debug, format: json}
connections:
  site:
    local: {auth: psk, id: %[1]s.example.org}
    remote: {auth: psk, id: %[3]s.example.org, addresses: [%[4]v]}
    dpd: {delay: 2s, retransmit: fast, max_suppress: 10s}
    children: {net: {local_ts: [%[5]v/32], remote_ts: [%[6]v/32], start_action: start}}
secrets:
  - {ids: [%[1]s.example.org, %[3]s.example.org], psk_file: psk}
`

// TestSitesThatBothStart: two gateways that are to start the same tunnel, at once or
// one a second after the other, end with one association, which stays, and neither
// calls the other dead.
func TestSitesThatBothStart(t *testing.T) {
	t.Parallel()
	require.Have(t, "root", "netns", "bpf", "tun")
	addrA, addrB := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.9")
	netA, netB := netip.MustParseAddr("10.20.0.1"), netip.MustParseAddr("10.21.0.1")
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	var ns [2]*lab.Namespace
	for i, name := range []string{"site a", "site b"} {
		var err error
		if ns[i], err = l.Namespace(name); err != nil {
			t.Fatal(err)
		}
	}
	end := func(n *lab.Namespace, a netip.Addr) lab.End {
		return lab.End{Namespace: n, Name: "wan0", Addresses: []netip.Prefix{netip.PrefixFrom(a, 24)}}
	}
	if err := lab.Connect(end(ns[0], addrA), end(ns[1], addrB)); err != nil {
		t.Fatal(err)
	}
	for i, a := range []netip.Addr{netA, netB} {
		if err := ns[i].Address("lo", netip.PrefixFrom(a, 32)); err != nil {
			t.Fatal(err)
		}
	}
	confA := fmt.Sprintf(siteConfig, "a", addrA, "b", addrB, netA, netB)
	confB := fmt.Sprintf(siteConfig, "b", addrB, "a", addrA, netB, netA)
	for _, pause := range []time.Duration{0, 100 * time.Millisecond, 1200 * time.Millisecond} {
		b := start(t, ns[1], confB, map[string]string{"psk": psk})
		time.Sleep(pause)
		a := start(t, ns[0], confA, map[string]string{"psk": psk})
		one := func(d *daemon) bool {
			p := d.peers()
			return len(p) == 1 && p[0].State == "established" && p[0].Child != nil
		}
		await(t, "one association", func() bool { return one(a) && one(b) && a.peers()[0].SPI == b.peers()[0].PeerSPI })
		spi := a.peers()[0].SPI
		time.Sleep(12 * time.Second) // six delays of DPD, and max_suppress
		for i, d := range []*daemon{a, b} {
			if p := d.peers(); len(p) != 1 || p[0].SPI != spi && p[0].PeerSPI != spi {
				t.Errorf("pause %v: site %d has %+v, and had %s", pause, i, p, spi)
			}
			for _, wrong := range []string{"dead", "replaced"} {
				if n := len(d.logged(wrong)); n > 0 {
					t.Errorf("pause %v: site %d says %d times %q", pause, i, n, wrong)
				}
			}
		}
		ping(t, ns[0], netA, netB, 3, 20*time.Millisecond)
		ping(t, ns[1], netB, netA, 3, 20*time.Millisecond)
		for _, d := range []*daemon{a, b} {
			d.stop()
			d.must("detach", "--all")
		}
	}
}

// TestStrongSwanAlone: two devices of a person with unique: never do not end each
// other, though each says that it is the only one; without it the second ends the first.
func TestStrongSwanAlone(t *testing.T) {
	for unique, want := range map[string]int{"never": 2, "no": 1} {
		t.Run(unique, func(t *testing.T) {
			t.Parallel()
			s := &site{T: t, net: network(t, 2)}
			yaml := strings.Replace(gatewayConfig{}.yaml(), "    pools: [office]\n", "    pools: [office]\n    unique: "+unique+"\n", 1)
			s.gw = start(t, s.net.Gateway, yaml, gatewayConfig{}.secrets())
			for i := range 2 {
				initiate(t, s.client(i, ""), "net")
			}
			await(t, fmt.Sprintf("%d associations", want), func() bool { return len(s.gw.peers()) == want })
		})
	}
}
