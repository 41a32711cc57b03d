package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/test/require"
)

// TestCheckHost: what check says of this host is so.
func TestCheckHost(t *testing.T) {
	s := newSite(t)
	s.write("anna.psk", psk)
	file := s.write("gateway.yaml", gatewayConfig)
	strict := func(value string) {
		t.Helper()
		if err := s.Gateway.Sysctl("net/ipv4/conf/all/rp_filter", value); err != nil {
			t.Fatal(err)
		}
	}
	strict("0")
	out := s.want(s.Gateway, 0, []string{": has what XDP needs\n", "bpffs      /sys/fs/bpf\n", "tun        there\n",
		"XDP on     g0 (veth), MTU 1500, receive queues: "}, "check", "--config", file)
	for _, not := range []string{"rp_filter", "LRO", "VLAN", "at this MTU"} {
		if strings.Contains(out, not) {
			t.Errorf("%s in %s", not, out)
		}
	}
	if refused := loader.ProbeFentry() != nil; refused != strings.Contains(out, "evidence   fentry programs are refused (kernel lockdown: ") {
		t.Errorf("fentry is refused: %v, and check says %s", refused, out)
	}
	strict("1")
	both := s.write("both.yaml", strings.Replace(gatewayConfig, "addresses: [198.51.100.1]", "addresses: [198.51.100.1], interfaces: [g0, lo]", 1))
	s.want(s.Gateway, 0, []string{"rp_filter  1 (strict)", "XDP on     g0 (veth), MTU 1500", "XDP on     lo, MTU 65536; most drivers refuse native XDP at this MTU"},
		"check", "--config", both)
	if err := s.Gateway.Do(func() error { return enslave("g0", "br0") }); err != nil {
		t.Fatal(err)
	}
	s.want(s.Gateway, 0, []string{"it is a port of the bridge br0"}, "check", "--config", file)
}

// TestCheckInUserNamespace: in a container without root the kernel refuses
// everything of BPF, and that is no lockdown.
func TestCheckInUserNamespace(t *testing.T) {
	require.Have(t, "root", "bpf")
	writeConfig(t, goodConfig)
	cmd := itself(t, "check", "--config", "ikepulse.yaml")
	self := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: self, GidMappings: self}
	out, errs, err := ended(cmd)
	if err != nil || strings.Contains(out, "lockdown") || strings.Contains(out, "security policy") ||
		strings.Count(out, "run it as the host's root") < 2 {
		t.Errorf("%v: said %s, printed %s", err, errs, out)
	}
}

// enslave makes an interface a port of a new bridge.
func enslave(name, bridge string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridge
	master := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(master); err != nil {
		return err
	}
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetMaster(dev, master)
}
