package tun

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/test/lab"
)

// TestTakenAddresses: a virtual address that is this host's already, on
// whatever interface, or that would cut the host off from its network, is
// refused, and nothing has changed; one that is free is taken by both of two
// tunnels that it was given for.
func TestTakenAddresses(t *testing.T) {
	l := newLab(t)
	s := newSide(t, namespace(t, l, "client"))
	p := netip.MustParsePrefix
	if err := lab.Connect(lab.End{Namespace: s.ns, Name: "c0", Addresses: []netip.Prefix{p("10.7.0.2/24"), p("2001:db8:7::2/64")}},
		lab.End{Namespace: namespace(t, l, "far"), Name: "f0", Addresses: []netip.Prefix{p("10.7.0.1/24"), p("2001:db8:7::1/64")}}); err != nil {
		t.Fatal(err)
	}
	if err := s.ns.Route(p("0.0.0.0/0"), netip.MustParseAddr("10.7.0.1")); err != nil {
		t.Fatal(err)
	}
	if err := s.ns.Address("lo", p("10.20.0.1/32")); err != nil {
		t.Fatal(err)
	}
	install := func(n uint32, vips ...string) (err error) {
		c, _ := children(t, n, subnets("0.0.0.0/0"), subnets("10.64.0.0/16"))
		for _, v := range vips {
			c.VirtualIPs = append(c.VirtualIPs, netip.MustParseAddr(v))
		}
		s.do(func() { err = s.plane.Shard(0).InstallInbound(c) })
		return err
	}
	for _, c := range []struct{ addr, why string }{
		{"10.7.0.2", "has it already"},
		{"10.20.0.1", "has it already"}, // of no interface that has anything to do with it
		{"2001:db8:7::2", "has it already"},
		{"10.7.0.255", "no host's"},
		{"10.7.0.0", "no host's"},
		{"10.7.0.1", "next hop"},
	} {
		for _, vips := range [][]string{{c.addr}, {"10.99.0.7", c.addr}} {
			if err := install(1, vips...); err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v: %v, want one that says %q", vips, err, c.why)
			}
		}
	}
	if got := s.addresses(); len(got) != 0 {
		t.Errorf("addresses %q", got)
	}
	for n := range uint32(2) {
		if err := install(n+1, "10.99.0.7"); err != nil {
			t.Errorf("tunnel %d: %v", n+1, err)
		}
	}
	if got := s.addresses(); !slices.Equal(got, []string{"10.99.0.7/32"}) {
		t.Errorf("addresses %q", got)
	}
}
