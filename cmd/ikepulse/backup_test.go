package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
)

// backupAddr is the outer address of the second gateway.
var backupAddr = netip.MustParseAddr("198.19.0.2")

// narrowAddr lies in what a narrower connection is for, at either gateway.
var narrowAddr = netip.MustParseAddr("10.55.0.1")

// twoGateways is a site that a second gateway serves, too, with the same network
// behind it.
type twoGateways struct {
	*site
	backup *lab.Namespace
	config string // the client's
}

// hubConfig is a gateway's: by its outer address, its identity and its socket.
const hubConfig = `listen: {addresses: [%s]}
xdp: {capacity: 64}
control: {socket: %s}
defaults: {dpd: {delay: 1s, retransmit: {timeout: 300ms, base: 1.5, tries: 3}}}
connections:
  sites:
    local: {auth: psk, id: %s.example.org}
    remote: {auth: psk, id: "*@example.org"}
    children: {net: {local_ts: [10.0.0.0/8], remote_ts: [10.77.0.0/24]}}
secrets:
  - {id: "*@example.org", psk_file: anna.psk}
`

// twoHubsConfig is that of a site that calls both for the same network, and the
// backup for a narrower one when it is told to.
const twoHubsConfig = `listen: {addresses: [10.7.0.2]}
xdp: {capacity: 64}
control: {socket: %s/anna.sock}
defaults: {nat_keepalive: 300ms, dpd: {delay: 1s, retransmit: {timeout: 300ms, base: 1.5, tries: 3}}}
connections:
  main:
    local: {auth: psk, id: anna@example.org}
    remote: {auth: psk, id: main.example.org, addresses: [198.51.100.1]}
    children: {net: {local_ts: [10.77.0.0/24], remote_ts: [10.0.0.0/8], start_action: start}}
  backup:
    local: {auth: psk, id: anna@example.org}
    remote: {auth: psk, id: backup.example.org, addresses: [198.19.0.2]}
    children: {net: {local_ts: [10.77.0.0/24], remote_ts: [10.0.0.0/8], start_action: start}}
  narrow:
    local: {auth: psk, id: narrow@example.org}
    remote: {auth: psk, id: backup.example.org, addresses: [198.19.0.2]}
    children: {net: {local_ts: [10.77.0.0/24], remote_ts: [10.55.0.0/24]}}
bypass: [10.7.0.0/24]
secrets:
  - {id: main.example.org, psk_file: anna.psk}
  - {id: backup.example.org, psk_file: anna.psk}
`

func newTwoGateways(t *testing.T) *twoGateways {
	t.Helper()
	s := &twoGateways{site: newSite(t)}
	var err error
	if s.backup, err = s.lab.Namespace("backup"); err == nil {
		err = lab.Connect(lab.End{Namespace: s.NAT, Name: "n1", Addresses: []netip.Prefix{netip.MustParsePrefix("198.19.0.1/24")}},
			lab.End{Namespace: s.backup, Name: "b0", Addresses: []netip.Prefix{netip.PrefixFrom(backupAddr, 24)}})
	}
	if err == nil {
		err = errors.Join(
			s.backup.Address("lo", netip.PrefixFrom(inner, 32)), s.backup.Address("lo", netip.PrefixFrom(narrowAddr, 32)),
			s.Gateway.Address("lo", netip.PrefixFrom(narrowAddr, 32)),
			s.backup.Route(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("198.19.0.1")),
			s.Gateway.Route(netip.MustParsePrefix("0.0.0.0/0"), lab.NATAddr),
			s.Clients[0].Address("lo", netip.MustParsePrefix("10.77.0.1/32")))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.config = s.write("anna.yaml", fmt.Sprintf(twoHubsConfig, s.dir))
	return s
}

// hub runs the gateway of a name.
func (s *twoGateways) hub(name string) *daemon {
	s.t.Helper()
	ns, addr := s.Gateway, lab.GatewayAddr
	if name == "backup" {
		ns, addr = s.backup, backupAddr
	}
	return s.run(ns, "--instance", name, "--config", s.write(name+".yaml", fmt.Sprintf(hubConfig, addr, s.dir+"/"+name+".sock", name)))
}

// up waits until so many tunnels of the site are.
func (s *twoGateways) up(n int) {
	s.t.Helper()
	s.await(fmt.Sprintf("%d tunnels are up", n), func() error {
		if st, _ := s.status(s.Clients[0], "--instance", "anna"); st.Daemon == nil || st.IKE.Up != n {
			return fmt.Errorf("%+v", st.Problems)
		}
		return nil
	})
}

// say makes the site talk to what lies behind the gateways, and watches its link.
func (s *twoGateways) say() (outside *lab.Capture, chat *lab.Chat) {
	s.t.Helper()
	outside, err := s.Clients[0].Capture(lab.ClientLink, func(f lab.Frame) bool { return f.Outgoing && strings.Contains(string(f.Data), secretText) })
	if err == nil {
		chat, err = s.Clients[0].Chat(netip.MustParseAddrPort("10.77.0.1:9"), netip.AddrPortFrom(inner, talkPort), secretText)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return outside, chat
}

// reached reports whether what lies behind the gateways answers the site.
func (s *twoGateways) reached(to netip.Addr) error {
	sent, received, err := s.Clients[0].Ping(s.t.Context(), lab.Ping{Dst: to, Count: 1, Timeout: limit / 20})
	if err == nil && received != sent {
		err = errors.New("no answer")
	}
	return err
}

// TestBackupGateway: of two gateways for the same network, in namespaces of one
// host, either carries all when the other is gone; with both gone nothing leaves in
// the clear, and what a narrower connection is for never goes by the wider one.
func TestBackupGateway(t *testing.T) {
	s := newTwoGateways(t)
	hubs := map[string]*daemon{"main": s.hub("main"), "backup": s.hub("backup")}
	s.await("without tunnels all leaves in the clear", func() error {
		outside, chat := s.say()
		time.Sleep(100 * time.Millisecond)
		chat.End()
		if frames, err := outside.Stop(); err != nil || len(frames) == 0 {
			return fmt.Errorf("%d packets, %v", len(frames), err)
		}
		return nil
	})
	client := s.run(s.Clients[0], "--instance", "anna", "--config", s.config)
	s.up(2)
	outside, chat := s.say()
	carried := func(when string) {
		t.Helper()
		s.await("the network is reached "+when, func() error { return s.reached(inner) })
	}
	hidden := func(when string) {
		t.Helper()
		if err := s.reached(narrowAddr); err == nil {
			t.Errorf("%s: the wider tunnel carries what the narrower one is for", when)
		}
	}
	carried("by two")
	hidden("by two")
	for _, gone := range []string{"main", "backup"} {
		if err := hubs[gone].Kill(); err == nil {
			t.Errorf("%s: killed, and ended well", gone)
		}
		carried("without " + gone)
		s.up(1)
		hidden("without " + gone)
		hubs[gone] = s.hub(gone)
		s.up(2)
		carried("with " + gone + " again")
	}
	for _, d := range hubs {
		s.stop(d)
	}
	s.up(0)
	if err := s.reached(inner); err == nil {
		t.Error("the network is reached without a gateway")
	}
	hubs = map[string]*daemon{"main": s.hub("main"), "backup": s.hub("backup")}
	s.up(2)
	carried("at the end")
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "initiate", "narrow")
	s.await("the narrower network is reached", func() error { return s.reached(narrowAddr) })
	// Each keeps what is its own while the other's is taken away.
	s.stop(hubs["main"])
	s.want(s.Gateway, 0, nil, "--instance", "main", "detach", "--all")
	carried("without main, which has detached")

	chat.End()
	frames, err := outside.Stop()
	if err != nil || len(frames) > 0 {
		t.Errorf("%d packets left in the clear, %v", len(frames), err)
	}
	s.stop(client, hubs["backup"])
	s.want(s.backup, 0, nil, "--instance", "backup", "detach", "--all")
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "--all")
}
