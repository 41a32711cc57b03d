package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/ike/esp"
	"github.com/ikepulse/ikepulse/ike/udp"
	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/require"
)

const (
	// delay is the gateway's DPD delay: some ticks of the maps' clock, so that
	// a stamp that is cut to its tick is still young.
	delay = 4 * time.Second
	// often is how often something is done that must not stop for a delay.
	often = delay / 16
	// limit is for what must come soon; only a fault waits that long.
	limit = 90 * time.Second
	// natShift is what the NAT adds to the peers' ports.
	natShift = 10000
)

var (
	gatewayAddr = netip.MustParseAddr("198.51.100.1")
	insideAddr  = netip.MustParseAddr("10.0.0.1")
)

const worldConfig = `listen: {addresses: [198.51.100.1]}
xdp: {capacity: %d}
shards: 2
connections:
  branches:
    local: {auth: psk, id: vpn.example.org}
    remote: {auth: psk, id: "*@example.org"}
    pools: [office]
    dpd: {delay: 4s}
    children: {net: {local_ts: [10.0.0.0/8]}}
pools: {office: {addresses: 10.99.0.0/16}}
secrets: [{id: "*@example.org", psk_file: a.psk}]
`

const worldPSK = "a secret of the world, long enough"

// world is a gateway as the daemon puts it together, on maps, program and TUN
// interface of its own, and the peers of its tunnels. In place of sockets and
// network stands the memory between the two, and a NAT before the peers.
type world struct {
	testing.TB
	*daemon
	set     *maps.Set
	peers   *ike.Gateway
	tunnels []*tunnel
	counted atomic.Uint32 // SPIs of the peers

	mu      sync.Mutex
	byAddr  map[netip.Addr]*tunnel
	talking map[*tunnel]bool
	asked   []*tunnel // who was sent a probe because of silence, in order
}

// tunnel is one of them, as its peer knows it.
type tunnel struct {
	number   int
	identity string
	tuple    maps.Tuple    // as the gateway sees it
	spi      uint32        // the gateway's inbound
	out      *esp.Outbound // nil: not up
	inner    []byte
}

func (t *tunnel) String() string { return t.identity }

// worlds numbers them: each is an instance.
var worlds atomic.Int32

// newWorld makes a gateway and that many peers, which have not called yet.
func newWorld(t testing.TB, peers int) *world { return newWorldOf(t, peers, 2000) }

// newWorldOf is newWorld with another xdp.capacity.
func newWorldOf(t testing.TB, peers, capacity int) *world {
	t.Helper()
	require.Have(t, "root", "netns", "bpf", "tun")
	if !isolated {
		t.Fatal("root, but no namespaces to test in")
	}
	w := &world{TB: t, byAddr: map[netip.Addr]*tunnel{}, talking: map[*tunnel]bool{}}
	w.daemon = &daemon{Options: Options{Config: worldsConfig(t, capacity), Log: slog.New(slog.DiscardHandler),
		Names: NamesOf(fmt.Sprintf("w%d-%d", os.Getpid(), worlds.Add(1)))}}
	w.endpoints = udp.NewEndpoints() // not one socket
	w.must(w.loadXDP(t.Context()))
	t.Cleanup(func() { w.must(w.close()) })
	if w.xdp == nil {
		t.Fatal("nothing was loaded")
	}
	w.set = w.xdp.Maps()
	w.must(w.openDataplane(t.Context()))
	edges := w.edges()
	edges.Sender = sender(w.toPeers)
	var err error
	w.gateway, err = ike.New(ikeConfig(w.Config), edges)
	w.must(err)
	w.must(w.openEvents(t.Context()))
	for i := range peers {
		w.addPeer(i)
	}
	w.peers, err = ike.New(w.peersConfig(), w.peersEdges())
	w.must(err)
	w.run()
	return w
}

func worldsConfig(t testing.TB, capacity int) *config.Config {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"a.yaml": fmt.Sprintf(worldConfig, capacity), "a.psk": worldPSK} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, problems := config.Load(filepath.Join(dir, "a.yaml"), Checks)
	if problems != nil {
		t.Fatal(problems)
	}
	return cfg
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) addPeer(n int) {
	addr := netip.AddrFrom4([4]byte{10, 7, byte(n >> 8), byte(n)})
	t := &tunnel{number: n, identity: fmt.Sprintf("%d@example.org", n),
		tuple: maps.Tuple{Local: netip.AddrPortFrom(gatewayAddr, nattPort), Peer: netip.AddrPortFrom(addr, nattPort+natShift)}}
	w.tunnels = append(w.tunnels, t)
	w.byAddr[addr] = t
}

// peersConfig is of one gateway that plays all of the peers.
func (w *world) peersConfig() ike.Config {
	conf := ike.Config{Addresses: []netip.Addr{w.tunnels[0].tuple.Peer.Addr()}, Shards: 1, Capacity: len(w.tunnels),
		Secrets: []ike.Secret{{ID: "vpn.example.org", PSK: []byte(worldPSK)}}}
	for _, t := range w.tunnels {
		conf.Connections = append(conf.Connections, ike.Connection{Name: t.identity, LocalID: t.identity, RemoteID: "vpn.example.org",
			LocalAddresses: []netip.Addr{t.tuple.Peer.Addr()}, Hosts: []ike.Host{{Addr: gatewayAddr}},
			Proposals: config.DefaultProposals, ESPProposals: config.DefaultESPProposals,
			VirtualIPs: []netip.Addr{netip.IPv4Unspecified()}, DPD: ike.DPD{Mode: "off"},
			Child: ike.Child{Name: "net", LocalTS: []ike.Selector{{Dynamic: true}},
				RemoteTS: []ike.Selector{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), ToPort: 65535}}}})
	}
	return conf
}

// run runs both until the test ends. At the end the gateway deletes its tunnels,
// and leaves nothing of them in the maps.
func (w *world) run() {
	events := w.gateway.Events(context.Background()) // until the gateway ends
	ctx, stop := context.WithCancel(context.Background())
	peersCtx, stopPeers := context.WithCancel(context.Background())
	var gateway, peers, rest sync.WaitGroup
	gateway.Go(func() { _ = w.gateway.Run(ctx) }) // returns no error
	peers.Go(func() { _ = w.peers.Run(peersCtx) })
	rest.Go(func() { w.listenTo(events) })
	rest.Go(func() { w.talk(ctx) })
	for _, serve := range []func(context.Context) error{w.servePlane, w.readEvents} {
		rest.Go(func() {
			if err := serve(ctx); err != nil {
				w.Error(err)
			}
		})
	}
	w.Cleanup(func() {
		stop()
		gateway.Wait()
		stopPeers()
		peers.Wait()
		rest.Wait()
		w.set.Hot.Each(func(_, spi, _, _ uint32) { w.Errorf("SPI %08x is left in the maps", spi) })
	})
}

// listenTo takes note of probes.
func (w *world) listenTo(events <-chan ike.Event) {
	for ev := range events {
		if ev.Kind == "probe_sent" {
			w.mu.Lock()
			w.asked = append(w.asked, w.byAddr[ev.Remote.Addr()])
			w.mu.Unlock()
		}
	}
}

// up brings tunnels up, and has each talk from then on.
func (w *world) up(tunnels ...*tunnel) {
	w.Helper()
	for some := range slices.Chunk(tunnels, 50) {
		var calls sync.WaitGroup
		for _, t := range some {
			calls.Go(func() {
				if err := w.peers.Initiate(context.Background(), t.identity); err != nil {
					w.Error(err)
				}
			})
		}
		calls.Wait()
		w.speak(some...)
	}
	// The peer's side is up when the answer has come, ours before.
	if st := w.status(); st.Up < len(tunnels) || w.Failed() {
		w.Fatalf("%d tunnels of %d are up", st.Up, len(tunnels))
	}
}

// speak has tunnels carry a packet every now and then; silence ends it.
func (w *world) speak(tunnels ...*tunnel) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range tunnels {
		w.talking[t] = true
	}
}

func (w *world) silence(tunnels ...*tunnel) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range tunnels {
		delete(w.talking, t)
	}
}

// talk has peers send ESP, until ctx ends.
func (w *world) talk(ctx context.Context) {
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.round()
		case <-ctx.Done():
			return
		}
	}
}

func (w *world) round() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for t := range w.talking {
		w.gateway.Deliver(nil, []ike.Packet{w.packet(t)})
	}
}

// packet is the next ESP packet of a tunnel's peer.
func (w *world) packet(t *tunnel) ike.Packet {
	data, err := t.out.Seal(nil, t.inner)
	if err != nil {
		w.Error(err)
	}
	return ike.Packet{Local: t.tuple.Local, Remote: t.tuple.Peer, NATT: true, Data: data}
}

func (w *world) status() ike.Status {
	w.Helper()
	st, err := w.gateway.Status(context.Background())
	w.must(err)
	if st.EventsDropped > 0 {
		w.Fatalf("%d events were dropped", st.EventsDropped)
	}
	return st
}

// probes is how often each tunnel has been asked because of silence.
func (w *world) probes() map[*tunnel]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := map[*tunnel]int{}
	for _, t := range w.asked {
		n[t]++
	}
	return n
}

// await polls for what must become true.
func (w *world) await(what string, happened func() bool) {
	w.Helper()
	for deadline := time.Now().Add(limit); !happened(); time.Sleep(often / 10) {
		if time.Now().After(deadline) {
			w.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// regularly does something often, until the function that it returns is called.
func (w *world) regularly(do func()) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		for {
			do()
			select {
			case <-time.After(often):
			case <-ended:
				return
			}
		}
	}()
	stop = sync.OnceFunc(func() { close(ended); <-done })
	w.Cleanup(stop)
	return stop
}

// pinnedMap and pinnedProgram open what the loader has pinned, as anybody may.
func (w *world) pinnedMap(name string) *ebpf.Map {
	w.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(w.xdp.Dir(), name), nil)
	w.must(err)
	w.Cleanup(func() { _ = m.Close() }) // it is only read from then on
	return m
}

func (w *world) pinnedProgram() *ebpf.Program {
	w.Helper()
	p, err := ebpf.LoadPinnedProgram(filepath.Join(w.xdp.Dir(), bpf.ProgXDP), nil)
	w.must(err)
	w.Cleanup(func() { _ = p.Close() })
	return p
}
