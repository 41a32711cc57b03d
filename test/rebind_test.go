package test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
)

// TestStrongSwanRebound: the NAT forgets its mappings, and the tunnel goes on
// from the new port: by the first ESP packet that comes from there or, where
// there is none, by strongSwan's next question.
func TestStrongSwanRebound(t *testing.T) {
	for name, c := range map[string]peerConfig{
		"by traffic":  {},
		"by question": {more: "dpd_delay = 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 1, gatewayConfig{answer: "1s"})
			routes := routing(t, s.net.Gateway)
			client := s.client(0, "keep_alive = 1s", c)
			initiate(t, client, "net")
			sa, child := only(t, client)
			vip := vipOf(t, sa.LocalVIPs)
			ping(t, s.net.Clients[0], vip, inner, 2, 10*time.Millisecond)
			was := s.gw.peer()
			ports := []uint16{was.Remote.Port()}
			for range 3 {
				if err := s.net.Masq.Rebind(); err != nil {
					t.Fatal(err)
				}
				await(t, "the tunnel has moved", func() bool {
					if c.more == "" {
						p := lab.Ping{Src: vip, Dst: inner, Count: 1, Timeout: 200 * time.Millisecond}
						if _, _, err := s.net.Clients[0].Ping(t.Context(), p); err != nil {
							t.Fatal(err)
						}
					}
					return s.gw.peer().Remote != was.Remote
				})
				now := s.gw.peer()
				if now.SPI != was.SPI || now.Child.InSPI != was.Child.InSPI || now.Child.Remote != now.Remote || now.Remote.Addr() != lab.NATAddr {
					t.Errorf("now %+v, was %+v", now, was)
				}
				checkOne(s, now)
				if entry, ok, err := s.gw.maps().SAs.Get(child.SPIOut); !ok || err != nil || entry.Tuple.Peer != now.Remote || !entry.NATted {
					t.Errorf("the SPI's entry is %+v, %v; the peer is at %v", entry, err, now.Remote)
				}
				ping(t, s.net.Clients[0], vip, inner, 3, 10*time.Millisecond)
				ping(t, s.net.Gateway, inner, vip, 3, 10*time.Millisecond)
				was = now
				ports = append(ports, now.Remote.Port())
			}
			if moved := s.gw.logged("moved"); len(moved) != 3 || len(slices.Compact(ports)) != 4 {
				t.Errorf("our log %+v, ports %v", moved, ports)
			}
			if sent := s.gw.peer(); strings.Contains(client.Log(), "received DELETE") || sent.SPI != was.SPI {
				t.Errorf("the tunnel is another: %+v", sent)
			}
			await(t, "keepalives from the new port are answered", func() bool { return s.gw.peer().Answered > 0 })
			if err := client.Terminate("home"); err != nil {
				t.Fatal(err)
			}
			s.cleared(routes)
		})
	}
}

// TestStrongSwanIsNotMoved: what anybody can send from elsewhere moves nothing:
// not a copy of an ESP packet, nor one that is not authentic, nor a copy of a
// request.
func TestStrongSwanIsNotMoved(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, gatewayConfig{})
	all := s.uplink(nil)
	client := s.client(0, keyLog, peerConfig{more: "dpd_delay = 1s"})
	initiate(t, client, "net")
	sa, _ := only(t, client)
	f := s.newForger(0, client)
	await(t, "strongSwan's question is answered", func() bool { return len(messages(all, true, informational, true)) > 0 })
	was := s.gw.peer()

	good := f.seal(echo(t, vipOf(t, sa.LocalVIPs), inner))
	f.send(good)
	await(t, "it has come", func() bool { return s.gw.status().Dataplane.Counters["in"] == 1 })
	broken := f.seal(echo(t, vipOf(t, sa.LocalVIPs), inner))
	broken[len(broken)-1] ^= 1
	request := append(make([]byte, 4), messages(all, false, informational, false)[0].data...)
	elsewhere := netip.AddrPortFrom(lab.ClientAddr(1), lab.NATTPort)
	for _, packet := range [][]byte{good, broken, request} {
		sendRaw(t, s.net.Clients[1], elsewhere, netip.AddrPortFrom(lab.GatewayAddr, lab.NATTPort), packet)
	}
	await(t, "all have come", func() bool {
		c := s.gw.status().Dataplane.Counters
		return c["replay"] == 1 && c["icv"] == 1
	})
	if now := s.gw.peer(); now.Remote != was.Remote || len(s.gw.logged("moved")) != 0 {
		t.Errorf("moved to %v: %+v", now.Remote, s.gw.logged("moved"))
	}
	checkOne(s, was)
	ping(t, s.net.Gateway, inner, vipOf(t, sa.LocalVIPs), 3, 10*time.Millisecond)
}
