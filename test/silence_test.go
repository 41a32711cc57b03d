package test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/test/lab"
)

// silence is a gateway whose tunnels are silent for different causes. It is the
// instance "default", which no other test is: what is typed here is what a
// person types.
type silence struct {
	*testing.T
	lab   *lab.Lab
	net   *lab.Standard
	gw    *daemon
	peers map[string]*daemon
	spis  map[string]uint32 // of the peers' tunnels, at the gateway
	wire  *lab.Capture      // at the NAT's end of the gateway's link
	shell *shell
	last  string // what was printed last
}

// who is behind the NAT, in the order of its clients.
var silentPeers = []string{"anna", "bert", "cora", "dora", "emil", "fred", "hugo"}

const (
	vera = "vera" // is not: she comes by a link of her own
	// otherAddr is the gateway's, and not among its listen.addresses.
	otherAddr = "198.51.100.2"
	silentLog = "/run/ikepulse.log"
)

// The timers are short: what takes minutes on a gateway is to be seen here.
const silentGateway = `
listen: {addresses: [198.51.100.1], interfaces: [g0]}
xdp: {capacity: 1024, answer_interval: 2s}
defaults:
  proposals: [aes256gcm16-prfsha384-x25519]
  esp_proposals: [aes256gcm16-esn]
connections:
  roadwarriors:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: "*@example.org"}
    dpd: {delay: 3s, retransmit: {timeout: 1s, base: 1.5, tries: 6}}
    pools: [office]
    children: {net: {local_ts: [10.99.0.1/32], remote_ts: [dynamic]}}
  impatient:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: fred@example.org}
    dpd: {delay: 2s, retransmit: {timeout: 300ms, base: 1, tries: 2}}
    pools: [office]
    children: {net: {local_ts: [10.99.0.1/32], remote_ts: [dynamic]}}
pools:
  office: {addresses: 10.98.0.0/24}
secrets:
  - {id: "*@example.org", psk_file: psk}
`

const silentPeer = `
listen: {addresses: [%s]}
xdp: {capacity: 64, keepalive: pass}
defaults:
  proposals: [aes256gcm16-prfsha384-x25519]
  esp_proposals: [aes256gcm16-esn]
  dpd: {mode: off}
  nat_keepalive: 1s
connections:
  office:
    local: {auth: psk, id: %s@example.org}
    remote: {auth: psk, id: vpn.example.org, addresses: [%s]}
    vips: ["0.0.0.0"]
    children: {net: {local_ts: [dynamic], remote_ts: [10.99.0.1/32], start_action: %s}}
secrets:
  - {id: vpn.example.org, psk_file: psk}
`

// newSilence brings the tunnels up, and then each cause about: they take their
// time, all together.
func newSilence(t *testing.T) *silence {
	t.Helper()
	if !isolated {
		t.Fatal("these tests are not in namespaces of their own")
	}
	path, err := product()
	if err != nil {
		t.Fatal(err)
	}
	s := &silence{T: t, lab: lab.New(), peers: map[string]*daemon{}, spis: map[string]uint32{}}
	t.Cleanup(func() {
		if err := s.lab.Close(); err != nil {
			t.Error(err)
		}
	})
	s.do(func() (err error) { s.net, err = s.lab.Standard(len(silentPeers)); return err })
	s.do(func() error { return s.net.Gateway.Address("lo", netip.PrefixFrom(inner, 32)) })
	s.do(func() error { return s.net.Gateway.Address(lab.GatewayLink, netip.MustParsePrefix(otherAddr+"/24")) })
	s.gw = &daemon{t: t, ns: s.net.Gateway, instance: "default", log: new(lab.Transcript)}
	s.gw.dir = folder(t, map[string]string{"ikepulse.yaml": silentGateway, "psk": psk})
	t.Cleanup(s.gw.remove)
	s.gw.run()
	s.wire = tap(t, s.net.NAT, "n0", func(f lab.Frame) bool { return f.Outgoing })
	s.shell = &shell{t: t, ns: s.net.Gateway, dir: t.TempDir(), path: filepath.Dir(path)}
	s.callAll()
	s.begin()
	return s
}

// do is what must not fail.
func (s *silence) do(f func() error) {
	s.Helper()
	if err := f(); err != nil {
		s.Fatal(err)
	}
}

// peer starts a peer's daemon.
func (s *silence) peer(name string, ns *lab.Namespace, at netip.Addr, gateway, action string) {
	s.Helper()
	s.peers[name] = start(s.T, ns, fmt.Sprintf(silentPeer, at, name, gateway, action), map[string]string{"psk": psk})
}

// callAll starts all peers and waits for the tunnels of those behind the NAT, and
// for the first keepalive and the first ESP packet from each.
func (s *silence) callAll() {
	s.Helper()
	// One after the other: attaching can take the kernel seconds, and who waits
	// for another instance to be done goes on without XDP.
	for i, name := range silentPeers {
		to := lab.GatewayAddr.String()
		if name == "hugo" {
			to = otherAddr
		}
		s.peer(name, s.net.Clients[i], lab.ClientAddr(i), to, "start")
	}
	s.linkVera()
	s.Cleanup(func() { // nobody is there to say goodbye to
		for _, d := range s.peers {
			d.process.Kill()
		}
		s.gw.process.Kill()
	})
	await(s.T, "all but one have tunnels, and have sent keepalives", func() bool {
		n := 0
		for _, p := range s.gw.peers() {
			if p.Child != nil && p.Received > 0 {
				s.spis[strings.TrimSuffix(p.Identity, "@example.org")] = parseSPI(s.T, p.Child.InSPI)
				n++
			}
		}
		return n == len(silentPeers)-1
	})
	for i := range silentPeers[:len(silentPeers)-1] {
		ping(s.T, s.net.Clients[i], netip.Addr{}, inner, 1, 0)
	}
}

// client is a peer's place behind the NAT.
func (s *silence) client(name string) (*lab.Namespace, netip.AddrPort) {
	i := slices.Index(silentPeers, name)
	return s.net.Clients[i], netip.AddrPortFrom(lab.ClientAddr(i), lab.NATTPort)
}

// begin brings the causes about.
func (s *silence) begin() {
	s.Helper()
	s.peers["anna"].process.Kill()
	anna, _ := s.client("anna")
	s.do(func() error {
		return anna.Do(func() error {
			link, err := netlink.LinkByName(lab.ClientLink)
			if err != nil {
				return err
			}
			return netlink.LinkSetDown(link)
		})
	})
	s.peers["cora"].process.Kill()
	s.do(func() error { return s.peers["fred"].process.Signal(syscall.SIGSTOP) })
	_, emil := s.client("emil")
	s.do(func() error { return s.net.Masq.RebindFrom(emil.Addr()) })

	ctx, cancel := context.WithCancel(s.Context())
	ended := make(chan struct{})
	s.Cleanup(func() { cancel(); <-ended })
	go func() { // ends with ctx
		defer close(ended)
		for ctx.Err() == nil {
			s.sendAs("cora", []byte{0xff})
			s.sendAs("dora", garbage(s.spis["dora"]))
			select {
			case <-time.After(300 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
}

// sendAs sends a datagram from a peer's own address and port.
func (s *silence) sendAs(name string, payload []byte) {
	ns, from := s.client(name)
	sendRaw(s.T, ns, from, netip.AddrPortFrom(lab.GatewayAddr, lab.NATTPort), payload)
}

// garbage is an ESP packet as one who has other keys would send it.
func garbage(spi uint32) []byte {
	const iv, payload, icv = 8, 32, 16
	b := binary.BigEndian.AppendUint32(nil, spi)
	b = binary.BigEndian.AppendUint32(b, 7)
	return append(b, make([]byte, iv+payload+icv)...)
}

// silentSA is what is awaited of a line of `sas --json`.
type silentSA struct {
	Identity    string `json:"identity"`
	IdleMS      *int64 `json:"idle_ms"`
	ProofMS     *int64 `json:"proof_ms"`
	Outstanding bool   `json:"outstanding"`
	Alarm       string `json:"alarm"`
}

// shows waits until the gateway shows a peer's tunnel as wanted.
func (s *silence) shows(name, what string, as func(silentSA) bool) {
	s.Helper()
	await(s.T, name+": "+what, func() bool {
		var all []silentSA
		s.gw.read(&all, "sas")
		i := slices.IndexFunc(all, func(sa silentSA) bool { return sa.Identity == name+"@example.org" })
		return i >= 0 && as(all[i])
	})
}

// old is an age that is surely one; an old one only grows.
func old(ms *int64) bool { return ms != nil && *ms > (young+time.Second).Milliseconds() }

func silentFor(sa silentSA) bool { return old(sa.IdleMS) && old(sa.ProofMS) && sa.Outstanding }

// linkVera gives the gateway another link, with somebody who does not call yet.
func (s *silence) linkVera() {
	s.Helper()
	var ns *lab.Namespace
	here, there := netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("203.0.113.7/24")
	s.do(func() (err error) { ns, err = s.lab.Namespace(vera); return err })
	s.do(func() error {
		return lab.Connect(lab.End{Namespace: s.net.Gateway, Name: "g1", Addresses: []netip.Prefix{here}},
			lab.End{Namespace: ns, Name: lab.ClientLink, Addresses: []netip.Prefix{there}})
	})
	s.do(func() error { return ns.Route(netip.PrefixFrom(lab.GatewayAddr, 32), here.Addr()) })
	s.peer(vera, ns, there.Addr(), lab.GatewayAddr.String(), "none")
}

// veraCalls brings her tunnel up, whose traffic goes on to the end.
func (s *silence) veraCalls() {
	s.Helper()
	s.peers[vera].must("initiate", "office")
	ctx, cancel := context.WithCancel(s.Context())
	ended := make(chan error)
	s.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			s.Errorf("vera's traffic: %v", err)
		}
	})
	go func() { // ends with ctx
		_, _, err := s.peers[vera].ns.Ping(ctx, lab.Ping{Dst: inner, Count: 1 << 20, Interval: 200 * time.Millisecond, Timeout: limit})
		ended <- err
	}()
}

func (s *silence) emilSends() {
	ns, _ := s.client("emil")
	ping(s.T, ns, netip.Addr{}, inner, 1, 0)
	s.shows("emil", "has moved", func(sa silentSA) bool { return sa.Alarm == "moved" && !sa.Outstanding })
}

// writeTrace makes a capture of three frames that have passed the wire.
func (s *silence) writeTrace() {
	s.Helper()
	const snapLength, ethernet = 1 << 16, 1
	order := binary.LittleEndian
	b := order.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = order.AppendUint32(order.AppendUint32(b, snapLength), ethernet)
	frames := s.wire.Frames()
	for _, wanted := range []func(to netip.AddrPort, payload []byte) bool{
		func(_ netip.AddrPort, payload []byte) bool { return slices.Equal(payload, garbage(s.spis["dora"])) },
		func(_ netip.AddrPort, payload []byte) bool { return slices.Equal(payload, []byte{0xff}) },
		func(to netip.AddrPort, _ []byte) bool { return to.Addr().String() == otherAddr },
	} {
		i := slices.IndexFunc(frames, func(f lab.Frame) bool {
			_, to, payload, ok := f.UDP()
			return ok && wanted(to, payload)
		})
		if i < 0 {
			s.Fatal("a frame of the trace has not passed the wire")
		}
		length := uint32(len(frames[i].Data))
		b = append(b, make([]byte, 8)...) // when, which does not matter
		b = order.AppendUint32(order.AppendUint32(b, length), length)
		b = append(b, frames[i].Data...)
	}
	s.do(func() error { return os.WriteFile(filepath.Join(s.shell.dir, "trace.pcap"), b, 0o600) })
}
