package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// nameServer answers for one name. No address: there is no such name.
type nameServer struct {
	conn    *net.UDPConn
	mu      sync.Mutex
	answer  netip.Addr
	queries int
}

func newNameServer(ns *lab.Namespace, at netip.AddrPort) (*nameServer, error) {
	n := &nameServer{}
	err := ns.Do(func() (err error) {
		n.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return nil, err
	}
	go n.serve() // ends with the socket
	return n, nil
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
		var m dnsmessage.Message
		if m.Unpack(b[:size]) != nil || len(m.Questions) != 1 {
			continue
		}
		if answer, err := n.reply(&m); err == nil {
			_, _ = n.conn.WriteToUDPAddrPort(answer, from) // who asks may have gone
		}
	}
}

func (n *nameServer) reply(m *dnsmessage.Message) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queries++
	q := m.Questions[0]
	r := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
	switch {
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
	err := s.Gateway.Address(lab.GatewayLink, netip.PrefixFrom(at, 24))
	var n *nameServer
	if err == nil {
		n, err = newNameServer(s.Gateway, netip.AddrPortFrom(at, 53))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { n.conn.Close() })
	return n
}

// namedClient runs a client that is to have a tunnel for everything to a gateway
// that it knows by name. Its host filters by the reverse path, loosely, as systemd
// sets it.
func (s *site) namedClient(server netip.Addr, dpd string) *daemon {
	s.t.Helper()
	for _, which := range []string{"all", lab.ClientLink} {
		if err := s.Clients[0].Sysctl("net/ipv4/conf/"+which+"/rp_filter", "2"); err != nil {
			s.t.Fatal(err)
		}
	}
	conf := s.write("resolv.conf", "nameserver "+server.String()+"\noptions timeout:1\n")
	config := strings.NewReplacer("[198.51.100.1]", "[vpn.example.org]", "mode: off", dpd,
		"remote_ts: [0.0.0.0/0]", "remote_ts: [0.0.0.0/0], start_action: start").Replace(fmt.Sprintf(clientConfig, s.dir))
	return s.runPrepared(s.Clients[0], func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		return unix.Mount(conf, "/etc/resolv.conf", "", unix.MS_BIND, "")
	}, "--instance", "anna", "--config", s.write("anna.yaml", config))
}

// TestNameMoves: the gateway has died without a word, and its name has the address
// of another: the client's tunnel follows, though all that it sends to either, and
// to the name server, lies in what the dead tunnel covers.
func TestNameMoves(t *testing.T) {
	s := newSite(t)
	server, other := netip.MustParseAddr("198.51.100.53"), netip.MustParseAddr("198.51.100.2")
	dns := s.nameServer(server)
	if err := s.Gateway.Address(lab.GatewayLink, netip.PrefixFrom(other, 24)); err != nil {
		t.Fatal(err)
	}
	first := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	// One host is both: the interface is the first's.
	second := s.run(s.Gateway, "--instance", "second", "--config", s.write("second.yaml",
		strings.NewReplacer("[198.51.100.1]", "[198.51.100.2], interfaces: [lo]", "10.99.", "10.98.").Replace(gatewayConfig)))
	dns.set(lab.GatewayAddr)
	client := s.namedClient(server, "delay: 1s, retransmit: {timeout: 200ms, base: 1, tries: 3}")
	up := func(at netip.Addr) {
		t.Helper()
		s.await("a tunnel to "+at.String(), func() error {
			r := s.do(s.Clients[0], "--instance", "anna", "peers")
			if !strings.Contains(r.out, at.String()+":") {
				return errors.New(r.out)
			}
			if st, code := s.status(s.Clients[0], "--instance", "anna"); code != 0 {
				return fmt.Errorf("%q", st.Problems)
			}
			return nil
		})
		s.ping(2)
	}
	up(lab.GatewayAddr)
	dns.set(other)
	if err := first.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	up(other)
	s.stop(client, second)
	s.want(s.Gateway, 0, nil, "detach", "--all")
	s.want(s.Gateway, 0, nil, "--instance", "second", "detach", "--all")
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "--all")
}

// TestNames: a client of a gateway that has a name, with a tunnel for everything,
// calls it when it has an address, though the name server lies in what the tunnel
// covers; what others ask that server does not leave.
func TestNames(t *testing.T) {
	s := newSite(t)
	server := netip.MustParseAddr("198.51.100.53")
	dns := s.nameServer(server)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	client := s.namedClient(server, "mode: off")
	const missing = "cannot resolve vpn.example.org: no such host"
	s.await("status names what is missing", func() error {
		r := s.do(s.Clients[0], "--instance", "anna", "status")
		if r.code != exitDegraded || !strings.Contains(r.out, missing) {
			return fmt.Errorf("exit code %d: %s", r.code, r.out)
		}
		return nil
	})
	// Nobody else's questions may leave beside the tunnel, nor answers come.
	if _, err := lookUp(s.Clients[0], netip.AddrPortFrom(server, 53)); err == nil {
		t.Error("another's question to the name server went beside the tunnel")
	}
	dns.set(lab.GatewayAddr)
	s.await("the tunnel comes up", func() error {
		if st, code := s.status(s.Clients[0], "--instance", "anna"); code != 0 {
			return fmt.Errorf("%q", st.Problems)
		}
		return nil
	})
	s.ping(2)
	const marks = "net/ipv4/conf/all/src_valid_mark"
	if err := s.Clients[0].Sysctl(marks, "0"); err != nil {
		t.Fatal(err)
	}
	s.want(s.Clients[0], exitDegraded, []string{"sysctl -w net.ipv4.conf.all.src_valid_mark=1"}, "--instance", "anna", "status")
	if n := strings.Count(client.log.String(), "cannot be resolved"); n != 1 {
		t.Errorf("%d lines of it: %s", n, &client.log)
	}
	s.stop(client, gw)
	s.detached()
}

// lookUp asks a name server without the mark of the gateway's.
func lookUp(ns *lab.Namespace, server netip.AddrPort) (answer []byte, err error) {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 1, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("vpn.example.org."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	q, err := m.Pack()
	if err != nil {
		return nil, err
	}
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
