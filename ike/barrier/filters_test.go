package barrier

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

const canary = "what only a tunnel may bring"

// host is a gateway with a host behind it, and a neighbour who sends to both as if
// he were whoever he likes.
type host struct {
	t                          testing.TB
	gateway, behind, neighbour *lab.Namespace
	send                       map[bool]int           // raw sockets of the neighbour's, by whether of IPv4
	hear                       map[netip.AddrPort]int // of the other two; port 0 is ICMP
}

var (
	ours4, ours6     = netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")
	behind4, behind6 = netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8:1::2")
	everywhere       = Tunnel{Name: "home", Local: prefixes("10.0.0.0/8", "2001:db8:1::/48"), Remote: prefixes("0.0.0.0/0", "::/0")}
)

func newHost(t testing.TB) *host {
	t.Helper()
	require.Have(t, "root", "netns")
	l := lab.New()
	t.Cleanup(func() { l.Close() })
	h := &host{t: t, send: map[bool]int{}, hear: map[netip.AddrPort]int{}}
	var err error
	h.gateway, err = l.Namespace("gateway")
	if err == nil {
		h.neighbour, err = l.Namespace("neighbour")
	}
	if err == nil {
		err = lab.Connect(
			lab.End{Namespace: h.gateway, Name: "g0", Addresses: prefixes("198.51.100.1/24", "2001:db8::1/64", "fe80::1/64")},
			lab.End{Namespace: h.neighbour, Name: "n0", Addresses: prefixes("198.51.100.2/24", "2001:db8::2/64", "fe80::2/64")})
	}
	if err == nil {
		h.behind, err = l.Namespace("behind")
	}
	if err == nil {
		err = lab.Connect(
			lab.End{Namespace: h.gateway, Name: "g1", Addresses: prefixes("10.0.0.1/24", "2001:db8:1::1/64", "fe80::1/64")},
			lab.End{Namespace: h.behind, Name: "b0", Addresses: prefixes("10.0.0.2/24", "2001:db8:1::2/64", "fe80::2/64")})
	}
	for _, setting := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err == nil {
			err = h.gateway.Sysctl(setting, "1")
		}
	}
	for _, to := range []struct{ network, via string }{{"10.0.0.0/24", "198.51.100.1"}, {"2001:db8:1::/64", "2001:db8::1"}} {
		if err == nil {
			err = h.neighbour.Route(netip.MustParsePrefix(to.network), netip.MustParseAddr(to.via))
		}
	}
	if err == nil { // the interface that filters take for the tunnels'
		err = h.gateway.Do(func() error {
			return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "ikepulse"}, Mode: netlink.TUNTAP_MODE_TUN})
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	raw := func(ns *lab.Namespace, family, protocol int) (fd int) {
		err := ns.Do(func() (err error) {
			fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	h.send[true], h.send[false] = raw(h.neighbour, unix.AF_INET, unix.IPPROTO_RAW), raw(h.neighbour, unix.AF_INET6, unix.IPPROTO_RAW)
	h.hear[netip.AddrPortFrom(ours4, 0)] = raw(h.gateway, unix.AF_INET, unix.IPPROTO_ICMP)
	h.hear[netip.AddrPortFrom(ours6, 0)] = raw(h.gateway, unix.AF_INET6, unix.IPPROTO_ICMPV6)
	for _, port := range []uint16{7, 67, 68, 546} {
		for a, ns := range map[netip.Addr]*lab.Namespace{ours4: h.gateway, ours6: h.gateway, behind4: h.behind, behind6: h.behind} {
			h.hear[netip.AddrPortFrom(a, port)] = h.listen(ns, netip.AddrPortFrom(a, port))
		}
	}
	return h
}

// listen opens a socket for UDP.
func (h *host) listen(ns *lab.Namespace, at netip.AddrPort) (fd int) {
	h.t.Helper()
	family, local := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(at.Port())})
	if at.Addr().Is6() {
		family, local = unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	err := ns.Do(func() (err error) {
		if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, local)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// packet is what is in an IP packet.
type packet struct {
	from, to netip.Addr
	port     uint16 // that it is for; 0: ICMP
	protocol byte
	body     []byte
}

func udp(from, to netip.AddrPort) packet {
	b := binary.BigEndian.AppendUint16(nil, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(canary)))
	b = append(append(b, 0, 0), canary...)
	pseudo := append(append(from.Addr().AsSlice(), to.Addr().AsSlice()...), 0, unix.IPPROTO_UDP, 0, byte(len(b)))
	binary.BigEndian.PutUint16(b[6:], checksum(append(pseudo, b...)))
	return packet{from.Addr(), to.Addr(), to.Port(), unix.IPPROTO_UDP, b}
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// message is one of ICMP, which quotes what.
func message(from netip.Addr, kind icmp.Type, what []byte) packet {
	m := icmp.Message{Type: kind, Body: &icmp.RawBody{Data: append([]byte{0, 0, 0, 0}, what...)}}
	if from.Is4() {
		b, _ := m.Marshal(nil)
		return packet{from, ours4, 0, unix.IPPROTO_ICMP, b}
	}
	b, _ := m.Marshal(icmp.IPv6PseudoHeader(from.AsSlice(), ours6.AsSlice()))
	return packet{from, ours6, 0, unix.IPPROTO_ICMPV6, b}
}

// bytes is the whole packet.
func (p packet) bytes() []byte {
	if p.from.Is4() {
		b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, p.protocol, 0, 0} // the kernel puts the checksum in
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(p.body)))
		return append(append(append(b, p.from.AsSlice()...), p.to.AsSlice()...), p.body...)
	}
	b := []byte{0x60, 0, 0, 0, 0, 0, p.protocol, 255}
	binary.BigEndian.PutUint16(b[4:], uint16(len(p.body)))
	return append(append(append(b, p.from.AsSlice()...), p.to.AsSlice()...), p.body...)
}

// arrives reports whether a packet of the neighbour's comes to a socket.
func (h *host) arrives(p packet) bool {
	h.t.Helper()
	b := p.bytes()
	var to unix.Sockaddr
	if p.to.Is4() {
		to = &unix.SockaddrInet4{Addr: p.to.As4()}
	} else {
		to = &unix.SockaddrInet6{Addr: p.to.As16()}
	}
	h.heard(p) // what was late
	if err := unix.Sendto(h.send[p.from.Is4()], b, 0, to); err != nil {
		h.t.Fatal(err)
	}
	for end := time.Now().Add(60 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if h.heard(p) {
			return true
		}
	}
	return false
}

// heard reports whether the gateway's socket has got p's like since it was asked
// last. What else the kernel says to itself has no canary.
func (h *host) heard(p packet) (yes bool) {
	buf := make([]byte, 2000)
	for {
		n, _, err := unix.Recvfrom(h.hear[netip.AddrPortFrom(p.to, p.port)], buf, 0)
		if err != nil {
			return yes
		}
		yes = yes || bytes.Contains(buf[:n], []byte(canary))
	}
}

// arrivesAtLast is arrives where links and addresses may be young.
func (h *host) arrivesAtLast(p packet) bool {
	h.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if h.arrives(p) {
			return true
		}
	}
	return false
}

// TestFilters: each filter alone lets in what is not the tunnels', and nothing
// that is; but for what the doc comment of xfrm says that policies do not see.
func TestFilters(t *testing.T) {
	c := Config{Listen: []netip.Addr{ours4, ours6}, Tunnels: []Tunnel{everywhere, {Name: "narrow", Remote: prefixes("203.0.113.128/25")}},
		Bypass: prefixes("203.0.113.0/24", "2001:db8:7::/48")}
	plan := c.Plan(Host{})
	at := netip.MustParseAddrPort
	quoted := func(from, to string) []byte { return udp(at(from), at(to)).bytes() }
	outer, inner := quoted("198.51.100.1:4500", "192.0.2.9:4500"), quoted("198.51.100.1:7", "192.0.2.9:7")
	outer6, inner6 := quoted("[2001:db8::1]:4500", "[2001:db8:9::1]:4500"), quoted("[2001:db8::1]:7", "[2001:db8:9::1]:7")
	router, router6 := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8:9::1")
	for _, open := range []struct {
		kind string
		make func() (Filter, error)
	}{
		{"nftables", func() (Filter, error) {
			return NFTables(Options{Name: "ikepulse-test", TUN: "ikepulse", Mark: 7}, c.Listen)
		}},
		{"XFRM policies", func() (Filter, error) { return XFRM(Options{Name: "ikepulse-test", TUN: "ikepulse", Mark: 7}) }},
	} {
		t.Run(open.kind, func(t *testing.T) {
			h := newHost(t)
			h.t = t
			coarse := open.kind == "XFRM policies"
			only6 := coarse // IPv6 to the host itself
			cases := []struct {
				name string
				packet
				want bool
			}{
				{"UDP from a covered address", udp(at("192.0.2.9:53"), at("198.51.100.1:7")), false},
				{"UDP over IPv6 from a covered address", udp(at("[2001:db8:9::1]:53"), at("[2001:db8::1]:7")), only6},
				{"forwarded", udp(at("192.0.2.9:53"), at("10.0.0.2:7")), false},
				{"forwarded over IPv6", udp(at("[2001:db8:9::1]:53"), at("[2001:db8:1::2]:7")), false},
				{"forwarded, from a covered part", udp(at("203.0.113.200:53"), at("10.0.0.2:7")), false},
				{"forwarded, from what goes beside the tunnel", udp(at("203.0.113.7:53"), at("10.0.0.2:7")), true},
				{"forwarded over IPv6, from what goes beside the tunnel", udp(at("[2001:db8:7::1]:53"), at("[2001:db8:1::2]:7")), true},
				{"from what goes beside the tunnel", udp(at("203.0.113.7:53"), at("198.51.100.1:7")), true},
				{"over IPv6 from what goes beside the tunnel", udp(at("[2001:db8:7::1]:53"), at("[2001:db8::1]:7")), true},
				{"from a covered part of it", udp(at("203.0.113.200:53"), at("198.51.100.1:7")), false},
				{"DHCP from a server", udp(at("192.0.2.9:67"), at("198.51.100.1:68")), true},
				{"DHCP to a server", udp(at("192.0.2.9:68"), at("198.51.100.1:67")), true},
				{"from the port of a DHCP server", udp(at("192.0.2.9:67"), at("198.51.100.1:7")), false},
				{"to the port of a DHCP client", udp(at("192.0.2.9:53"), at("198.51.100.1:68")), false},
				{"DHCPv6 from a server", udp(at("[2001:db8:9::1]:547"), at("[2001:db8::1]:546")), true},
				{"from the port of a DHCPv6 server", udp(at("[2001:db8:9::1]:547"), at("[2001:db8::1]:7")), only6},
				{"an echo request", message(router, ipv4.ICMPTypeEcho, []byte(canary)), false},
				{"an echo request over IPv6", message(router6, ipv6.ICMPTypeEchoRequest, []byte(canary)), only6},
				{"a redirect", message(router, ipv4.ICMPTypeRedirect, outer), false},
				{"unreachable: outer", message(router, ipv4.ICMPTypeDestinationUnreachable, outer), true},
				{"unreachable: inner", message(router, ipv4.ICMPTypeDestinationUnreachable, inner), coarse},
				{"time exceeded: outer", message(router, ipv4.ICMPTypeTimeExceeded, outer), true},
				{"too big: outer", message(router6, ipv6.ICMPTypePacketTooBig, outer6), true},
				{"too big: inner", message(router6, ipv6.ICMPTypePacketTooBig, inner6), only6},
				{"a neighbour's solicitation", message(router6, ipv6.ICMPTypeNeighborSolicitation, append(ours6.AsSlice(), canary...)), true},
				{"a router's advertisement", message(router6, ipv6.ICMPTypeRouterAdvertisement, append(make([]byte, 8), canary...)), true},
				{"a redirect over IPv6", message(router6, ipv6.ICMPTypeRedirect, append(make([]byte, 32), canary...)), only6},
			}
			for _, c := range cases {
				if !h.arrivesAtLast(c.packet) {
					t.Fatalf("without a filter %s does not arrive: the rest would prove nothing", c.name)
				}
			}
			var f Filter
			h.do(func() (err error) {
				if f, err = open.make(); err != nil {
					return err
				}
				return f.Set(plan)
			})
			for _, c := range cases {
				if got := h.arrives(c.packet); got != c.want {
					t.Errorf("%s: arrives %v, want %v", c.name, got, c.want)
				}
			}
			h.do(func() error { return reachOurselves(ours4, ours6) })
			h.do(f.Remove)
			for _, c := range cases {
				if !h.arrives(c.packet) {
					t.Errorf("%s does not arrive without the filter", c.name)
				}
			}
		})
	}
}

// BenchmarkFilters is what a packet of an address that nobody covers costs a
// gateway of 20,000 sites to take, and to forward; that of its sending included.
func BenchmarkFilters(b *testing.B) {
	o := Options{Name: "ikepulse-test", TUN: "ikepulse", Mark: 7}
	nft := func() (Filter, error) { return NFTables(o, []netip.Addr{ours4}) }
	policies := func() (Filter, error) { return XFRM(o) }
	for _, with := range []struct {
		name string
		open []func() (Filter, error)
	}{
		{"none", nil}, {"nftables", []func() (Filter, error){nft}}, {"XFRM", []func() (Filter, error){policies}},
		{"both", []func() (Filter, error){nft, policies}},
	} {
		h := newHost(b)
		c := sites()
		c.Tunnels = c.Tunnels[1:] // the host behind is in the first
		plan := c.Plan(Host{})
		for _, open := range with.open {
			h.do(func() error {
				f, err := open()
				if err != nil {
					return err
				}
				return f.Set(plan)
			})
		}
		// The gateway's turn is taken on the sender's thread. The sockets fill, and
		// drop the rest behind the filters.
		for _, to := range []struct {
			name string
			at   netip.AddrPort
		}{{"taken", netip.AddrPortFrom(ours4, 7)}, {"forwarded", netip.AddrPortFrom(behind4, 7)}} {
			p := udp(netip.MustParseAddrPort("203.0.113.7:53"), to.at)
			if !h.arrivesAtLast(p) {
				b.Fatal("it does not arrive")
			}
			b.Run(with.name+"/"+to.name, func(b *testing.B) {
				whole, address := p.bytes(), &unix.SockaddrInet4{Addr: to.at.Addr().As4()}
				for b.Loop() {
					if err := unix.Sendto(h.send[true], whole, 0, address); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func (h *host) do(f func() error) {
	h.t.Helper()
	if err := h.gateway.Do(f); err != nil {
		h.t.Error(err)
	}
}

// reachOurselves wants that programs of this host reach each other at its
// addresses, covered though they are.
func reachOurselves(all ...netip.Addr) error {
	var errs []error
	for _, a := range all {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
		if err != nil {
			return err
		}
		c, err := net.DialTimeout("tcp", l.Addr().String(), time.Second)
		if err != nil {
			errs = append(errs, fmt.Errorf("%v does not reach itself: %w", a, err))
		} else {
			c.Close()
		}
		l.Close()
	}
	return errors.Join(errs...)
}
