package main

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/test/lab"
)

// behind puts a host behind one end of the tunnel, in the network of its address.
func (b *branch) behind(gw *lab.Namespace, host netip.Addr) *lab.Namespace {
	b.t.Helper()
	ns, err := b.lab.Namespace("host " + host.String())
	if err != nil {
		b.t.Fatal(err)
	}
	four := host.As4()
	four[3] = 254
	router := netip.AddrFrom4(four)
	err = lab.Connect(lab.End{Namespace: gw, Name: "l0", Addresses: []netip.Prefix{netip.PrefixFrom(router, 24)}},
		lab.End{Namespace: ns, Name: "h0", Addresses: []netip.Prefix{netip.PrefixFrom(host, 24)}})
	if err == nil {
		err = errors.Join(gw.Sysctl("net/ipv4/ip_forward", "1"), ns.Route(netip.MustParsePrefix("0.0.0.0/0"), router),
			ns.Sysctl("net/ipv4/tcp_mtu_probing", "0")) // the host does not find out by itself
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return ns
}

// TestNarrowPath: where the path takes 1,280 bytes and tells nobody, TCP between
// hosts behind the two ends stands still with the MTU that fits 1,500, which is
// what auto means, and moves in both directions with one that fits: strongSwan at
// the other end lowers no MSS, so that ours does for both.
func TestNarrowPath(t *testing.T) {
	b := newBranch(t, 1280)
	// The gateways tell their hosts nothing either: many a firewall sees to that.
	if err := errors.Join(b.NAT.Hole(), b.far.Hole(), b.Gateway.Hole(), b.ns.Hole()); err != nil {
		t.Fatal(err)
	}
	ourAddr, theirAddr := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.99.0.2")
	ours, theirs := b.behind(b.Gateway, ourAddr), b.behind(b.ns, theirAddr)
	b.open()
	const size = 1 << 20
	for _, path := range []struct {
		mtu   string
		moves bool
	}{
		{"auto", false},
		{"1180", true},
	} {
		within := limit
		if !path.moves {
			within = 2 * time.Second // in which all would have moved
		}
		gw := b.run(b.Gateway, "--config", b.write("gateway.yaml", strings.Replace(branchConfig, "    dpd:", "    mtu: "+path.mtu+"\n    dpd:", 1)))
		b.up()
		for name, do := range map[string]func() (int, error){
			"to the branch": func() (int, error) {
				return lab.Transfer(ours, theirs, netip.AddrPortFrom(theirAddr, 80), size, within)
			},
			"from the branch": func() (int, error) { return lab.Transfer(theirs, ours, netip.AddrPortFrom(ourAddr, 80), size, within) },
		} {
			arrived, err := do()
			if err != nil || (arrived == size) != path.moves || !path.moves && arrived > 0 {
				t.Errorf("mtu: %s, %s: %d bytes have arrived, %v", path.mtu, name, arrived, err)
			}
		}
		b.stop(gw)
	}
	b.want(b.Gateway, 0, nil, "detach", "--all")
}

// TestMTUOfPools: the route to a pool has the smallest MTU of the connections that
// give out its addresses, in the kernel, and the interface the largest of all.
func TestMTUOfPools(t *testing.T) {
	s := newSite(t)
	config := strings.Replace(gatewayConfig, "    pools: [office]\n", "    pools: [office, annex]\n    mtu: 1300\n", 1) +
		"  - {id: \"*@example.net\", psk_file: anna.psk}\n"
	config = strings.Replace(config, "pools:\n  office", `  visitors:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: visitor@example.net}
    pools: [annex]
    mtu: 1290
    children: {net: {local_ts: [0.0.0.0/0], remote_ts: [dynamic]}}
  wide:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: member@example.net}
    pools: [hall]
    mtu: 1380
    children: {net: {local_ts: [0.0.0.0/0], remote_ts: [dynamic]}}
pools:
  annex: {addresses: 10.98.0.0/24}
  hall: {addresses: 10.97.0.0/24}
  office`, 1)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", config))
	names := gateway.NamesOf("default")
	got := map[string]int{}
	err := s.Gateway.Do(func() error {
		routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: names.Table, Type: unix.RTN_UNICAST},
			netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		for _, r := range routes {
			got[r.Dst.String()] = r.MTU
		}
		link, err2 := netlink.LinkByName(names.TUN)
		if err2 == nil {
			got[names.TUN] = link.Attrs().MTU
		}
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	// 0 is that of the interface.
	for what, want := range map[string]int{"10.99.0.0/24": 1300, "10.98.0.0/24": 1290, "10.97.0.0/24": 0, names.TUN: 1380} {
		if mtu, there := got[what]; !there || mtu != want {
			t.Errorf("MTU of %s: %d, want %d; all: %v", what, mtu, want, got)
		}
	}
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "--all")
}
