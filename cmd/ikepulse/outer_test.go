package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// TestFragmentsOverIPv6: the fragments of what carries a tunnel for everything, which
// covers the gateway's address as any other, pass by IPv6, too.
func TestFragmentsOverIPv6(t *testing.T) {
	s := newSite(t)
	s.sixth()
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", strings.NewReplacer("[198.51.100.1]", `["2001:db8:1::1"]`,
		"local_ts: [0.0.0.0/0]", `local_ts: [0.0.0.0/0, "::/0"]`).Replace(gatewayConfig)))
	client := s.runPrepared(s.Clients[0], s.knows("2001:db8:1::1"), "--instance", "anna", "--config", s.write("anna.yaml",
		strings.NewReplacer("[10.7.0.2]", `["2001:db8:7::2"]`, "[198.51.100.1]", "[vpn.example.org]", "remote_ts: [0.0.0.0/0]", `remote_ts: [0.0.0.0/0, "::/0"]`).
			Replace(fmt.Sprintf(clientConfig, s.dir))))
	s.want(s.Clients[0], 0, []string{"office is up\n"}, "--instance", "anna", "initiate", "office")
	const least = 1280 // RFC 8200 §5
	s.fragments(least)
	s.stop(client, gw)
	s.detached()
}

// fragments wants that outer packets that are too long for the link pass as
// fragments, in both directions.
func (s *site) fragments(mtu int) {
	s.t.Helper()
	for _, ns := range []*lab.Namespace{s.Clients[0], s.NAT} {
		err := ns.Do(func() error {
			dev, err := netlink.LinkByName("c0")
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(dev, mtu)
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	seen, err := s.Clients[0].Capture(lab.ClientLink, func(f lab.Frame) bool { _, ok := fragmentOf(f); return ok })
	if err != nil {
		s.t.Fatal(err)
	}
	s.await("a long packet goes there and back", s.longPacket)
	frames, err := seen.Stop()
	if err != nil {
		s.t.Fatal(err)
	}
	parts := map[fragment]bool{}
	for _, f := range frames {
		p, _ := fragmentOf(f)
		parts[p] = true
	}
	if len(parts) != 4 {
		s.t.Errorf("of the four kinds of fragments there were but %v", parts)
	}
}

// fragment is which one a frame has.
type fragment struct{ out, later bool }

func fragmentOf(f lab.Frame) (p fragment, ok bool) {
	const ipv4, ipv6, none = 0x0800, 0x86dd, 0
	if len(f.Data) < 62 {
		return p, false
	}
	field, offset := uint16(none), uint16(0x1fff)
	switch binary.BigEndian.Uint16(f.Data[12:]) {
	case ipv4:
		field = binary.BigEndian.Uint16(f.Data[20:]) & 0x3fff // more of them, and the offset
	case ipv6:
		if f.Data[20] == unix.IPPROTO_FRAGMENT {
			field, offset = binary.BigEndian.Uint16(f.Data[56:])&0xfff9, 0xfff8 // the same: RFC 8200 §4.5
		}
	}
	return fragment{f.Outgoing, field&offset != 0}, field != none
}

// longPacket goes through the tunnel to the gateway, which sends it back.
func (s *site) longPacket() error {
	open := func(ns *lab.Namespace, at netip.AddrPort) (c *net.UDPConn, err error) {
		err = ns.Do(func() (err error) {
			c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
			return err
		})
		return c, err
	}
	echo, err := open(s.Gateway, netip.AddrPortFrom(inner, 7))
	if err != nil {
		return err
	}
	defer echo.Close()
	go func() { // ends with the socket
		b := make([]byte, 2000)
		for {
			n, from, err := echo.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = echo.WriteToUDPAddrPort(b[:n], from) // it is sent again
		}
	}()
	c, err := open(s.Clients[0], netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 1200)
	_, err = c.WriteToUDPAddrPort(b, netip.AddrPortFrom(inner, 7))
	if err == nil {
		err = c.SetReadDeadline(time.Now().Add(answerTime))
	}
	if err == nil {
		_, err = c.Read(b)
	}
	return err
}

// pathErrors wants that the client hears what a router says of its outer packets,
// and what the gateway's host says when nobody listens there any more.
func (s *segment) pathErrors(gw *daemon) {
	s.t.Helper()
	outer := udpPacket(netip.AddrPortFrom(lab.ClientAddr(0), 4500), netip.AddrPortFrom(lab.GatewayAddr, 4500), make([]byte, 32))
	s.hears("fragmentation needed", func() {
		if err := s.NAT.Do(func() error { return tooLong(onLink, lab.ClientAddr(0), outer) }); err != nil {
			s.t.Fatal(err)
		}
	})
	if err := gw.Signal(unix.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	<-gw.Done()
	s.hears("port unreachable", func() {
		_ = s.longPacket() // nobody answers
	})
}

// tooLong sends an ICMP error about a packet. RFC 1191 §4
func tooLong(from, to netip.Addr, about []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := append([]byte{3, 4, 0, 0, 0, 0, 0x02, 0x80}, about[:28]...)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}), unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: to.As4()}))
}

// hears wants that what does something brings an ICMP error to the client's kernel.
func (s *segment) hears(what string, do func()) {
	s.t.Helper()
	before := s.unreachables()
	s.await(what+" is heard", func() error {
		do()
		if n := s.unreachables(); n == before {
			return fmt.Errorf("still %d", n)
		}
		return nil
	})
}

// unreachables is how many such messages the client's kernel has taken.
func (s *segment) unreachables() (n int) {
	s.t.Helper()
	s.onClient(func(netlink.Link) error {
		b, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if f[0] != "Icmp:" {
				continue
			}
			if names == nil {
				names = f
				continue
			}
			for i, name := range names {
				if name == "InDestUnreachs" {
					_, err = fmt.Sscan(f[i], &n)
					return err
				}
			}
		}
		return errors.New("no such counter")
	})
	return n
}
