package test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/test/lab"
)

// TestStrongSwanVariety: what else a strongSwan may be configured to.
func TestStrongSwanVariety(t *testing.T) {
	for _, tt := range []struct {
		name     string
		settings string
		config   peerConfig
		vip      string // empty: the pool's first
	}{
		{name: "the NAT-T port from the start", config: peerConfig{more: "local_port = 4500\nremote_port = 4500"}},
		{name: "ports of its own", settings: "port = 0\nport_nat_t = 0", config: peerConfig{more: "remote_port = 4500"}},
		{name: "no MOBIKE", config: peerConfig{more: "mobike = no"}},
		{name: "it wishes for an address of the pool", config: peerConfig{vips: "10.98.0.77"}, vip: "10.98.0.77"},
		{name: "it wishes for an address of others", config: peerConfig{vips: "10.1.2.3"}},
		{name: "it wishes for IPv6, too", config: peerConfig{vips: "0.0.0.0,::"}},
		{name: "it wants to reach everything", config: peerConfig{remoteTS: "0.0.0.0/0"}},
		{name: "it wants to reach many things", config: peerConfig{remoteTS: "10.50.0.0/16,10.99.0.0/24,10.99.0.0/16[udp]"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 1, gatewayConfig{})
			client := s.client(0, tt.settings, tt.config)
			initiate(t, client, "net")
			sa, child := only(t, client)
			vip := vipOf(t, sa.LocalVIPs)
			if vip.String() != or(tt.vip, "10.98.0.1") || child.RemoteTS[0] != "10.99.0.1/32" || !slices.Equal(child.LocalTS, []string{vip.String() + "/32"}) {
				t.Errorf("strongSwan has %v and %+v", vip, child)
			}
			ping(t, s.net.Clients[0], vip, inner, 3, 10*time.Millisecond)
			ping(t, s.net.Gateway, inner, vip, 3, 10*time.Millisecond)
			checkOne(s, s.gw.peer())
		})
	}
}

// TestStrongSwanWithoutNAT: a peer that stands behind nothing is encapsulated,
// too. strongSwan's user-space ESP, like ours, has to say that it has a NAT.
func TestStrongSwanWithoutNAT(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	if err := s.net.Masq.Remove(); err != nil {
		t.Fatal(err)
	}
	client := startCharon(t, s.gw, s.net.NAT, t.TempDir(), "", swanctl(peerConfig{}))
	initiate(t, client, "net")
	sa, child := only(t, client)
	p := s.gw.peer()
	if sa.NATLocal || !child.Encap || p.LocalNATted || p.Remote != netip.AddrPortFrom(lab.NATAddr, lab.NATTPort) {
		t.Errorf("ours %+v, theirs %+v, %+v", p, sa, child)
	}
	ping(t, s.net.NAT, vipOf(t, sa.LocalVIPs), inner, 3, 10*time.Millisecond)
	ping(t, s.net.Gateway, inner, vipOf(t, sa.LocalVIPs), 3, 10*time.Millisecond)
	checkOne(s, p)
}

// TestStrongSwanChangesAddress: the client is elsewhere. It offers MOBIKE, hears
// nothing of it from us, and comes again from there.
func TestStrongSwanChangesAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	client := s.client(0, "")
	initiate(t, client, "net")
	was := s.gw.peer()
	err := s.net.Clients[0].Do(func() error {
		link, err := netlink.LinkByName(lab.ClientLink)
		if err != nil {
			return err
		}
		old, now := &netlink.Addr{IPNet: subnet(lab.ClientAddr(0))}, &netlink.Addr{IPNet: subnet(lab.ClientAddr(0).Next())}
		return errors.Join(netlink.AddrDel(link, old), netlink.AddrAdd(link, now))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.net.Clients[0].Route(netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.MustParseAddr("10.7.0.1")); err != nil {
		t.Fatal(err)
	}
	await(t, "the client is back", func() bool {
		peers := s.gw.peers()
		return len(peers) == 1 && peers[0].SPI != was.SPI && peers[0].Child != nil
	})
	await(t, "the client has its tunnel, from its new address", func() bool {
		sas, err := client.SAs()
		return err == nil && len(sas) == 1 && len(sas[0].Children) == 1 && sas[0].Local.Addr() == lab.ClientAddr(0).Next()
	})
	sa, _ := only(t, client)
	ping(t, s.net.Clients[0], vipOf(t, sa.LocalVIPs), inner, 3, 10*time.Millisecond)
	checkOne(s, s.gw.peer())
}

func subnet(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}
}

// TestStrongSwanSizes: packets of every size pass, whole, also those that the
// path cannot carry in one piece.
func TestStrongSwanSizes(t *testing.T) {
	for _, esp := range []string{"aes256gcm16", "aes256-sha256"} {
		t.Run(esp, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 1, gatewayConfig{esp: esp})
			client := s.client(0, "", peerConfig{esp: esp})
			initiate(t, client, "net")
			sa, _ := only(t, client)
			a := netip.AddrPortFrom(vipOf(t, sa.LocalVIPs), 7777)
			b := netip.AddrPortFrom(inner, 7777)
			from, to := listen(t, s.net.Clients[0], a), listen(t, s.net.Gateway, b)
			for _, size := range []int{0, 1, 2, 3, 4, 15, 16, 17, 500, 1370, 1371, 1372, 1373, 1399, 1400, 1401, 1472, 1473, 4000, 20000, 65000} {
				carry(t, from, to, b, size)
				carry(t, to, from, a, size)
			}
			c := s.gw.status().Dataplane.Counters
			for _, bad := range []string{"icv", "replay", "selector", "malformed", "send_errors", "device_errors", "no_tunnel"} {
				if c[bad] != 0 {
					t.Errorf("%s: %d", bad, c[bad])
				}
			}
		})
	}
}

func listen(t *testing.T, n *lab.Namespace, at netip.AddrPort) (c *net.UDPConn) {
	t.Helper()
	err := n.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// carry sends one datagram and waits for it at the other end.
func carry(t *testing.T, from, to *net.UDPConn, at netip.AddrPort, size int) {
	t.Helper()
	sent, buf := bytes.Repeat([]byte{byte(size), 7}, size/2+1)[:size], make([]byte, 1<<16)
	if _, err := from.WriteToUDPAddrPort(sent, at); err != nil {
		t.Fatalf("%d bytes to %v: %v", size, at, err)
	}
	if err := to.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	n, _, err := to.ReadFromUDPAddrPort(buf)
	if err != nil || !bytes.Equal(buf[:n], sent) {
		t.Fatalf("%d bytes to %v: %d came, %v", size, at, n, err)
	}
}

// TestStrongSwanSecondChild: a second child is refused; the first goes on.
func TestStrongSwanSecondChild(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	more := "}\nmore {\nesp_proposals = aes256gcm16\nremote_ts = " + inner.String() + "/32[tcp]"
	client := s.client(0, "", peerConfig{child: more})
	initiate(t, client, "net")
	was := s.gw.peer()
	if err := client.Initiate("more"); err == nil || !strings.Contains(err.Error(), "received NO_ADDITIONAL_SAS notify") {
		t.Errorf("a second child: %v", err)
	}
	sa, _ := only(t, client)
	ping(t, s.net.Clients[0], vipOf(t, sa.LocalVIPs), inner, 3, 10*time.Millisecond)
	if now := s.gw.peer(); now.SPI != was.SPI || now.Child.InSPI != was.Child.InSPI {
		t.Errorf("the tunnel is %+v, and was %+v", now, was)
	}
	checkOne(s, was)
}

// TestStrongSwanCookie: where somebody leaves handshakes half open, others from
// the same address must show that they can be reached, and then get in.
func TestStrongSwanCookie(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, gatewayConfig{})
	all := s.uplink(nil)
	client := s.client(0, "")
	initiate(t, client, "net")
	if err := client.Terminate("home"); err != nil {
		t.Fatal(err)
	}
	first := messages(all, false, saInit, false)[0].data
	a := s.stranger(1)
	for n := range uint64(20) {
		b := slices.Clone(first)
		binary.BigEndian.PutUint64(b, n+1)
		a.send(500, b)
	}
	await(t, "a cookie is demanded", func() bool { return s.gw.status().IKE.Counters["cookies_demanded"] > 0 })
	open := s.gw.status().IKE.Handshakes.HalfOpen
	if open == 0 || open >= 20 {
		t.Errorf("%d half-open", open)
	}
	initiate(t, client, "net")
	if !strings.Contains(client.Log(), "parsed IKE_SA_INIT response 0 [ N(COOKIE) ]") {
		t.Error("strongSwan was not asked for a cookie")
	}
	sa, _ := only(t, client)
	ping(t, s.net.Clients[0], vipOf(t, sa.LocalVIPs), inner, 3, 10*time.Millisecond)
}
