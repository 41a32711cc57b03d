package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/test/lab"
)

// Whoever talks in these tests: a host of the branch, one behind both gateways,
// and one in a network that has a tunnel of its own.
var (
	branchHost  = netip.MustParseAddr("10.50.0.1")
	officeHost  = netip.MustParseAddr("10.1.0.1")
	guardedHost = netip.MustParseAddr("10.2.0.1")
)

// backup is a branch that reaches the same networks by two gateways, each in a
// namespace of its own. The router between them has those networks' addresses,
// too: whatever is in the clear arrives there, and it sends as if by a tunnel.
type backup struct {
	*site
	branch, second *lab.Namespace
	ends           map[string]*lab.Chat
	clear          []*lab.Capture
}

// officeGateway is the configuration of either gateway.
const officeGateway = `listen: {addresses: [%s]}
xdp: {capacity: 64, keepalive: pass}
control: {socket: %s/%s.sock}
defaults: {dpd: {delay: 2s, retransmit: {timeout: 300ms, base: 1.5, tries: 3}}}
connections:
  branch:
    local: {auth: psk, id: %s}
    remote: {auth: psk, id: branch.example.org}
    children: {lan: {local_ts: [10.0.0.0/8], remote_ts: [10.50.0.0/24]}}
secrets:
  - {id: branch.example.org, psk_file: anna.psk}
`

// twoGateways is the branch's. The third connection is for a part of what the
// others are for, and nobody answers it.
const twoGateways = `listen: {addresses: [10.7.0.2]}
xdp: {capacity: 64, keepalive: pass}
control: {socket: %s/branch.sock}
bypass: [10.7.0.0/24]
defaults: {dpd: {delay: 1s, retransmit: {timeout: 200ms, base: 1.5, tries: 3}}}
connections:
  main:
    local: {auth: psk, id: branch.example.org}
    remote: {auth: psk, id: main.example.org, addresses: [198.51.100.1]}
    children: {lan: {local_ts: [10.50.0.0/24], remote_ts: [10.0.0.0/8]}}
  backup:
    local: {auth: psk, id: branch.example.org}
    remote: {auth: psk, id: backup.example.org, addresses: [203.0.113.1]}
    children: {lan: {local_ts: [10.50.0.0/24], remote_ts: [10.0.0.0/8]}}
  guarded:
    local: {auth: psk, id: branch.example.org}
    remote: {auth: psk, id: guarded.example.org, addresses: [203.0.113.99]}
    children: {lan: {local_ts: [10.50.0.0/24], remote_ts: [10.2.0.0/24]}}
secrets:
  - {id: main.example.org, psk_file: anna.psk}
  - {id: backup.example.org, psk_file: anna.psk}
  - {id: guarded.example.org, psk_file: anna.psk}
`

func newBackup(t *testing.T) *backup {
	t.Helper()
	b := &backup{site: newSite(t), ends: map[string]*lab.Chat{}}
	b.branch = b.Clients[0]
	p := netip.MustParsePrefix
	var err error
	if b.second, err = b.lab.Namespace("backup"); err == nil {
		err = lab.Connect(lab.End{Namespace: b.second, Name: "b0", Addresses: []netip.Prefix{p("203.0.113.1/24")}},
			lab.End{Namespace: b.NAT, Name: "n1", Addresses: []netip.Prefix{p("203.0.113.254/24")}})
	}
	if err == nil {
		err = errors.Join(
			b.Gateway.Route(p("0.0.0.0/0"), lab.NATAddr),
			b.second.Route(p("0.0.0.0/0"), netip.MustParseAddr("203.0.113.254")),
			b.NAT.Route(p("10.50.0.0/24"), lab.ClientAddr(0)),
			b.branch.Address("lo", netip.PrefixFrom(branchHost, 32)))
	}
	for _, a := range []netip.Addr{officeHost, guardedHost} {
		for _, ns := range []*lab.Namespace{b.Gateway, b.second, b.NAT} {
			if err == nil {
				err = ns.Address("lo", netip.PrefixFrom(a, 32))
			}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// office runs one of the gateways.
func (b *backup) office(ns *lab.Namespace, name string, addr string) *daemon {
	b.t.Helper()
	return b.run(ns, "--instance", name, "--config",
		b.write(name+".yaml", fmt.Sprintf(officeGateway, addr, b.dir, name, name+".example.org")))
}

func (b *backup) offices() (main, second *daemon) {
	b.t.Helper()
	return b.office(b.Gateway, "main", "198.51.100.1"), b.office(b.second, "backup", "203.0.113.1")
}

// The ports of the branch's host, by who may send there.
const byMain, byBackup, inTheClear, guarded = 9, 19, 29, 39

// talk has everybody send to everybody, a packet each 2 ms.
func (b *backup) talk() {
	b.t.Helper()
	for _, at := range []struct {
		ns   *lab.Namespace
		link string
	}{{b.branch, lab.ClientLink}, {b.Gateway, lab.GatewayLink}, {b.second, "b0"}} {
		c, err := at.ns.Capture(at.link, func(f lab.Frame) bool { return f.Outgoing && strings.Contains(string(f.Data), secretText) })
		if err != nil {
			b.t.Fatal(err)
		}
		b.clear = append(b.clear, c)
	}
	port := netip.AddrPortFrom
	for _, e := range []struct {
		name     string
		ns       *lab.Namespace
		from, to netip.AddrPort
	}{
		{"branch from main", b.branch, port(branchHost, byMain), port(officeHost, 9)},
		{"branch from backup", b.branch, port(branchHost, byBackup), port(officeHost, 9)},
		{"branch in the clear", b.branch, port(branchHost, inTheClear), port(officeHost, 9)},
		{"branch from guarded", b.branch, port(branchHost, guarded), port(guardedHost, 9)},
		{"main", b.Gateway, port(officeHost, 9), port(branchHost, byMain)},
		{"backup", b.second, port(officeHost, 9), port(branchHost, byBackup)},
		{"outside", b.NAT, port(officeHost, 9), port(branchHost, inTheClear)},
		{"guarded at main", b.Gateway, port(guardedHost, 9), port(branchHost, guarded)},
		{"guarded at backup", b.second, port(guardedHost, 9), port(branchHost, guarded)},
		{"guarded outside", b.NAT, port(guardedHost, 9), port(branchHost, guarded)},
	} {
		c, err := e.ns.Chat(e.from, e.to, secretText)
		if err != nil {
			b.t.Fatal(err)
		}
		b.ends[e.name] = c
	}
}

// moves waits until these hear something new, and wants that the others hear
// nothing from then on.
func (b *backup) moves(when string, talking ...string) {
	b.t.Helper()
	heard := func() map[string]int {
		n := map[string]int{}
		for name, e := range b.ends {
			n[name] = len(e.Heard())
		}
		return n
	}
	before := heard()
	b.await("traffic moves "+when, func() error {
		now := heard()
		for _, name := range talking {
			if now[name] < before[name]+10 {
				return fmt.Errorf("%s has heard %d packets", name, now[name]-before[name])
			}
		}
		return nil
	})
	before = heard()
	time.Sleep(200 * time.Millisecond)
	for name, n := range heard() {
		if !slices.Contains(talking, name) && n > before[name] {
			b.t.Errorf("%s: %s has heard %d packets", when, name, n-before[name])
		}
	}
}

// silent wants that nothing has left in the clear, nor come in so, and nothing
// of the network that has a tunnel of its own.
func (b *backup) silent() {
	b.t.Helper()
	for _, e := range b.ends {
		e.End()
	}
	for i, c := range b.clear {
		frames, err := c.Stop()
		if err != nil || len(frames) != 0 {
			b.t.Errorf("capture %d: %d packets left in the clear, %v", i, len(frames), err)
		}
	}
	for _, name := range []string{"branch in the clear", "branch from guarded", "outside", "guarded at main", "guarded at backup", "guarded outside"} {
		if n := len(b.ends[name].Heard()); n != 0 {
			b.t.Errorf("%s has heard %d packets", name, n)
		}
	}
}

// initiate calls a gateway.
func (b *backup) initiate(name string) {
	b.t.Helper()
	b.want(b.branch, 0, []string{name + " is up\n"}, "--instance", "branch", "initiate", name)
}

// downTo waits until the branch has so many tunnels.
func (b *backup) downTo(n int) {
	b.t.Helper()
	b.await(fmt.Sprintf("%d tunnels are up", n), func() error {
		if st, _ := b.status(b.branch, "--instance", "branch"); st.Daemon == nil || st.IKE.Up != n {
			return errors.New("not so")
		}
		return nil
	})
}

// TestBackupGateway: of two gateways for the same networks the one that was
// called last carries the traffic; the other takes over when that one is dead or
// deleted, and gives back when it is called again. Meanwhile nothing is in the
// clear; and a network with a tunnel of its own, which is not up, goes by none of
// them.
func TestBackupGateway(t *testing.T) {
	b := newBackup(t)
	first, second := b.offices()
	branch := b.run(b.branch, "--instance", "branch", "--config", b.write("branch.yaml", fmt.Sprintf(twoGateways, b.dir)))
	b.talk()
	byFirst, bySecond := "main", "backup"
	in := []string{"branch from main", "branch from backup"}
	b.moves("before any tunnel is up")
	b.initiate("backup")
	b.moves("with the backup alone", bySecond, in[1])
	b.initiate("main")
	b.moves("with both", append(in, byFirst)...)

	// Somebody takes away what ends the packets of the missing network.
	table := gateway.NamesOf("branch").Table
	err := b.branch.Do(func() error {
		to := netip.MustParsePrefix("10.2.0.0/24")
		return netlink.RouteDel(&netlink.Route{Table: table, Type: unix.RTN_UNREACHABLE, Priority: 1<<31 - 1, Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), 32)}})
	})
	if err != nil {
		t.Fatal(err)
	}
	b.await("it is back", func() error {
		if lines := b.stateOf(b.branch, "branch"); !slices.Contains(lines, fmt.Sprintf("route 10.2.0.0/24 type %d", unix.RTN_UNREACHABLE)) {
			return fmt.Errorf("%q", lines)
		}
		return nil
	})

	if err := first.Kill(); err == nil {
		t.Error("killed, and ended well")
	}
	b.downTo(1)
	b.moves("after the death of the main one", bySecond, in[1])
	first = b.office(b.Gateway, "main", "198.51.100.1")
	b.initiate("main")
	b.moves("when the main one is back", append(in, byFirst)...)
	b.want(b.Gateway, 0, []string{"deleting 1 IKE SA"}, "--instance", "main", "terminate", "*")
	b.downTo(1)
	b.moves("after the main one has deleted", bySecond, in[1])
	b.want(b.branch, 0, []string{"deleting 1 IKE SA"}, "--instance", "branch", "terminate", "backup")
	b.downTo(0)
	b.moves("without any")
	b.initiate("main")
	b.moves("with the main one alone", byFirst, in[0])
	b.silent()
	b.stop(branch, first, second)
	b.ended()
}

// ended takes away what the daemons have left.
func (b *backup) ended() {
	b.t.Helper()
	for name, ns := range map[string]*lab.Namespace{"branch": b.branch, "main": b.Gateway, "backup": b.second} {
		b.want(ns, 0, nil, "--instance", name, "detach", "--all")
		if left := b.stateOf(ns, name); len(left) != 0 {
			b.t.Errorf("%s has left %q", name, left)
		}
	}
}

// filesOf are what an instance has in the places that all namespaces share.
func filesOf(t *testing.T, instance string) (files []string) {
	t.Helper()
	n := gateway.NamesOf(instance)
	for _, path := range []string{n.Lock, n.Records, strings.TrimSuffix(n.Lock, ".lock") + ".where", pins + "/" + instance} {
		if _, err := os.Lstat(path); err == nil {
			files = append(files, path)
		}
	}
	return files
}

// TestTwoInstances: two gateways of one host, each in a namespace of its own, for
// the same networks, do not touch what the other has; not when they are killed
// either, nor when somebody mistakes one for the other.
func TestTwoInstances(t *testing.T) {
	b := newBackup(t)
	first, second := b.offices()
	b.talk()
	quiet := func(i int) {
		t.Helper()
		if frames, err := b.clear[i].Stop(); err != nil || len(frames) != 0 {
			t.Errorf("gateway %d: %d packets left in the clear, %v", i, len(frames), err)
		}
	}
	barriers := func() []string { // a socket's own policies go with it
		return slices.DeleteFunc(b.stateOf(b.Gateway, "main"), func(line string) bool { return strings.HasPrefix(line, "policy socket") })
	}
	want, files := barriers(), filesOf(t, "main")
	if len(want) < 3 || len(files) != 4 {
		t.Fatalf("barriers %q, files %q", want, files)
	}
	untouched := func(when string) {
		t.Helper()
		if now := barriers(); !slices.Equal(now, want) {
			t.Errorf("%s: the barriers are %q, were %q", when, now, want)
		}
		if now := filesOf(t, "main"); !slices.Equal(now, files) {
			t.Errorf("%s: there are %q, were %q", when, now, files)
		}
	}
	b.want(b.second, exitError, []string{"instance main is running already"}, "--instance", "main", "run", "--config", b.dir+"/backup.yaml")
	untouched("after another has tried to run as it")
	if err := errors.Join(first.Signal(unix.SIGKILL), second.Signal(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	<-second.Done()
	untouched("killed")
	b.want(b.second, exitError, []string{"another network namespace"}, "--instance", "main", "detach", "--all")
	untouched("after detach in the namespace of the other")
	quiet(2)
	b.want(b.second, 0, nil, "--instance", "backup", "detach", "--all")
	untouched("after detach of the other")
	if left, files := b.stateOf(b.second, "backup"), filesOf(t, "backup"); len(left) != 0 || len(files) != 0 {
		t.Errorf("detach has left %q, %q", left, files)
	}
	first, second = b.offices()
	untouched("started again")
	b.stop(second)
	untouched("after the end of the other")
	quiet(1)
	b.stop(first)
	b.ended()
}
