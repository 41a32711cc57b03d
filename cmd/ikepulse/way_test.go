package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/test/lab"
)

// pings wants that echo requests are answered.
func (s *site) pings(what string, from *lab.Namespace, to netip.Addr) {
	s.t.Helper()
	sent, received, err := from.Ping(s.t.Context(), lab.Ping{Dst: to, Count: 2, Interval: 50 * time.Millisecond, Timeout: 5 * time.Second})
	if err != nil || received != sent {
		s.t.Errorf("%s: %d of %d pings answered, %v", what, received, sent, err)
	}
}

// TestWayStaysOpen: a client whose tunnel is for everything keeps its router, its
// neighbours and the way to the gateway, also when its default route is renewed.
func TestWayStaysOpen(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	c, router := s.Clients[0], netip.MustParseAddr("10.7.0.1")
	everything := func(when string) {
		t.Helper()
		s.ping(2)
		s.pings("the router "+when, c, router)
		s.pings("from the router "+when, s.NAT, lab.ClientAddr(0))
		s.pings("the gateway's outer address "+when, c, lab.GatewayAddr)
	}
	everything("at first")
	everywhere := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	for _, named := range []bool{true, false} {
		err := c.Do(func() error {
			link, err := netlink.LinkByName(lab.ClientLink)
			if err != nil {
				return err
			}
			r := &netlink.Route{Dst: everywhere, Gw: router.AsSlice()}
			if named { // else the kernel looks for the way to the router itself
				r.LinkIndex = link.Attrs().Index
			}
			if err := errors.Join(netlink.RouteDel(&netlink.Route{Dst: everywhere, Gw: router.AsSlice()}), netlink.RouteAdd(r)); err != nil {
				return err
			}
			found, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN, Gw: router.AsSlice()}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_GW)
			if err == nil && (len(found) != 1 || found[0].LinkIndex != link.Attrs().Index) {
				err = fmt.Errorf("the default route is %v", found)
			}
			return err
		})
		if err != nil {
			t.Fatalf("by the interface's name %v: %v", named, err)
		}
		everything(fmt.Sprintf("after the default route was renewed, by the interface's name %v", named))
	}
	if st, code := s.status(c, "--instance", "anna"); code != 0 {
		t.Errorf("the client is not healthy: %q", st.Problems)
	}
	s.stop(client, gw)
	s.detached()
}

// TestNeighboursOfAGateway: with everything at both ends, who is on its segment
// still reaches the gateway.
func TestNeighboursOfAGateway(t *testing.T) {
	s := newSite(t)
	config := strings.NewReplacer("remote_ts: [dynamic]", "remote_ts: [0.0.0.0/0]", "    pools: [office]\n", "",
		"pools:\n  office: {addresses: 10.99.0.0/24}\n", "").Replace(gatewayConfig)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", config))
	s.pings("from a neighbour", s.NAT, lab.GatewayAddr)
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "--all")
}

// TestUnprotected: where the operator says so, what is covered goes in the clear
// while no tunnel takes it, and status says so.
func TestUnprotected(t *testing.T) {
	s := newForged(t)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", "unprotected: pass\n"+strings.Replace(gatewayConfig, "remote_ts: [dynamic]", "remote_ts: [10.99.0.0/25]", 1)))
	c := s.chat()
	time.Sleep(100 * time.Millisecond)
	if _, in := c.end(); in == 0 {
		t.Error("nothing comes in")
	}
	st, _ := s.status(s.Gateway)
	if st.Barriers.Unprotected != "pass" {
		t.Errorf("%+v", st.Barriers)
	}
	s.want(s.Gateway, 0, []string{"barriers", "goes in the clear while the tunnel is missing"}, "status")
	for _, line := range s.kernelState() {
		if strings.Contains(line, fmt.Sprintf("type %d", unix.RTN_UNREACHABLE)) || strings.Contains(line, "ikepulse-"+gateway.NamesOf("default").Instance) {
			t.Errorf("with unprotected: pass there is %s", line)
		}
	}
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "--all")
}

// TestCheckHiddenNetwork: a tunnel that is for less than everything and hides a
// network that the host is on is an error, unless that is told to stay outside.
func TestCheckHiddenNetwork(t *testing.T) {
	s := newSite(t)
	s.write("anna.psk", psk+"\n")
	narrow := strings.Replace(fmt.Sprintf(clientConfig, s.dir), "remote_ts: [0.0.0.0/0]", "remote_ts: [10.0.0.0/8, \"172.16.0.0/12[tcp/443]\"]", 1)
	s.want(s.Clients[0], exitError, []string{"the network 10.7.0.0/24 of c0 lies in 10.0.0.0/8, which the tunnel of office covers"},
		"check", "--config", s.write("anna.yaml", narrow))
	s.want(s.Gateway, 0, []string{"is good"}, "check", "--config", s.dir+"/anna.yaml") // it is for another host
	s.want(s.Clients[0], 0, []string{"is good", "office: remote_ts 172.16.0.0/12[6/443] leads all of 172.16.0.0/12 into the tunnel, which drops the rest"},
		"check", "--config", s.write("anna.yaml", "bypass: [10.7.0.0/24]\n"+narrow))
	s.want(s.Clients[0], exitError, []string{"10.0.0.0/8 lies within bypass 0.0.0.0/0, so no packet would take the tunnel"},
		"check", "--config", s.write("anna.yaml", "bypass: [0.0.0.0/0]\n"+narrow))
}
