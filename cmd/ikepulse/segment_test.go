package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// segment is the network that the client is attached to, with a router that gives
// out leases and prefixes, and would have all traffic.
type segment struct {
	*site
	router net.HardwareAddr
	xid    uint32
	ra     int // the router's raw socket
}

var (
	routerLink  = netip.MustParseAddr("fe80::1")
	firstNet    = netip.MustParsePrefix("2001:db8:7::/64")
	secondNet   = netip.MustParsePrefix("2001:db8:8::/64")
	routerHere  = netip.MustParseAddr("2001:db8:8::1") // in the second
	routedAside = netip.MustParsePrefix("2001:db8:9::/48")
	narrowMTU   = 700
)

func newSegment(t *testing.T) *segment {
	t.Helper()
	s := &segment{site: newSite(t)}
	host := func(a netip.Addr, bits int) netip.Prefix { return netip.PrefixFrom(a, bits) }
	client := s.Clients[0]
	err := errors.Join(s.NAT.Address("c0", host(onLink, 24)), s.NAT.Address("c0", host(routerLink, 64)), s.NAT.Address("c0", host(routerHere, 64)),
		s.NAT.Address("lo", host(offLink, 32)), client.Address(lab.ClientLink, leased),
		s.NAT.Sysctl("net/ipv6/conf/all/forwarding", "1"), // or its neighbours take it for a host
		client.Sysctl("net/ipv4/conf/all/rp_filter", "2"), // as systemd has it
		client.Sysctl("net/ipv6/conf/c0/accept_ra_rt_info_max_plen", "128"),
		client.Sysctl("net/ipv6/conf/c0/addr_gen_mode", "0"), // makes a link-local address
		s.NAT.Do(func() error {
			dev, err := netlink.LinkByName("c0")
			if err != nil {
				return err
			}
			s.router = dev.Attrs().HardwareAddr
			s.ra, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
			if err != nil {
				return err
			}
			return errors.Join(
				unix.SetsockoptInt(s.ra, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255),
				unix.Bind(s.ra, &unix.SockaddrInet6{Addr: routerLink.As16(), ZoneId: uint32(dev.Attrs().Index)}))
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(s.ra) })
	s.dhcpServer(onLink, true)
	s.dhcpServer(offLink, false)
	return s
}

// advertise sends a router advertisement with a prefix, and with a route that a
// hostile router adds. RFC 4861 §4.2, RFC 4191 §2.3
func (s *segment) advertise(prefix netip.Prefix, valid, preferred uint32) {
	s.t.Helper()
	b := []byte{134, 0, 0, 0, 64, 0}
	b = binary.BigEndian.AppendUint16(b, 1800) // of the router
	b = append(b, make([]byte, 8)...)
	b = append(b, 3, 4, byte(prefix.Bits()), 0xc0)
	b = binary.BigEndian.AppendUint32(b, valid)
	b = binary.BigEndian.AppendUint32(b, preferred)
	b = append(append(b, 0, 0, 0, 0), prefix.Addr().AsSlice()...)
	b = append(b, 24, 3, byte(routedAside.Bits()), 0x08)
	b = binary.BigEndian.AppendUint32(b, 1800)
	b = append(b, routedAside.Addr().AsSlice()...)
	all := netip.MustParseAddr("ff02::1")
	if err := unix.Sendto(s.ra, b, 0, &unix.SockaddrInet6{Addr: all.As16()}); err != nil {
		s.t.Fatal(err)
	}
}

// addressIn is what the client has made of a prefix.
func (s *segment) addressIn(prefix netip.Prefix) (found netip.Addr, flags, valid int) {
	s.t.Helper()
	s.onClient(func(dev netlink.Link) error {
		all, err := netlink.AddrList(dev, netlink.FAMILY_V6)
		for _, a := range all {
			if ours, _ := netip.AddrFromSlice(a.IP); prefix.Contains(ours) {
				found, flags, valid = ours, a.Flags, a.ValidLft
			}
		}
		return err
	})
	return found, flags, valid
}

func (s *segment) onClient(f func(dev netlink.Link) error) {
	s.t.Helper()
	err := s.Clients[0].Do(func() error {
		dev, err := netlink.LinkByName(lab.ClientLink)
		if err != nil {
			return err
		}
		return f(dev)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// configured waits until advertisements have given the client an address that
// nobody else has, valid for about so long.
func (s *segment) configured(prefix netip.Prefix, valid, preferred uint32) netip.Addr {
	s.t.Helper()
	var got netip.Addr
	s.await(fmt.Sprintf("an address in %v for %d s", prefix, valid), func() error {
		s.advertise(prefix, valid, preferred)
		a, flags, left := s.addressIn(prefix)
		if deprecated := flags&unix.IFA_F_DEPRECATED != 0; !a.IsValid() || flags&unix.IFA_F_TENTATIVE != 0 || deprecated != (preferred == 0) ||
			left > int(valid) || left < int(valid)-60 {
			return fmt.Errorf("%v, flags %x, valid for %d s", a, flags, left)
		}
		got = a
		return nil
	})
	return got
}

// leases renews the lease in every way.
func (s *segment) leases(when string) {
	s.t.Helper()
	for _, packets := range []bool{false, true} {
		kind := map[bool]string{false: "UDP", true: "packets"}[packets]
		s.renews(when+": renewed on the link by "+kind, onLink, packets)
		s.renews(when+": renewed beyond the link by "+kind, offLink, packets)
		s.renews(when+": rebound by "+kind, everyone, packets)
	}
}

// aims are where the network would like to have the client's packets for.
var aims = []netip.Addr{inner, netip.MustParseAddr("192.88.99.9"), onLink, netip.MustParseAddr("2001:db8:9::9"), routerHere}

// escaped is to which of those a packet left in the clear.
func (s *segment) escaped() (to map[netip.Addr]bool) {
	s.t.Helper()
	seen, err := s.Clients[0].Capture(lab.ClientLink, func(f lab.Frame) bool { return f.Outgoing && bytes.Contains(f.Data, []byte(secretText)) })
	if err != nil {
		s.t.Fatal(err)
	}
	err = s.Clients[0].Do(func() error {
		for range 3 {
			for _, a := range aims {
				c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 7)))
				if err != nil {
					continue // a barrier that says so
				}
				_, _ = c.Write([]byte(secretText)) // as above
				c.Close()
			}
			time.Sleep(100 * time.Millisecond) // neighbours are found
		}
		return nil
	})
	frames, errStop := seen.Stop()
	if err := errors.Join(err, errStop); err != nil {
		s.t.Fatal(err)
	}
	to = map[netip.Addr]bool{}
	for _, f := range frames {
		if _, dst, _, ok := f.UDP(); ok {
			to[dst.Addr()] = true
		}
	}
	return to
}

// hasRoute reports whether the main table follows the router's advertisement.
func (s *segment) hasRoute(to netip.Prefix) (yes bool) {
	s.t.Helper()
	s.onClient(func(netlink.Link) error {
		routes, err := netlink.RouteList(nil, netlink.FAMILY_V6)
		for _, r := range routes {
			yes = yes || r.Dst != nil && r.Dst.String() == to.String() && r.Gw.Equal(routerLink.AsSlice())
		}
		return err
	})
	return yes
}

// neighbours wants that both ends of the link find each other, and that an address
// which the router has is found to be taken.
func (s *segment) neighbours(ours netip.Addr) {
	s.t.Helper()
	for _, c := range []struct {
		from  *lab.Namespace
		to    netip.Addr
		iface string
	}{{s.NAT, ours, ""}, {s.NAT, leased.Addr(), ""}, {s.Clients[0], routerLink, "c0"}} {
		s.await(fmt.Sprintf("%v is found", c.to), func() error {
			return c.from.Do(func() error {
				dev, err := netlink.LinkByName("c0")
				if err != nil {
					return err
				}
				to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.to.WithZone(c.iface), 9))
				if u, err := net.DialUDP("udp", nil, to); err == nil {
					_, _ = u.Write([]byte("anybody there"))
					u.Close()
				}
				all, err := netlink.NeighList(dev.Attrs().Index, netlink.FAMILY_ALL)
				for _, n := range all {
					if n.IP.Equal(c.to.AsSlice()) && len(n.HardwareAddr) > 0 && n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) == 0 {
						return nil
					}
				}
				return fmt.Errorf("%v, %v", all, err)
			})
		})
	}
	taken := netip.PrefixFrom(routerHere, 64)
	s.addressed(s.Clients[0], lab.ClientLink, taken.String(), 0, netlink.AddrAdd)
	s.await("an address that the router has is not used", func() error {
		_, flags, _ := s.addressIn(netip.PrefixFrom(routerHere, 128))
		if flags&unix.IFA_F_DADFAILED == 0 {
			return fmt.Errorf("flags %x", flags)
		}
		return nil
	})
	s.addressed(s.Clients[0], lab.ClientLink, taken.String(), 0, netlink.AddrDel)
}

// wayConfigs are of a tunnel for everything of both families, to a name.
func (s *segment) wayConfigs() (gateway, client string) {
	gateway = strings.NewReplacer("local_ts: [0.0.0.0/0]", `local_ts: [0.0.0.0/0, "::/0"]`, "pools: [office]", "pools: [office, six]\n    mtu: 1300",
		"10.99.0.0/24}", "10.99.0.0/24}\n  six: {addresses: \"fd99::/64\"}").Replace(gatewayConfig)
	client = strings.NewReplacer("remote_ts: [0.0.0.0/0]", `remote_ts: [0.0.0.0/0, "::/0"]`, `vips: ["0.0.0.0"]`, "vips: [\"0.0.0.0\", \"::\"]\n    mtu: 1300").
		Replace(strings.Replace(fmt.Sprintf(clientConfig, s.dir), "[198.51.100.1]", "[vpn.example.org]", 1))
	return gateway, client
}

// knows has a process know the gateway by a name, so that the tunnel covers its
// address as any other.
func (s *site) knows(address string) (prepare func() error) {
	hosts := s.write("hosts", address+" vpn.example.org\n")
	return func() error { return overlaid(hosts, "/etc/hosts") }
}

// TestWayOnTheSegment: with a tunnel for everything, down or up, the client keeps
// its lease, its prefixes, its neighbours and the fragments and errors of what
// carries the tunnel; and nothing that the network pushes takes a packet out of
// it. Each filter alone does that.
func TestWayOnTheSegment(t *testing.T) {
	for _, k := range []struct {
		name     string
		lacks    uint32
		rpFilter string // with which the tunnel comes up: nothing has a mark without nftables
	}{{"nftables", unix.NETLINK_XFRM, "2"}, {"XFRM policies", unix.NETLINK_NETFILTER, "0"}} {
		t.Run(k.name, func(t *testing.T) {
			s := newSegment(t)
			gatewayText, clientText := s.wayConfigs()
			s.leases("without a client")
			s.configured(firstNet, 3000, 3000)
			if !s.hasRoute(routedAside) {
				t.Fatal("the kernel does not take advertised routes: the rest would prove nothing")
			}
			s.await("without a client all leaves", func() error {
				if to := s.escaped(); len(to) != len(aims) {
					return fmt.Errorf("only to %v", to)
				}
				return nil
			})
			gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayText))
			client := s.runPrepared(s.Clients[0], func() error { return errors.Join(s.knows(lab.GatewayAddr.String())(), lackNetlink([]uint32{k.lacks})) },
				"--instance", "anna", "--config", s.write("anna.yaml", clientText))
			lifetime := uint32(3000) // which a host lets grow, and shrinks but to two hours: RFC 4862 §5.5.3
			stays := func(when string) {
				t.Helper()
				s.leases(when)
				lifetime += 1000
				s.configured(firstNet, lifetime, lifetime)
				if to := s.escaped(); len(to) > 0 {
					t.Errorf("%s: packets left in the clear to %v", when, to)
				}
			}
			stays("down")
			if err := s.Clients[0].Sysctl("net/ipv4/conf/all/rp_filter", k.rpFilter); err != nil {
				t.Fatal(err)
			}
			s.want(s.Clients[0], 0, []string{"office is up\n"}, "--instance", "anna", "initiate", "office")
			stays("up")
			s.ping(2)
			s.neighbours(s.configured(secondNet, 1000, 1000))
			s.configured(firstNet, 7300, 0)
			if to := s.escaped(); len(to) > 0 {
				t.Errorf("renumbered: packets left in the clear to %v", to)
			}
			s.fragments(narrowMTU)
			s.pathErrors(gw)
			s.stop(client)
			s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "--all")
			s.want(s.Gateway, 0, nil, "detach", "--all")
		})
	}
}
