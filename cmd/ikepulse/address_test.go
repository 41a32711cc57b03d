package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// late is an address that the gateway does not have at first.
const late = "198.51.100.77"

var lateConfig = strings.Replace(gatewayConfig, "198.51.100.1]", "198.51.100.1, "+late+"]", 1)

// addressed gives an interface an address, or takes it away.
func (s *site) addressed(ns *lab.Namespace, ifname, prefix string, flags int, change func(netlink.Link, *netlink.Addr) error) {
	s.t.Helper()
	p := netip.MustParsePrefix(prefix)
	err := ns.Do(func() error {
		dev, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		return change(dev, &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, Flags: flags})
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// becomes waits for a status that says something, or with "" for a healthy one.
func (s *site) becomes(says string) {
	s.t.Helper()
	s.await("status: "+says, func() error {
		st, code := s.status(s.Gateway)
		if said := strings.Join(st.Problems, "\n"); says == "" && code != 0 || !strings.Contains(said, says) {
			return fmt.Errorf("exit code %d: %q", code, st.Problems)
		}
		return nil
	})
}

// TestAddressComesLate: who listens on an address that is not there yet serves
// the others, says so, and serves it when it comes; check names it.
func TestAddressComesLate(t *testing.T) {
	s := newSite(t)
	config := s.write("gateway.yaml", lateConfig)
	s.write("anna.psk", psk+"\n")
	s.want(s.Gateway, 0, []string{late + ": no interface here has it"}, "check", "--config", config)
	gw, client := s.tunnelBy(lateConfig)
	s.ping(1)
	s.want(s.Gateway, exitDegraded, []string{"problem    the listen address " + late + " cannot be used: no interface here has it"}, "status")
	s.addressed(s.Gateway, "g0", late+"/24", 0, netlink.AddrAdd)
	s.becomes("")
	s.stop(client)
	client = s.run(s.Clients[0], "--instance", "anna", "--config",
		s.write("anna.yaml", strings.Replace(fmt.Sprintf(clientConfig, s.dir), "addresses: [198.51.100.1]", "addresses: ["+late+"]", 1)))
	s.want(s.Clients[0], 0, []string{"office is up\n"}, "--instance", "anna", "initiate", "office")
	s.ping(1)
	if log := gw.log.String(); !strings.Contains(log, `msg="a listen address can be used" address=`+late) {
		t.Error(log)
	}
	s.stop(gw, client)
	s.detached()
}

// TestNoAddressAtStart: with none of its addresses the gateway runs and waits,
// and XDP is where the address is when that comes.
func TestNoAddressAtStart(t *testing.T) {
	s := newSite(t)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", strings.Replace(gatewayConfig, "198.51.100.1]", late+"]", 1)))
	s.becomes("the listen address " + late + " cannot be used")
	s.laid("g1")
	s.addressed(s.Gateway, "g1", late+"/32", 0, netlink.AddrAdd)
	s.awaitOn("g1")
	s.becomes("")
	s.stop(gw)
	s.want(s.Gateway, 0, []string{"g1: detached", "removed"}, "detach", "--all")
}

// TestAddressLost: an address that goes is said, its tunnel is not called dead,
// and works again when the address is back.
func TestAddressLost(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	s.ping(1)
	s.addressed(s.Gateway, "g0", "198.51.100.1/24", 0, netlink.AddrDel)
	s.becomes("the listen address 198.51.100.1 cannot be used")
	time.Sleep(10 * time.Second) // longer than it takes to call a peer dead: delay and all tries are 4.5 s
	if st, _ := s.status(s.Gateway); st.IKE.Up != 1 || st.IKE.Counters["dead"] != 0 {
		t.Errorf("%d up, %d dead", st.IKE.Up, st.IKE.Counters["dead"])
	}
	s.addressed(s.Gateway, "g0", "198.51.100.1/24", 0, netlink.AddrAdd)
	s.becomes("")
	s.await("the peer has answered", func() error {
		if st, _ := s.status(s.Gateway); st.IKE.Counters["probes_answered"] == 0 && !strings.Contains(gw.log.String(), "can be used") {
			return errors.New("not yet")
		}
		return nil
	})
	s.ping(3)
	if st, _ := s.status(s.Gateway); st.IKE.Counters["dead"] != 0 || st.IKE.Counters["established"] != 1 {
		t.Errorf("%v", st.IKE.Counters)
	}
	s.stop(gw, client)
	s.detached()
}

// TestAddressTentative: an IPv6 address that others are still asked about keeps
// nobody waiting, and one that another host has is named as that.
func TestAddressTentative(t *testing.T) {
	s := newSite(t)
	const ours, theirs = "2001:db8:1::1", "2001:db8:1::2"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s.addressed(s.NAT, "n0", theirs+"/64", unix.IFA_F_NODAD, netlink.AddrAdd)
	s.addressed(s.Gateway, "g0", theirs+"/64", 0, netlink.AddrAdd)
	must(s.Gateway.Sysctl("net/ipv6/conf/g0/dad_transmits", "60"))
	s.addressed(s.Gateway, "g0", ours+"/64", 0, netlink.AddrAdd)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml",
		strings.Replace(gatewayConfig, "198.51.100.1]", `198.51.100.1, "`+ours+`", "`+theirs+`"]`, 1)))
	s.becomes("the listen address " + ours + " cannot be used: it is tentative on g0")
	s.becomes("the listen address " + theirs + " cannot be used: duplicate address detection failed on g0")
	s.want(s.Gateway, 0, []string{ours + ": it is tentative", theirs + ": duplicate address"}, "check", "--config", filepath.Join(s.dir, "gateway.yaml"))
	for _, a := range []string{ours, theirs} {
		s.addressed(s.Gateway, "g0", a+"/64", 0, netlink.AddrDel)
		s.addressed(s.Gateway, "g0", a+"/64", unix.IFA_F_NODAD, netlink.AddrAdd)
	}
	s.becomes("")
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "--all")
}

// TestIPv6Off: where the host has no IPv6, a pool of it is named and gives no
// address; IPv4 goes on.
func TestIPv6Off(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"all", "default"} {
		if err := s.Gateway.Sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil {
			t.Fatal(err)
		}
	}
	both := strings.NewReplacer("pools: [office]", "pools: [office, six]", "198.51.100.1]", `198.51.100.1, "2001:db8:1::1"]`,
		"10.99.0.0/24}", "10.99.0.0/24}\n  six: {addresses: \"fd99::/64\"}").Replace(gatewayConfig)
	gw, client := s.tunnelBy(both)
	s.ping(1)
	why := "net.ipv6.conf.all.disable_ipv6 is 1"
	s.want(s.Gateway, exitDegraded, []string{"pool six (fd99::/64) gives no address: " + why, "2001:db8:1::1 cannot be used: " + why}, "status")
	s.want(s.Gateway, 0, []string{"pool six (fd99::/64) gives no address: " + why, "2001:db8:1::1: " + why}, "check", "--config", filepath.Join(s.dir, "gateway.yaml"))
	s.stop(gw, client)
	s.detached()
}

// TestPortInUse: somebody else's socket is refused at the start, in words.
func TestPortInUse(t *testing.T) {
	s := newSite(t)
	err := s.Gateway.Do(func() error {
		c, err := net.ListenPacket("udp4", "0.0.0.0:500")
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.write("anna.psk", psk+"\n")
	s.want(s.Gateway, exitError, []string{"address already in use: another IKE daemon"}, "run", "--config", s.write("gateway.yaml", lateConfig))
}
