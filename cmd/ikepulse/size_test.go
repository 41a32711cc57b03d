package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/test/lab"
)

// many is how many tunnels or sites a large gateway has: 20,000 in make long.
var many = flag.Int("many", 200, "so many clients, and so many sites, where a test has a large gateway")

// crowdConfig is a gateway with a pool that many have an address of.
const crowdConfig = `listen: {addresses: [198.51.100.1, 198.19.0.1]}
xdp: {capacity: 65536, keepalive: pass}
shards: 2
log: {level: warn}
connections:
  roadwarriors:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: "*@example.org"}
    pools: [office]
    dpd: {mode: off}
    children: {net: {local_ts: [10.0.0.0/24], remote_ts: [dynamic]}}
pools:
  office: {addresses: 10.96.0.0/14}
secrets:
  - {id: "*@example.org", psk_file: anna.psk}
`

// sitesConfig is a gateway with a connection for each of many networks.
func sitesConfig(n int) string {
	b := new(strings.Builder)
	b.WriteString("listen: {addresses: [198.51.100.1]}\nxdp: {capacity: 65536, keepalive: pass}\nlog: {level: warn}\nconnections:\n")
	for i := range n {
		fmt.Fprintf(b, "  site%d:\n    local: {auth: psk, id: vpn.example.org}\n    remote: {auth: psk, id: site%d@example.org}\n"+
			"    children: {lan: {local_ts: [10.0.0.0/24], remote_ts: [%v]}}\n", i, i, siteNetwork(i))
	}
	b.WriteString("  talk:\n    local: {auth: psk, id: vpn.example.org}\n    remote: {auth: psk, id: talk@example.org}\n" +
		"    children: {lan: {local_ts: [10.0.0.0/24], remote_ts: [10.99.0.0/24]}}\n" +
		"secrets:\n  - {id: \"*@example.org\", psk_file: anna.psk}\n")
	return b.String()
}

// siteNetwork leaves a gap to the next, so that each is a range of its own.
func siteNetwork(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>15), byte(i >> 7), byte(i << 1), 0}), 24)
}

// siteClient is one of them.
const siteClient = `listen: {addresses: [10.7.0.2]}
xdp: {capacity: 64, keepalive: pass}
control: {socket: %s/anna.sock}
defaults: {dpd: {mode: off}}
connections:
  hub:
    local: {auth: psk, id: site7@example.org}
    remote: {auth: psk, id: vpn.example.org, addresses: [198.51.100.1]}
    children: {net: {local_ts: [%v], remote_ts: [10.0.0.0/24]}}
secrets:
  - {id: vpn.example.org, psk_file: anna.psk}
`

// standingAgain is how to see, as cheaply as there is, that what an accident has
// taken away is back.
func standingAgain(name string, routes, policies int) func() bool {
	names := gateway.NamesOf("default")
	switch name {
	case "ip rule flush":
		return func() bool {
			rules, err := netlink.RuleList(unix.AF_INET)
			return err == nil && slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Table == names.Table })
		}
	case "nft flush ruleset":
		return func() bool { return len(tables()) > 0 } // it comes whole
	case "ip xfrm policy flush":
		return func() bool { return policyCount() == policies }
	}
	return func() bool {
		link, err := netlink.LinkByName(names.TUN)
		return err == nil && link.Attrs().Flags&net.FlagUp != 0 && routeCount() == routes
	}
}

func routeCount() int {
	routes, _ := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: gateway.NamesOf("default").Table}, netlink.RT_FILTER_TABLE)
	return len(routes)
}

// policyCount leaves out those of sockets.
func policyCount() (n int) {
	policies, _ := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
	for _, p := range policies {
		if p.Dir <= netlink.XFRM_DIR_FWD {
			n++
		}
	}
	return n
}

// tables are the names of those of nftables: each rewriting takes the other of
// two.
func tables() (names []string) {
	c, err := nftables.New()
	if err != nil {
		return nil
	}
	all, _ := c.ListTablesOfFamily(nftables.TableFamilyINet)
	for _, t := range all {
		names = append(names, fmt.Sprint(t.Name, " ", t.Flags))
	}
	return names
}

// recovers has every accident happen, with nothing let in or out, and says how
// long it took until all was back.
func (s *forged) recovers(gw *daemon, what string) {
	s.t.Helper()
	var routes, policies int
	if err := s.Gateway.Do(func() error {
		routes, policies = routeCount(), policyCount()
		return nil
	}); err != nil || routes < 2 || policies < 2 {
		s.t.Fatalf("%d routes, %d policies, %v", routes, policies, err)
	}
	s.t.Logf("%s: %d routes, %d policies", what, routes, policies)
	for _, a := range accidents {
		if a.name == "link down" {
			continue // it is put up again as with the next
		}
		var took time.Duration
		cpu := s.cpu(gw)
		s.hidden(what+": "+a.name, func() {
			begun := time.Now()
			err := s.Gateway.Do(func() error {
				if err := a.do(); err != nil {
					return err
				}
				done := time.Now() // the deletion itself may take long
				back := standingAgain(a.name, routes, policies)
				for end := done.Add(limit); !back(); time.Sleep(5 * time.Millisecond) {
					if time.Now().After(end) {
						return errors.New("it is not back")
					}
				}
				s.t.Logf("%s: %s takes %v", what, a.name, done.Sub(begun).Round(time.Millisecond))
				took = time.Since(done)
				return nil
			})
			if err != nil {
				s.t.Errorf("%s: %s: %v", what, a.name, err)
			}
		})
		s.whole()
		s.t.Logf("%s: back %v after %s, %d ms of CPU until all is known to be whole", what, took.Round(time.Millisecond), a.name, 10*(s.cpu(gw)-cpu))
	}
}

// crowd is where many clients call from.
func (s *forged) crowd() *lab.Namespace {
	s.t.Helper()
	crowd, err := s.lab.Namespace("crowd")
	p := netip.MustParsePrefix
	if err == nil {
		err = lab.Connect(lab.End{Namespace: s.Gateway, Name: "g2", Addresses: []netip.Prefix{p("198.19.0.1/24")}},
			lab.End{Namespace: crowd, Name: "c0", Addresses: []netip.Prefix{p("198.19.0.2/24")}})
	}
	if err == nil {
		err = errors.Join(crowd.Own(p("10.8.0.0/15")), s.Gateway.Route(p("10.8.0.0/15"), netip.MustParseAddr("198.19.0.2")))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return crowd
}

// TestManyClients: the barriers of a gateway with many tunnels come back as those
// of an empty one do, and nobody who comes or goes has them written anew.
func TestManyClients(t *testing.T) {
	s := newForged(t)
	crowd := s.crowd()
	gw := s.runQuiet(crowdConfig)
	var before, now []string
	look := func(into *[]string) {
		t.Helper()
		if err := s.Gateway.Do(func() error { *into = tables(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	look(&before)
	var out lab.Transcript
	clients := s.start(crowd, &out, nil, "loadtest", "198.19.0.1", "--json", "--peers", fmt.Sprint(*many), "--psk-file", filepath.Join(s.dir, "anna.psk"),
		"--from", "10.8.0.0/15", "--remote-ts", "10.0.0.0/24", "--hold", "10m")
	begun := time.Now()
	for st := (gateway.Status{}); st.Daemon == nil || st.IKE.Up < *many; time.Sleep(200 * time.Millisecond) {
		if st, _ = s.status(s.Gateway); time.Since(begun) > 5*time.Minute {
			t.Fatalf("%d are up: %s", st.IKE.Up, &out)
		}
	}
	t.Logf("%d are up after %v", *many, time.Since(begun).Round(time.Millisecond))
	if look(&now); !slices.Equal(before, now) {
		t.Errorf("the filter was written anew: %q, before %q", now, before)
	}
	s.recovers(gw, "clients")
	if st, _ := s.status(s.Gateway); st.IKE.Up != *many {
		t.Errorf("%d are up", st.IKE.Up)
	}
	look(&before)
	if err := clients.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-clients.Done()
	var report struct{ Up, Peers int }
	if err := json.NewDecoder(strings.NewReader(out.String())).Decode(&report); err != nil || report.Up != *many {
		t.Errorf("%v: %s", err, &out)
	}
	if look(&now); !slices.Equal(before, now) {
		t.Errorf("the filter was written anew: %q, before %q", now, before)
	}
	begun = time.Now()
	s.stop(gw)
	t.Logf("stopped in %v", time.Since(begun).Round(time.Millisecond))
	s.want(s.Gateway, 0, nil, "detach", "--all")
}

// runQuiet runs the gateway, which is quiet.
func (s *forged) runQuiet(config string) *daemon {
	s.t.Helper()
	begun := time.Now()
	s.write("anna.psk", psk+"\n")
	d := &daemon{}
	d.Process = s.start(s.Gateway, &d.log, nil, "run", "--config", s.write("gateway.yaml", config))
	for st := (gateway.Status{}); st.Daemon == nil; time.Sleep(20 * time.Millisecond) {
		select {
		case <-d.Done():
			s.t.Fatalf("the daemon has ended: %s", &d.log)
		default:
		}
		if st, _ = s.status(s.Gateway); time.Since(begun) > 2*time.Minute {
			s.t.Fatalf("it does not answer: %s", &d.log)
		}
	}
	s.t.Logf("started in %v", time.Since(begun).Round(time.Millisecond))
	return d
}

// TestManySites: the barriers of a gateway with a connection for each of many
// networks come back, and a site that comes and goes has none written anew.
func TestManySites(t *testing.T) {
	s := newForged(t)
	gw := s.runQuiet(sitesConfig(*many))
	s.recovers(gw, "sites")
	client := s.run(s.Clients[0], "--instance", "anna", "--config", s.write("anna.yaml", fmt.Sprintf(siteClient, s.dir, siteNetwork(7))))
	var before, now []string
	look := func(into *[]string) func() error {
		return func() error { *into = append(tables(), fmt.Sprint(policyCount())); return nil }
	}
	if err := s.Gateway.Do(look(&before)); err != nil {
		t.Fatal(err)
	}
	const turns = 10
	cpu := s.cpu(gw)
	for range turns {
		s.want(s.Clients[0], 0, []string{"hub is up\n"}, "--instance", "anna", "initiate", "hub")
		s.want(s.Clients[0], 0, nil, "--instance", "anna", "terminate", "*")
	}
	t.Logf("a site that comes and goes: %.1f ms of CPU", float64(s.cpu(gw)-cpu)*10/turns)
	if err := s.Gateway.Do(look(&now)); err != nil || !slices.Equal(before, now) {
		t.Errorf("the filters were written anew: %q, before %q, %v", now, before, err)
	}
	begun := time.Now()
	s.stop(client, gw)
	t.Logf("stopped in %v", time.Since(begun).Round(time.Millisecond))
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "--all")
	s.want(s.Gateway, 0, nil, "detach", "--all")
}
