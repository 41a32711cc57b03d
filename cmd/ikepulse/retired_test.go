package main

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestInterfaceRetired: XDP leaves what is not configured any more at the next
// start, one that is gone keeps nobody degraded, and what a person has attached
// stays.
func TestInterfaceRetired(t *testing.T) {
	s := newSite(t)
	s.laid("old0")
	s.laid("old1")
	s.laid("hand0")
	s.laid("hand1")
	two := s.write("two.yaml", strings.Replace(gatewayConfig, "198.51.100.1]", "198.51.100.1], interfaces: [g0, old0, old1]", 1))
	gw := s.run(s.Gateway, "--config", two)
	s.want(s.Gateway, 0, nil, "attach", "hand0", "hand1")
	s.want(s.Gateway, 0, []string{"healthy\n", "xdp        old1 native"}, "status")
	s.stop(gw)
	s.deleted("old0")
	s.deleted("hand1")
	gw = s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	s.becomes("")
	if s.onInterface("old1") != 0 || s.onInterface("hand0") == 0 || s.onInterface("g0") == 0 {
		t.Errorf("programs: old1 %d, hand0 %d, g0 %d", s.onInterface("old1"), s.onInterface("hand0"), s.onInterface("g0"))
	}
	if log := gw.log.String(); strings.Count(log, "XDP has left an interface that is not configured any more") != 3 {
		t.Error(log)
	}
	s.stop(gw)
	s.want(s.Gateway, 0, []string{"g0: detached", "hand0: detached", "removed"}, "detach", "--all")
}

// TestNoEthernetHeader: XDP is refused where packets have none, by attach and by
// the daemon, and check says so; the loopback has one.
func TestNoEthernetHeader(t *testing.T) {
	s := newSite(t)
	err := s.Gateway.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "ppp9"
		dev := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TUN}
		if err := netlink.LinkAdd(dev); err != nil {
			return err
		}
		return netlink.LinkSetUp(dev)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.addressed(s.Gateway, "ppp9", late+"/32", 0, netlink.AddrAdd)
	const why = "its packets have no Ethernet header"
	s.want(s.Gateway, exitError, []string{"attaching to ppp9: " + why}, "attach", "ppp9")
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", lateConfig))
	s.becomes("XDP is not on ppp9: attaching to ppp9: " + why)
	s.want(s.Gateway, 0, []string{"ppp9", why}, "check", "--config", s.dir+"/gateway.yaml")
	s.want(s.Gateway, 0, []string{"lo: attached"}, "attach", "lo")
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "--all")
}
