package shard

import (
	"bytes"
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/directory"
	"github.com/ikepulse/ikepulse/ike/internal/dpd"
	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// world is an in-memory network with gateways on it, in a bubble of
// testing/synctest: its clock moves only while nobody has anything to do.
type world struct {
	t       *testing.T
	began   time.Time
	latency time.Duration

	mu    sync.Mutex
	sites map[netip.Addr]*site
	nats  map[netip.Addr]*nat // by the inner address of who is behind it
	drop  func(p wire.Packet) bool
	tap   func(p wire.Packet)
	rng   *mathrand.Rand
	loss  float64
	dup   float64
	// jitter is how much later than latency a datagram may come.
	jitter time.Duration
	quiet  bool // what is sent and what happens is not kept: there is too much of it
}

// nat hides one address behind another, and gives its ports others.
type nat struct {
	inner, outer netip.Addr
	shift        uint16 // outer port = inner port + shift
}

// inBubble runs a test with a world.
func inBubble(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, began: time.Now(), latency: 10 * time.Millisecond, sites: map[netip.Addr]*site{},
			nats: map[netip.Addr]*nat{}, rng: mathrand.New(mathrand.NewPCG(1, 2))}
		f(w)
	})
}

// bootTime is what the clock shows when a world begins.
const bootTime = mono.Time(time.Hour)

func (w *world) now() mono.Time { return bootTime.Add(time.Since(w.began)) }

func (w *world) after(d time.Duration) { time.Sleep(d); synctest.Wait() }

// weather changes how bad the network is, while gateways use it.
func (w *world) weather(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// upTo draws a number from 0 to n-1.
func (w *world) upTo(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

// send puts a datagram on the network. It arrives later, by a goroutine of its
// own: any socket may receive anything.
func (w *world) send(p wire.Packet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.Data = bytes.Clone(p.Data)
	if w.tap != nil {
		w.tap(p)
	}
	if w.drop != nil && w.drop(p) || w.rng.Float64() < w.loss {
		return
	}
	from, to := p.Local, p.Remote
	if n := w.nats[from.Addr()]; n != nil {
		from = netip.AddrPortFrom(n.outer, from.Port()+n.shift)
	}
	for _, n := range w.nats {
		if to.Addr() == n.outer {
			to = netip.AddrPortFrom(n.inner, to.Port()-n.shift)
		}
	}
	s := w.sites[to.Addr()]
	if s == nil || to.Port() != 500 && to.Port() != 4500 {
		return
	}
	p.Local, p.Remote, p.NATT = to, from, to.Port() == 4500
	late := func() time.Duration { return w.latency + time.Duration(w.rng.Float64()*float64(w.jitter)) }
	time.AfterFunc(late(), func() { s.receive(p) })
	if w.rng.Float64() < w.dup {
		time.AfterFunc(late(), func() { s.receive(p) })
	}
}

// site makes a group at an address. It runs until the test ends or stop.
func (w *world) site(addr string, shards int, conns []*policy.Connection, change ...func(*Config)) *site {
	w.t.Helper()
	s := &site{w: w, addr: netip.MustParseAddr(addr), ended: make(chan struct{}),
		tracked: map[uint32]track{}, stamps: map[uint32]evidence{}, records: map[uint64]int{}, room: map[uint64]int{}, spis: map[uint32]bool{},
		calls: map[string]int{}, fail: map[string]int{}, panics: map[string]int{}}
	for range shards {
		s.planes = append(s.planes, &plane{site: s, in: map[uint32]*sa.ChildSA{}, out: map[uint32]*sa.ChildSA{}, sent: map[uint32]int64{}})
	}
	s.conf = Config{
		Edges: Edges{Tracker: s, DataPlane: func(i int) DataPlane { return s.planes[i] }, Sender: s, Store: s,
			AllocSPI: s.alloc, FreeSPI: s.free, ESPShard: s.espShard},
		Policy: policy.NewSet(conns, []policy.Secret{{Remote: pattern("%any"), PSK: []byte("a secret of the two, long enough")}}),
		Listen: []netip.Addr{s.addr}, IKEPort: 500, NATTPort: 4500,
		Pools:    []directory.Pool{{Name: "office", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}}},
		HalfOpen: 30 * time.Second, Limits: halfopen.Limits{}.Auto(1 << 18), Shards: shards, MaxSAs: 4096, Workers: 2, JobBytes: 64 << 20,
		Rand: rand.Reader, Clock: w.now, After: time.After,
		Sink: func(ev Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !w.quiet {
				s.events = append(s.events, ev)
			}
		},
		Surge: func(sg Surge) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.surges = append(s.surges, sg)
		},
	}
	for _, f := range change {
		f(&s.conf)
	}
	group, err := NewGroup(s.conf)
	if err != nil {
		w.t.Fatal(err)
	}
	s.group = group
	w.mu.Lock()
	w.sites[s.addr] = s
	w.mu.Unlock()
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	// Ends with stop.
	go func() {
		group.Run(ctx)
		close(s.ended)
	}()
	w.t.Cleanup(s.stop)
	return s
}

// stop ends the group politely.
func (s *site) stop() {
	s.cancel()
	<-s.ended
}

// vanish takes the site off the network: nobody hears of it any more.
func (s *site) vanish() {
	s.gone.Store(true)
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.w.sites[s.addr] == s {
		delete(s.w.sites, s.addr)
	}
}

// comeBack undoes vanish.
func (s *site) comeBack() {
	s.gone.Store(false)
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.sites[s.addr] = s
}

func pattern(s string) policy.Pattern {
	p, err := policy.ParsePattern(s)
	if err != nil {
		panic(err)
	}
	return p
}

func identity(s string) policy.ID { id, _ := pattern(s).Exact(); return id }

func ikeProposals(names ...string) (out []suite.Proposal) {
	for _, n := range names {
		p, err := suite.ParseIKE(n)
		if err != nil {
			panic(err)
		}
		out = append(out, p)
	}
	return out
}

func espProposals(name string) []suite.Proposal {
	p, err := suite.ParseESP(name)
	if err != nil {
		panic(err)
	}
	return []suite.Proposal{p}
}

func prefix(s string) wire.Selector {
	p := netip.MustParsePrefix(s)
	return wire.Selector{EndPort: 65535, Start: p.Addr(), End: lastOf(p)}
}

const (
	gatewayAddr = "198.51.100.1"
	clientAddr  = "10.7.0.2"
	natAddr     = "198.51.100.254"
)

// idle is the DPD of the gateways in tests.
var idle = dpd.Config{Mode: dpd.Idle, Delay: 30 * time.Second, MaxSuppress: 10 * time.Minute}

// roadwarriors is the gateway's connection.
func roadwarriors() []*policy.Connection {
	return []*policy.Connection{{DPD: idle, Name: "roadwarriors", LocalID: identity("vpn.example.org"),
		RemoteID: pattern("*@example.org"), Proposals: ikeProposals("aes256gcm16-prfsha256-x25519"),
		Child: policy.Child{Name: "net", Proposals: espProposals("aes256gcm16-esn"), Local: []wire.Selector{prefix("10.0.0.0/8")}},
		Pools: []string{"office"}, MaxSAs: 8, MaxLeases: 4, Backoff: policy.DefaultBackoff}}
}

// home is a client's connection.
func home(who string) []*policy.Connection {
	return []*policy.Connection{{DPD: dpd.Config{Mode: dpd.Off}, Hosts: []policy.Host{{Addr: netip.MustParseAddr(gatewayAddr)}}, Name: "home", LocalID: identity(who),
		RemoteID: pattern("vpn.example.org"), Pins: []netip.Addr{netip.MustParseAddr(gatewayAddr)},
		Proposals: ikeProposals("aes256gcm16-prfsha256-x25519"),
		Child:     policy.Child{Name: "net", Proposals: espProposals("aes256gcm16-esn"), Remote: []wire.Selector{prefix("10.0.0.0/8")}},
		VIPs:      []netip.Addr{netip.IPv4Unspecified()}, Backoff: policy.DefaultBackoff}}
}

// behindNAT puts an address behind a NAT.
func (w *world) behindNAT(inner, outer string, shift uint16) *nat {
	n := &nat{netip.MustParseAddr(inner), netip.MustParseAddr(outer), shift}
	w.nats[n.inner] = n
	return n
}

// pair is a client and a gateway with a tunnel up.
func (w *world) pair(shards int) (client, gateway *site) {
	w.t.Helper()
	gateway = w.site(gatewayAddr, shards, roadwarriors())
	client = w.site(clientAddr, 2, home("anna@example.org"))
	client.initiate()
	return client, gateway
}

// initiate brings the client's tunnel up.
func (s *site) initiate() {
	s.w.t.Helper()
	if err := s.group.Initiate(context.Background(), "home"); err != nil {
		s.w.t.Fatal(err)
	}
	synctest.Wait()
}
