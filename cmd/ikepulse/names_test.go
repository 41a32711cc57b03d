package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// namedClient runs a client that is to have a tunnel for everything to a gateway
// that it knows by name. Its host filters by the reverse path, loosely, as systemd
// sets it.
func (s *site) namedClient(server netip.Addr, dpd string) *daemon {
	s.t.Helper()
	return s.namedClientThat(server, "mode: off", dpd)
}

// namedClientThat is that with other changes to the client's configuration.
func (s *site) namedClientThat(server netip.Addr, changes ...string) *daemon {
	s.t.Helper()
	return s.namedClientOn(s.resolves(server), changes...)
}

// namedClientOn is that on a host that is prepared so.
func (s *site) namedClientOn(prepare func() error, changes ...string) *daemon {
	s.t.Helper()
	for _, which := range []string{"all", lab.ClientLink} {
		if err := s.Clients[0].Sysctl("net/ipv4/conf/"+which+"/rp_filter", "2"); err != nil {
			s.t.Fatal(err)
		}
	}
	config := strings.NewReplacer(append(changes, "[198.51.100.1]", "[vpn.example.org]",
		"local_ts: [dynamic]", "local_ts: [dynamic], start_action: start")...).Replace(fmt.Sprintf(clientConfig, s.dir))
	return s.runPrepared(s.Clients[0], prepare, "--instance", "anna", "--config", s.write("anna.yaml", config))
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
	s.comesUp()
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

// comesUp wants the client's tunnel.
func (s *site) comesUp() {
	s.t.Helper()
	s.await("the tunnel comes up", func() error {
		if st, code := s.status(s.Clients[0], "--instance", "anna"); code != 0 || st.IKE.Up != 1 {
			return fmt.Errorf("%q", st.Problems)
		}
		return nil
	})
	s.ping(2)
}

// resolves has a process ask that name server.
func (s *site) resolves(server netip.Addr) (prepare func() error) {
	conf := s.write("resolv.conf", "nameserver "+server.String()+"\noptions timeout:1\n")
	return func() error { return overlaid(conf, "/etc/resolv.conf") }
}

// overlaid has a process find another file at a place.
func overlaid(file, at string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	return unix.Mount(file, at, "", unix.MS_BIND, "")
}

// sixth gives the client a way to the gateway's segment by IPv6. A router asks for
// neighbours from its link-local address.
func (s *site) sixth() {
	s.t.Helper()
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	err := errors.Join(
		s.NAT.Sysctl("net/ipv6/conf/all/forwarding", "1"),
		s.Clients[0].Address(lab.ClientLink, p("2001:db8:7::2/64")), s.NAT.Address("c0", p("2001:db8:7::1/64")),
		s.NAT.Address("n0", p("2001:db8:1::fe/64")), s.NAT.Address("n0", p("fe80::fe/64")), s.NAT.Address("c0", p("fe80::1/64")), s.Gateway.Address(lab.GatewayLink, p("2001:db8:1::1/64")))
	if err == nil {
		err = errors.Join(s.Clients[0].Route(p("::/0"), a("2001:db8:7::1")), s.Gateway.Route(p("2001:db8:7::/64"), a("2001:db8:1::fe")))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestNameServers: a client whose tunnel is for everything of both families, and
// down, finds its gateway by whatever name server and by both transports.
func TestNameServers(t *testing.T) {
	four, six := netip.MustParseAddr("198.51.100.53"), netip.MustParseAddr("2001:db8:1::53")
	for _, c := range []struct {
		name      string
		server    netip.Addr
		truncates bool
	}{
		{"by TCP", four, true}, {"by IPv6", six, false}, {"by TCP over IPv6", six, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.sixth()
			dns := s.nameServerThat(c.server, c.truncates)
			dns.set(lab.GatewayAddr)
			gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
			client := s.namedClientThat(c.server, "remote_ts: [0.0.0.0/0]", `remote_ts: [0.0.0.0/0, "::/0"]`)
			s.comesUp()
			if called := dns.callers() > 0; called != c.truncates {
				t.Errorf("asked by TCP: %v, want %v", called, c.truncates)
			}
			s.stop(client, gw)
			s.detached()
		})
	}
}

// TestCachingResolver: a resolver of the client's own host asks by the tunnel, and
// so brings nothing up: check and status say so, and the remedy is one.
func TestCachingResolver(t *testing.T) {
	s := newSite(t)
	server, cache := netip.MustParseAddr("198.51.100.53"), netip.MustParseAddr("127.0.0.53")
	s.nameServer(server).set(lab.GatewayAddr)
	s.caches(s.Clients[0], netip.AddrPortFrom(cache, 53), netip.AddrPortFrom(server, 53))
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	client := s.namedClient(cache, "mode: off")
	s.await("status says why", func() error {
		r := s.do(s.Clients[0], "--instance", "anna", "status")
		if !strings.Contains(r.out, "perhaps 127.0.0.53:53 asks others by the tunnel; bypass: [their addresses]") {
			return errors.New(r.out)
		}
		return nil
	})
	var out lab.Transcript
	check := s.end(s.start(s.Clients[0], &out, s.resolves(cache), "check", "--config", s.dir+"/anna.yaml"), &out)
	if says := "127.0.0.53 is a resolver of this host, which asks others by the tunnel: vpn.example.org is not found"; check.code != 0 || strings.Count(check.out, says) != 1 {
		t.Errorf("check: %d %s", check.code, check.out)
	}
	s.stop(client)
	client = s.namedClientThat(cache, "xdp: {capacity: 64", "bypass: [198.51.100.53]\nxdp: {capacity: 64")
	s.comesUp()
	s.stop(client, gw)
	s.detached()
}

// TestNamesWithoutNFTables: where nothing gives packets our mark the filter by the
// reverse path drops what a covered name server answers, whatever it minds; status
// names what helps, and that does.
func TestNamesWithoutNFTables(t *testing.T) {
	s := newSite(t)
	server := netip.MustParseAddr("198.51.100.53")
	s.nameServer(server).set(lab.GatewayAddr)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	client := s.namedClientOn(func() error {
		return errors.Join(s.resolves(server)(), lackNetlink([]uint32{unix.NETLINK_NETFILTER}))
	})
	if err := s.Clients[0].Sysctl("net/ipv4/conf/all/src_valid_mark", "1"); err != nil {
		t.Fatal(err)
	}
	const remedy = "without nftables it must be off: sysctl -w "
	var settings []string
	s.await("status names the remedy", func() error {
		st, _ := s.status(s.Clients[0], "--instance", "anna")
		problems := strings.Join(st.Problems, "\n")
		_, after, found := strings.Cut(problems, remedy)
		if !found || !strings.Contains(problems, "no answer from "+server.String()) {
			return errors.New(problems)
		}
		line, _, _ := strings.Cut(after, "\n")
		settings = strings.Fields(line)
		return nil
	})
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		if err := s.Clients[0].Sysctl(strings.ReplaceAll(name, ".", "/"), value); err != nil {
			t.Fatal(err)
		}
	}
	s.comesUp()
	s.stop(client, gw)
	s.detached()
}
