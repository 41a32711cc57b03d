package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// What of DHCP is on the wire: RFC 2131 §2, RFC 2132, RFC 3442.
const (
	bootRequest, bootReply               = 1, 2
	dhcpRequest, dhcpAck                 = 3, 5
	optionType, optionLease, optionRoute = 53, 51, 121
	serverPort, clientPort               = 67, 68
	leaseTime                            = 600
)

var (
	leased   = netip.MustParsePrefix("203.0.113.2/24") // of a public network, which a tunnel to everywhere covers
	onLink   = netip.MustParseAddr("203.0.113.1")
	offLink  = netip.MustParseAddr("198.18.0.67")
	everyone = netip.MustParseAddr("255.255.255.255")
)

// dhcpMessage is a request or an answer to one. An answer with the flag goes to
// everyone.
func dhcpMessage(op, kind byte, xid uint32, broadcast bool, options ...byte) []byte {
	b := make([]byte, 236, 300)
	b[0], b[1], b[2] = op, 1, 6
	binary.BigEndian.PutUint32(b[4:], xid)
	if broadcast {
		b[10] = 0x80
	}
	copy(b[12:], leased.Addr().AsSlice())
	b = append(b, 99, 130, 83, 99, optionType, 1, kind)
	b = append(append(b, options...), 255)
	return append(b, make([]byte, 300-min(len(b), 300))...) // some relays drop what is shorter
}

// dhcpOption finds an option.
func dhcpOption(b []byte, code byte) []byte {
	for b = b[min(240, len(b)):]; len(b) > 2 && b[0] != 255 && len(b) >= 2+int(b[1]); b = b[2+b[1]:] {
		if b[0] == code {
			return b[2 : 2+b[1]]
		}
	}
	return nil
}

// pushed are the routes of a hostile server: to everywhere, twice as narrow as a
// tunnel, and to what is behind it.
var pushed = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1"), netip.PrefixFrom(inner, 32)}

// dhcpServer answers at one address of the router's, and by broadcast where all is
// set, until the test ends.
func (s *segment) dhcpServer(at netip.Addr, all bool) {
	s.t.Helper()
	bind := at
	if all {
		bind = netip.IPv4Unspecified()
	}
	c := s.dhcpSocket(s.NAT, netip.AddrPortFrom(bind, serverPort))
	routes := []byte{}
	for _, r := range pushed {
		a := r.Addr().As4()
		routes = append(append(append(routes, byte(r.Bits())), a[:(r.Bits()+7)/8]...), onLink.AsSlice()...)
	}
	options := binary.BigEndian.AppendUint32([]byte{optionLease, 4}, leaseTime)
	options = append(append(options, optionRoute, byte(len(routes))), routes...)
	go func() { // ends with the socket
		b := make([]byte, 1500)
		for {
			n, _, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if n < 240 || b[0] != bootRequest || !slices.Equal(dhcpOption(b[:n], optionType), []byte{dhcpRequest}) {
				continue
			}
			broadcast, to := b[10]&0x80 != 0, leased.Addr()
			if broadcast {
				to = everyone
			}
			// Who asks asks again.
			_, _ = c.WriteToUDPAddrPort(dhcpMessage(bootReply, dhcpAck, binary.BigEndian.Uint32(b[4:]), broadcast, options...), netip.AddrPortFrom(to, clientPort))
		}
	}()
}

// dhcpSocket is one for UDP at the segment's interface.
func (s *segment) dhcpSocket(ns *lab.Namespace, at netip.AddrPort) *net.UDPConn {
	s.t.Helper()
	var c *net.UDPConn
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "dhcp")
		defer f.Close()
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
			unix.BindToDevice(fd, lab.ClientLink), unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}))
		if err != nil {
			return err
		}
		p, err := net.FilePacketConn(f)
		if err == nil {
			c = p.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// renews has the client ask a server to renew its lease until it is, and take what
// the answer brings, as systemd-networkd and NetworkManager do it (UDP), or as
// dhclient does (a packet socket).
func (s *segment) renews(what string, server netip.Addr, packets bool) {
	s.t.Helper()
	exchange := s.byUDP
	if packets {
		exchange = s.byPackets
	}
	s.xid++
	request := dhcpMessage(bootRequest, dhcpRequest, s.xid, server == everyone)
	s.await(what, func() error {
		answer, err := exchange(server, request)
		if err != nil {
			return err
		}
		return s.Clients[0].Do(func() error { return take(answer) })
	})
}

// isAck tells the answer to a request.
func isAck(answer, request []byte) bool {
	return len(answer) > 240 && answer[0] == bootReply && slices.Equal(answer[4:8], request[4:8]) &&
		slices.Equal(dhcpOption(answer, optionType), []byte{dhcpAck})
}

const answerTime = 500 * time.Millisecond

func (s *segment) byUDP(server netip.Addr, request []byte) ([]byte, error) {
	at := leased.Addr()
	if server == everyone {
		at = netip.IPv4Unspecified() // hears what goes to everyone
	}
	c := s.dhcpSocket(s.Clients[0], netip.AddrPortFrom(at, clientPort))
	defer c.Close()
	if _, err := c.WriteToUDPAddrPort(request, netip.AddrPortFrom(server, serverPort)); err != nil {
		return nil, err
	}
	b := make([]byte, 1500)
	for end := time.Now().Add(answerTime); ; {
		if err := c.SetReadDeadline(end); err != nil {
			return nil, err
		}
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		if isAck(b[:n], request) {
			return b[:n], nil
		}
	}
}

// byPackets sends and hears below IP: to the router's hardware address or to all.
func (s *segment) byPackets(server netip.Addr, request []byte) (answer []byte, err error) {
	err = s.Clients[0].Do(func() error {
		dev, err := net.InterfaceByName(lab.ClientLink)
		if err != nil {
			return err
		}
		ip := binary.BigEndian.Uint16([]byte{8, 0})
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(bigEndian(ip)))
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrLinklayer{Protocol: bigEndian(ip), Ifindex: dev.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
		if server != everyone {
			copy(to.Addr[:], s.router)
		}
		err = errors.Join(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(ip), Ifindex: dev.Index}),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
			unix.Sendto(fd, udpPacket(netip.AddrPortFrom(leased.Addr(), clientPort), netip.AddrPortFrom(server, serverPort), request), 0, to))
		if err != nil {
			return err
		}
		b := make([]byte, 1500)
		for end := time.Now().Add(answerTime); time.Now().Before(end); {
			n, _, err := unix.Recvfrom(fd, b, 0)
			if err == nil && n > 28 && b[9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(b[22:]) == clientPort && isAck(b[28:n], request) {
				answer = b[28:n]
				return nil
			}
		}
		return errors.New("no answer")
	})
	return answer, err
}

func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// udpPacket is one of IPv4, without the checksum of UDP.
func udpPacket(from, to netip.AddrPort, payload []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(payload)))
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum + sum>>16)
}

// take gives the interface the address for the lease's time, and the host the
// routes that came with it.
func take(answer []byte) error {
	dev, err := netlink.LinkByName(lab.ClientLink)
	if err != nil {
		return err
	}
	lease := dhcpOption(answer, optionLease)
	if len(lease) != 4 {
		return errors.New("no lease")
	}
	seconds := int(binary.BigEndian.Uint32(lease))
	network := &net.IPNet{IP: leased.Addr().AsSlice(), Mask: net.CIDRMask(leased.Bits(), 32)}
	if err := netlink.AddrReplace(dev, &netlink.Addr{IPNet: network, ValidLft: seconds, PreferedLft: seconds}); err != nil {
		return err
	}
	for b := dhcpOption(answer, optionRoute); len(b) > 0; {
		n := (int(b[0]) + 7) / 8
		to := make(net.IP, 4)
		copy(to, b[1:1+n])
		r := &netlink.Route{LinkIndex: dev.Attrs().Index, Dst: &net.IPNet{IP: to, Mask: net.CIDRMask(int(b[0]), 32)}, Gw: net.IP(b[1+n : 5+n]), Protocol: unix.RTPROT_DHCP}
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("route to %v: %w", r.Dst, err)
		}
		b = b[5+n:]
	}
	return nil
}
