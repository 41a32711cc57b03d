package barrier

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// TestReversePath: where the tunnel is missing and the host filters by the reverse
// path, what carries tunnels arrives from a covered address, and what the path says
// of it; nothing else does. The sockets have no mark, so it is not by theirs.
func TestReversePath(t *testing.T) {
	h := newHost(t)
	at := netip.MustParseAddrPort
	for _, port := range outerPorts {
		to := netip.AddrPortFrom(ours4, port)
		h.hear[to] = h.listen(h.gateway, to)
	}
	const mark, table = 7, 4500
	for _, s := range []string{"all/rp_filter", "g0/rp_filter"} {
		if err := h.gateway.Sysctl("net/ipv4/conf/"+s, "2"); err != nil {
			t.Fatal(err)
		}
	}
	h.do(func() error {
		rule := netlink.NewRule() // as ike/tun has them
		rule.Family, rule.Table, rule.Mark, rule.Invert, rule.Priority = unix.AF_INET, table, mark, true, 100
		link, err := netlink.LinkByName("g0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.RuleAdd(rule),
			netlink.RouteAdd(&netlink.Route{Dst: ipNet("0.0.0.0/0"), LinkIndex: link.Attrs().Index, Scope: unix.RT_SCOPE_LINK}),
			netlink.RouteAdd(&netlink.Route{Dst: ipNet("192.0.2.0/24"), Table: table, Type: unix.RTN_UNREACHABLE}))
	})
	config := Config{Listen: []netip.Addr{ours4}, Tunnels: []Tunnel{everywhere}}
	h.do(func() error {
		f, err := NFTables(Options{Name: "ikepulse-test", TUN: "ikepulse", Mark: mark}, config.Listen)
		if err != nil {
			return err
		}
		return f.Set(config.Plan(Host{}))
	})
	outer := udp(at("198.51.100.1:4500"), at("192.0.2.9:4500")).bytes()
	carries := map[string]packet{
		"IKE":                  udp(at("192.0.2.9:500"), at("198.51.100.1:500")),
		"IKE at the NAT port":  udp(at("192.0.2.9:61201"), at("198.51.100.1:4500")),
		"an error of the path": message(netip.MustParseAddr("192.0.2.9"), ipv4.ICMPTypeDestinationUnreachable, outer),
	}
	for what, p := range carries {
		if h.arrives(p) {
			t.Errorf("%s arrives although marks are not minded: the rest proves nothing", what)
		}
	}
	if err := h.gateway.Sysctl("net/ipv4/conf/all/src_valid_mark", "1"); err != nil {
		t.Fatal(err)
	}
	for what, p := range carries {
		if !h.arrivesAtLast(p) {
			t.Errorf("%s does not arrive", what)
		}
	}
	if h.arrives(udp(at("192.0.2.9:53"), at("198.51.100.1:7"))) {
		t.Error("what is a tunnel's arrives")
	}
}
