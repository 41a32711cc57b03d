package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// nameServer answers for one name, by UDP and TCP. No address: there is no such
// name.
type nameServer struct {
	conn      *net.UDPConn
	calls     *net.TCPListener
	truncates bool // what it answers by UDP, as one does to whom an answer is too long for that
	mu        sync.Mutex
	answer    netip.Addr
	called    int // by TCP
}

func newNameServer(ns *lab.Namespace, at netip.AddrPort, truncates bool) (*nameServer, error) {
	n := &nameServer{truncates: truncates}
	err := ns.Do(func() (err error) {
		if n.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
		n.calls, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return nil, err
	}
	go n.serve() // ends with the socket
	go n.accept()
	return n, nil
}

func (n *nameServer) close() {
	n.conn.Close()
	n.calls.Close()
}

func (n *nameServer) set(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer = a
}

func (n *nameServer) serve() {
	b := make([]byte, 512)
	for {
		size, from, err := n.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if answer, err := n.reply(b[:size], n.truncates); err == nil {
			_, _ = n.conn.WriteToUDPAddrPort(answer, from) // who asks may have gone
		}
	}
}

// accept answers one question a call. RFC 7766 §8
func (n *nameServer) accept() {
	for {
		c, err := n.calls.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the caller
			defer c.Close()
			head := make([]byte, 2)
			if _, err := io.ReadFull(c, head); err != nil {
				return
			}
			q := make([]byte, binary.BigEndian.Uint16(head))
			if _, err := io.ReadFull(c, q); err != nil {
				return
			}
			if answer, err := n.reply(q, false); err == nil {
				n.mu.Lock()
				n.called++
				n.mu.Unlock()
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}
		}()
	}
}

// callers is how many questions have come by TCP.
func (n *nameServer) callers() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.called
}

func (n *nameServer) reply(question []byte, truncated bool) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil || len(m.Questions) != 1 {
		return nil, errors.New("no question")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	q := m.Questions[0]
	r := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true, Truncated: truncated}, Questions: m.Questions}
	switch {
	case truncated:
	case !n.answer.IsValid():
		r.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		r.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
			Body: &dnsmessage.AResource{A: n.answer.As4()}}}
	}
	return r.Pack()
}

// nameServer runs one beside the gateway until the test ends.
func (s *site) nameServer(at netip.Addr) *nameServer {
	s.t.Helper()
	return s.nameServerThat(at, false)
}

func (s *site) nameServerThat(at netip.Addr, truncates bool) *nameServer {
	s.t.Helper()
	bits := 24
	if at.Is6() {
		bits = 64
	}
	err := s.Gateway.Address(lab.GatewayLink, netip.PrefixFrom(at, bits))
	var n *nameServer
	if err == nil {
		n, err = newNameServer(s.Gateway, netip.AddrPortFrom(at, 53), truncates)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(n.close)
	return n
}

// lookUp asks a name server without the mark of the gateway's.
func lookUp(ns *lab.Namespace, server netip.AddrPort) (answer []byte, err error) {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("vpn.example.org."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	q, err := m.Pack()
	if err != nil {
		return nil, err
	}
	return ask(ns, server, q)
}

// ask sends a question and waits a little for the answer.
func ask(ns *lab.Namespace, server netip.AddrPort, q []byte) (answer []byte, err error) {
	err = ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "udp")
		defer f.Close()
		to := &unix.SockaddrInet4{Port: int(server.Port()), Addr: server.Addr().As4()}
		if err := errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000}), unix.Sendto(fd, q, 0, to)); err != nil {
			return err
		}
		b := make([]byte, 512)
		n, _, err := unix.Recvfrom(fd, b, 0)
		answer = b[:max(n, 0)]
		return err
	})
	return answer, err
}

// caches runs a resolver on a host, at a loopback address, that asks another as any
// program would, until the test ends.
func (s *site) caches(ns *lab.Namespace, at, upstream netip.AddrPort) {
	s.t.Helper()
	var c *net.UDPConn
	err := ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	go func() { // ends with the socket
		b := make([]byte, 512)
		for {
			size, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			answer, err := ask(ns, upstream, b[:size])
			var m dnsmessage.Message
			if err != nil && m.Unpack(b[:size]) == nil {
				m.Response, m.RCode, m.Additionals = true, dnsmessage.RCodeServerFailure, nil
				answer, _ = m.Pack() // it has been unpacked
			}
			_, _ = c.WriteToUDPAddrPort(answer, from) // who asks may have gone
		}
	}()
}
