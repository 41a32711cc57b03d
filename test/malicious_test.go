package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// laptopConfig is our daemon as a client who sends everything by the tunnel.
const laptopConfig = `
listen: {addresses: [10.7.0.2]}
xdp: {capacity: 64, keepalive: pass}
connections:
  office:
    local: {auth: psk, id: anna@example.org}
    remote: {auth: psk, id: gw.example, addresses: [198.51.100.1]}
    proposals: [aes256gcm16-prfsha256-x25519]
    esp_proposals: [aes256gcm16]
    dpd: {mode: off}
    vips: ["0.0.0.0", "::"]
    children: {net: {local_ts: [dynamic], remote_ts: [0.0.0.0/0, "::/0"]}}
secrets:
  - {id: gw.example, psk_file: psk}
`

// gatewayOfAll is strongSwan as a gateway to everywhere. %s are its pools, and
// what they are made of.
const gatewayOfAll = `connections {
	home {
		version = 2
		local_addrs = 198.51.100.1
		proposals = aes256gcm16-prfsha256-x25519
		pools = four, six
		local {
			auth = psk
			id = gw.example
		}
		remote {
			auth = psk
			id = anna@example.org
		}
		children {
			net {
				local_ts = 0.0.0.0/0, ::/0
				esp_proposals = aes256gcm16
			}
		}
	}
}
pools {
	four {
		addrs = %s
	}
	six {
		addrs = %s
	}
}
secrets {
	ike-1 {
		id-1 = gw.example
		id-2 = anna@example.org
		secret = "` + psk + `"
	}
}
`

// canary is in every packet that a malicious gateway sends.
const canary = "from behind the tunnel"

// udpPacket is one of IPv4 or IPv6, to the port 7. extensions stand before the
// UDP header: options of IPv4, or an extension header that names itself first.
func udpPacket(from, to string, extensions ...byte) []byte {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	u := binary.BigEndian.AppendUint16(nil, 9)
	u = binary.BigEndian.AppendUint16(u, 7)
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(canary)))
	u = append(append(u, 0, 0), canary...)
	if src.Is6() {
		pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, 0, 0, byte(len(u)), 0, 0, 0, unix.IPPROTO_UDP)
		binary.BigEndian.PutUint16(u[6:], ^sum16(append(pseudo, u...)))
		return ipv6Packet(src, dst, unix.IPPROTO_UDP, u, extensions)
	}
	b := ipv4Packet(src, dst, unix.IPPROTO_UDP, append(extensions, u...))
	b[0] += byte(len(extensions) / 4)
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^sum16(b[:20+len(extensions)]))
	return b
}

// ipv6Packet has an extension header, if there is one, which is a routing header.
func ipv6Packet(src, dst netip.Addr, next byte, payload, routing []byte) []byte {
	if len(routing) > 0 {
		next, payload = unix.IPPROTO_ROUTING, append(routing, payload...)
	}
	b := []byte{0x60, 0, 0, 0, 0, byte(len(payload)), next, 255}
	return append(append(append(b, src.AsSlice()...), dst.AsSlice()...), payload...)
}

// advertisement is that of a router which is there for everything, and of a
// network whose hosts give themselves addresses. RFC 4861 §4.2
func advertisement(from, to string) []byte {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	ra := []byte{134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0,
		3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x20, 0x01, 0x0d, 0xb8, 0, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, 0, 0, byte(len(ra)), 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(ra[2:], ^sum16(append(pseudo, ra...)))
	return ipv6Packet(src, dst, unix.IPPROTO_ICMPV6, ra, nil)
}

// ears are sockets of a namespace to which the canary may come.
type ears []*net.UDPConn

func listenAt(t *testing.T, ns *lab.Namespace, addresses ...string) (e ears) {
	t.Helper()
	for _, a := range addresses {
		err := ns.Do(func() error {
			network := "udp6"
			if netip.MustParseAddr(a).Is4() {
				network = "udp4"
			}
			c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(a), 7)))
			if err == nil {
				e = append(e, c)
				t.Cleanup(func() { c.Close() })
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// heard is how often the canary has come.
func (e ears) heard() (n int) {
	b := make([]byte, 2000)
	for _, c := range e {
		for {
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if k, err := c.Read(b); err != nil {
				break
			} else if bytes.Contains(b[:k], []byte(canary)) {
				n++
			}
		}
	}
	return n
}

// laptop is our daemon as the client of a gateway that has its secret, on a host
// whose kernel takes whatever it is given.
func laptop(t *testing.T) *site {
	t.Helper()
	n := network(t, 1)
	c := n.Clients[0]
	for _, all := range []string{"accept_local", "route_localnet", "accept_source_route", "accept_redirects"} {
		for _, which := range []string{"all", "default"} {
			if err := c.Sysctl("net/ipv4/conf/"+which+"/"+all, "1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for path, value := range map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/default/accept_ra": "2", "net/ipv6/conf/all/accept_ra": "2"} {
		if err := c.Sysctl(path, value); err != nil {
			t.Fatal(err)
		}
	}
	return &site{T: t, net: n, gw: start(t, c, laptopConfig, map[string]string{"psk": psk})}
}

// TestMaliciousGateway: a gateway that has the secret, and a tunnel for
// everything, speaks to its client for what is behind it and for itself. It does
// not speak for the client's neighbours, router and own addresses, reaches
// nothing but the virtual address, and changes nothing of how the client sends.
func TestMaliciousGateway(t *testing.T) {
	t.Parallel()
	s := laptop(t)
	c := s.net.Clients[0]
	office := startCharon(t, s.gw, s.net.Gateway, t.TempDir(), keyLog, fmt.Sprintf(gatewayOfAll, "10.98.0.7/32", "2001:db8:98::7/128"))
	s.gw.must("initiate", "office")
	const vip, vip6, neighbour = "10.98.0.7", "2001:db8:98::7", "10.7.0.99"
	if got := s.gw.peer().Child.VIPs; !slices.Equal(got, []netip.Addr{netip.MustParseAddr(vip), netip.MustParseAddr(vip6)}) {
		t.Fatalf("virtual addresses %v", got)
	}
	theirs, _ := only(t, office)
	f := s.forgerAt(s.net.Gateway, office, "responder", netip.AddrPortFrom(lab.GatewayAddr, lab.NATTPort), theirs.Remote)
	before, e := routing(t, c), listenAt(t, c, "0.0.0.0", "::")
	lan := tap(t, c, lab.ClientLink, func(f lab.Frame) bool { return f.Outgoing && bytes.Contains(f.Data, []byte(canary)) })
	route := []byte{131, 7, 4, 10, 7, 0, 99, 0} // by the neighbour
	for _, tt := range []struct {
		name    string
		packet  []byte
		counter string
		arrives bool
	}{
		{"a server", f.seal(udpPacket("203.0.113.50", vip)), "in", true},
		{"a server of IPv6", f.seal(udpPacket("2001:db8:5::1", vip6)), "in", true},
		{"the gateway itself", f.seal(udpPacket("198.51.100.1", vip)), "in", true},
		{"the gateway's neighbour", f.seal(udpPacket("198.51.100.2", vip)), "in", true},

		{"our neighbour", f.seal(udpPacket(neighbour, vip)), "selector", false},
		{"our router", f.seal(udpPacket("10.7.0.1", vip)), "selector", false},
		{"our outer address", f.seal(udpPacket("10.7.0.2", vip)), "selector", false},
		{"our virtual address", f.seal(udpPacket(vip, vip)), "selector", false},
		{"our virtual address of IPv6", f.seal(udpPacket(vip6, vip6)), "selector", false},
		{"loopback", f.seal(udpPacket("127.0.0.1", vip)), "selector", false},
		{"loopback of IPv6", f.seal(udpPacket("::1", vip6)), "selector", false},
		{"nobody", f.seal(udpPacket("0.0.0.0", vip)), "selector", false},
		{"multicast", f.seal(udpPacket("239.1.2.3", vip)), "selector", false},
		{"broadcast", f.seal(udpPacket("255.255.255.255", vip)), "selector", false},
		{"link-local", f.seal(udpPacket("fe80::1", vip6)), "selector", false},
		{"a router that advertises itself", f.seal(advertisement("fe80::1", vip6)), "selector", false},

		{"to our outer address", f.seal(udpPacket("203.0.113.50", "10.7.0.2")), "selector", false},
		{"to our neighbour", f.seal(udpPacket("203.0.113.50", neighbour)), "selector", false},
		{"to loopback", f.seal(udpPacket("203.0.113.50", "127.0.0.1")), "selector", false},
		{"to everybody here", f.seal(udpPacket("203.0.113.50", "10.7.0.255")), "selector", false},
		{"to everybody of IPv6", f.seal(udpPacket("2001:db8:5::1", "ff02::1")), "selector", false},
		{"a neighbour beyond us", f.seal(udpPacket("203.0.113.50", vip, route...)), "selector", false},
		{"a router of IPv6 beyond us", f.seal(udpPacket("2001:db8:5::1", vip6, unix.IPPROTO_UDP, 2, 0, 1, 0, 0, 0, 0,
			0x20, 1, 0x0d, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)), "selector", false},
		{"IPv4 said to be IPv6", f.sealAs(41, udpPacket("203.0.113.50", vip)), "malformed", false},
		{"IPv6 said to be IPv4", f.sealAs(4, udpPacket("2001:db8:5::1", vip6)), "malformed", false},
		{"IPv4 in the form of IPv6", f.seal(udpPacket("::ffff:203.0.113.50", vip6)), "selector", false},
		{"a server again", f.seal(udpPacket("203.0.113.50", vip)), "in", true},
	} {
		was := s.gw.status().Dataplane.Counters
		f.send(tt.packet)
		var now map[string]uint64
		await(t, tt.name+" is counted", func() bool {
			now = s.gw.status().Dataplane.Counters
			return now["in"]+now["selector"]+now["malformed"] == was["in"]+was["selector"]+was["malformed"]+1
		})
		if now[tt.counter] != was[tt.counter]+1 {
			t.Errorf("%s is not counted as %s: before %v, after %v", tt.name, tt.counter, was, now)
		}
		if n := e.heard(); (n == 1) != tt.arrives {
			t.Errorf("%s: heard %d times", tt.name, n)
		}
	}
	if frames := lan.Frames(); len(frames) != 0 {
		t.Errorf("%d packets have left in the clear", len(frames))
	}
	if now := routing(t, c); !slices.Equal(now, before) {
		t.Errorf("routing is %q, was %q", now, before)
	}
	if st := s.gw.status(); st.State != "healthy" {
		t.Errorf("%q", st.Problems)
	}
}

// TestMaliciousAddresses: a gateway that gives a client what is not the
// gateway's to give has no tunnel, and the client's addresses and routes are
// what they were.
func TestMaliciousAddresses(t *testing.T) {
	t.Parallel()
	s := laptop(t)
	c := s.net.Clients[0]
	if err := c.Address("lo", netip.MustParsePrefix("10.20.0.1/32")); err != nil {
		t.Fatal(err)
	}
	before := routing(t, c)
	for addr, why := range map[string]string{
		"10.7.0.2":     "this host's already", // the outer one
		"10.20.0.1":    "has it already",      // another of the host's
		"10.7.0.1":     "next hop",
		"10.7.0.255":   "no host's", // of the network that the host is on
		"127.0.0.53":   "a loopback address",
		"224.0.0.5":    "a multicast address",
		"198.51.100.1": "which is its own", // and so the tunnel would be its own way
		"169.254.1.1":  "a link-local address",
	} {
		office := startCharon(t, s.gw, s.net.Gateway, t.TempDir(), "", fmt.Sprintf(gatewayOfAll, addr+"/32", "2001:db8:98::7/128"))
		out, code := s.gw.cli("initiate", "office")
		if code == 0 {
			t.Errorf("%s is taken: %s", addr, out)
		}
		if !bytes.Contains([]byte(out+s.gw.log.String()), []byte(why)) {
			t.Errorf("%s: nothing says %q: %s\n%s", addr, why, out, s.gw.log)
		}
		await(t, "nothing of "+addr+" is left", func() bool { return slices.Equal(routing(t, c), before) })
		kill(office)
	}
	startCharon(t, s.gw, s.net.Gateway, t.TempDir(), "", fmt.Sprintf(gatewayOfAll, "10.98.0.7/32", "2001:db8:98::7/128"))
	s.gw.must("initiate", "office")
}
