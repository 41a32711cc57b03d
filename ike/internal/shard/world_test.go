package shard

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/dpd"
	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
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
	time.AfterFunc(w.latency, func() { s.receive(p) })
}

// site is a group with edges whose every move is kept.
type site struct {
	w      *world
	addr   netip.Addr
	conf   Config
	group  *Group
	cancel context.CancelFunc
	ended  chan struct{}
	gone   atomic.Bool

	mu      sync.Mutex
	tracked map[uint32]track
	stamps  map[uint32]evidence
	records map[uint64]int
	spis    map[uint32]bool
	calls   map[string]int
	fail    map[string]int // how often a call is to fail
	panics  map[string]int // how often a call is to panic
	events  []Event
	inner   [][]byte
	planes  []*plane
	sent    int // bytes
	sentIKE [][]byte

	onReceive func(n int) // with the nth ESP packet
}

type track struct {
	local, peer netip.AddrPort
	natted      bool
}

type evidence struct{ seen, auth int64 }

var errMade = errors.New("made to fail")

// did counts a call, and makes it fail if that is wanted.
func (s *site) did(call string) error {
	s.calls[call]++
	if s.panics[call] > 0 {
		s.panics[call]--
		s.mu.Unlock()
		defer s.mu.Lock()
		panic("made to panic in " + call)
	}
	if s.fail[call] > 0 {
		s.fail[call]--
		return errMade
	}
	return nil
}

func (s *site) Track(spi uint32, local, peer netip.AddrPort, natted bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.did("Track"); err != nil {
		return err
	}
	if _, ok := s.tracked[spi]; ok || !s.spis[spi] {
		s.w.t.Errorf("SPI %08x is tracked twice, or was not allotted", spi)
	}
	s.tracked[spi] = track{local, peer, natted}
	return nil
}

func (s *site) Untrack(spi uint32, local, peer netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.did("Untrack"); err != nil {
		return err
	}
	if at := s.tracked[spi]; at.local != local || at.peer != peer {
		s.w.t.Errorf("SPI %08x is untracked at %v %v, but is at %v", spi, local, peer, at)
	}
	delete(s.tracked, spi)
	delete(s.stamps, spi)
	return nil
}

func (s *site) Move(spi uint32, oldLocal, oldPeer, newLocal, newPeer netip.AddrPort, natted bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.did("Move"); err != nil {
		return err
	}
	if at := s.tracked[spi]; at.local != oldLocal || at.peer != oldPeer {
		s.w.t.Errorf("SPI %08x is moved from %v %v, but is at %v", spi, oldLocal, oldPeer, at)
	}
	s.tracked[spi] = track{newLocal, newPeer, natted}
	return nil
}

func (s *site) Evidence(spi uint32) (seen, auth int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls["Evidence"]++
	return s.stamps[spi].seen, s.stamps[spi].auth
}

func (s *site) Send(p wire.Packet) error {
	s.mu.Lock()
	err := s.did("Send")
	if err == nil {
		s.sent += len(p.Data)
		s.sentIKE = append(s.sentIKE, bytes.Clone(p.Data))
	}
	s.mu.Unlock()
	if err == nil && !s.gone.Load() {
		s.w.send(p)
	}
	return err
}

func (s *site) Put(spi uint64, record []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.did("Put"); err != nil {
		return err
	}
	s.records[spi]++
	var r sa.Record
	if err := r.UnmarshalBinary(record); err != nil {
		s.w.t.Errorf("a record that cannot be read: %v", err)
	}
	return nil
}

func (s *site) Delete(spi uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.did("Delete"); err != nil {
		return err
	}
	delete(s.records, spi)
	return nil
}

const slotBits = 22

func (s *site) alloc(shard int) func(int64) (uint32, bool) {
	slot := uint32(shard)
	return func(int64) (uint32, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.did("AllocSPI") != nil {
			return 0, false
		}
		spi := 7<<slotBits | slot
		slot += uint32(s.conf.Shards)
		s.spis[spi] = true
		return spi, true
	}
}

func (s *site) free(int) func(uint32, int64) {
	return func(spi uint32, _ int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, tracked := s.tracked[spi]; tracked || !s.spis[spi] {
			s.w.t.Errorf("SPI %08x is freed while tracked, or twice", spi)
		}
		delete(s.spis, spi)
	}
}

func (s *site) espShard(spi uint32) int { return int(spi&(1<<slotBits-1)) % s.conf.Shards }

// plane is a data plane whose ESP is not encrypted: SPI, a word, the packet.
// The first inbound SA of a plane carries what is to go out.
type plane struct {
	site    *site
	mu      sync.Mutex
	in, out map[uint32]*sa.ChildSA
	sent    map[uint32]int64
	refused bool // a removal of an outbound SA was made to fail
}

const authenticWord = 0xa17e4717

func espPacket(spi uint32, inner []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, spi)
	b = binary.BigEndian.AppendUint32(b, authenticWord)
	return append(b, inner...)
}

func (p *plane) did(call string) error {
	p.site.mu.Lock()
	defer p.site.mu.Unlock()
	return p.site.did(call)
}

func (p *plane) InstallInbound(c *sa.ChildSA) error {
	if err := p.did("InstallInbound"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in[c.InSPI] = c
	return nil
}

func (p *plane) InstallOutbound(c *sa.ChildSA) error {
	if err := p.did("InstallOutbound"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out[c.InSPI] = c
	return nil
}

func (p *plane) MoveOutbound(inSPI, outSPI uint32, path sa.Path) error {
	if err := p.did("MoveOutbound"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := *p.out[inSPI]
	c.Path = path
	p.out[inSPI] = &c
	return nil
}

func (p *plane) RemoveOutbound(inSPI, outSPI uint32) error {
	if err := p.did("RemoveOutbound"); err != nil {
		p.refused = true
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.out[inSPI]; c == nil || c.OutSPI != outSPI {
		p.site.w.t.Errorf("outbound SA %08x/%08x is removed, but is not there", inSPI, outSPI)
	}
	delete(p.out, inSPI)
	return nil
}

func (p *plane) RemoveInbound(inSPI, outSPI uint32) error {
	if err := p.did("RemoveInbound"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.in[inSPI] == nil {
		p.site.w.t.Errorf("inbound SA %08x is removed, but is not there", inSPI)
	}
	if p.out[inSPI] != nil && !p.refused {
		p.site.w.t.Errorf("inbound SA %08x is removed before its outbound", inSPI)
	}
	delete(p.in, inSPI)
	return nil
}

func (p *plane) LastSent(inSPI uint32) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent[inSPI]
}

func (p *plane) Receive(now int64, pkt wire.Packet) bool {
	if p.did("Receive") != nil {
		return false
	}
	spi := binary.BigEndian.Uint32(pkt.Data)
	p.mu.Lock()
	known := p.in[spi] != nil
	p.mu.Unlock()
	s := p.site
	s.mu.Lock()
	defer s.mu.Unlock()
	if !known || binary.BigEndian.Uint32(pkt.Data[4:]) != authenticWord {
		return false
	}
	s.stamps[spi] = evidence{now, now}
	s.inner = append(s.inner, bytes.Clone(pkt.Data[8:]))
	if s.onReceive != nil {
		s.onReceive(len(s.inner))
	}
	return true
}

// Transmit sends through the SA whose inbound SPI the packet begins with.
func (p *plane) Transmit(now int64, inner []byte) {
	if p.did("Transmit") != nil {
		return
	}
	spi := binary.BigEndian.Uint32(inner)
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.out[spi]
	if c == nil || p.site.gone.Load() {
		return
	}
	p.sent[spi] = now
	p.site.w.send(wire.Packet{Local: c.Path.Local, Remote: c.Path.Remote, NATT: true, Data: espPacket(c.OutSPI, inner)})
}

// transmit has the tunnel with that inbound SPI carry a text.
func (s *site) transmit(inSPI uint32, text string) {
	s.group.DeliverInner(s.espShard(inSPI), append(binary.BigEndian.AppendUint32(nil, inSPI), text...))
}

func (s *site) receive(p wire.Packet) {
	if p.NATT && len(p.Data) == 1 {
		s.mu.Lock()
		s.calls["Keepalive"]++
		s.mu.Unlock()
		return
	}
	if len(p.Data) >= 8 && binary.BigEndian.Uint32(p.Data[4:]) == authenticWord {
		s.group.DeliverESP([]wire.Packet{p})
		return
	}
	s.group.DeliverIKE([]wire.Packet{p})
}

// site makes a group at an address. It runs until the test ends or stop.
func (w *world) site(addr string, shards int, conns []Tunnel, change ...func(*Config)) *site {
	w.t.Helper()
	s := &site{w: w, addr: netip.MustParseAddr(addr), ended: make(chan struct{}),
		tracked: map[uint32]track{}, stamps: map[uint32]evidence{}, records: map[uint64]int{}, spis: map[uint32]bool{},
		calls: map[string]int{}, fail: map[string]int{}, panics: map[string]int{}}
	for range shards {
		s.planes = append(s.planes, &plane{site: s, in: map[uint32]*sa.ChildSA{}, out: map[uint32]*sa.ChildSA{}, sent: map[uint32]int64{}})
	}
	var list []*sa.Conn
	for i := range conns {
		list = append(list, conns[i].Conn)
	}
	s.conf = Config{
		Edges: Edges{Tracker: s, DataPlane: func(i int) DataPlane { return s.planes[i] }, Sender: s, Store: s,
			AllocSPI: s.alloc, FreeSPI: s.free, ESPShard: s.espShard},
		Policy:  sa.NewPolicy(list, []sa.Secret{{ID: pattern("%any"), PSK: []byte("a secret of the two, long enough")}}),
		Tunnels: conns, Listen: []netip.Addr{s.addr}, IKEPort: 500, NATTPort: 4500,
		Pools:    []Pool{{Name: "office", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}}},
		HalfOpen: 30 * time.Second, Thresholds: halfopen.Defaults, Shards: shards, MaxSAs: 4096, Workers: 2, JobQueue: 64,
		Rand: rand.Reader, Clock: w.now, After: time.After,
		Sink: func(ev Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, ev)
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

func pattern(s string) sa.Pattern {
	p, err := sa.ParsePattern(s)
	if err != nil {
		panic(err)
	}
	return p
}

func identity(s string) sa.ID { id, _ := pattern(s).Exact(); return id }

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
func roadwarriors() []Tunnel {
	return []Tunnel{{DPD: idle, Conn: &sa.Conn{Name: "roadwarriors", LocalID: identity("vpn.example.org"),
		RemoteID: pattern("*@example.org"), Proposals: ikeProposals("aes256gcm16-prfsha256-x25519"),
		Child: sa.ChildConfig{Name: "net", Proposals: espProposals("aes256gcm16-esn"), Local: []wire.Selector{prefix("10.0.0.0/8")}},
		Pools: []string{"office"}, Backoff: sa.DefaultBackoff}}}
}

// home is a client's connection.
func home(who string) []Tunnel {
	return []Tunnel{{DPD: dpd.Config{Mode: dpd.Off}, Conn: &sa.Conn{Name: "home", LocalID: identity(who),
		RemoteID: pattern("vpn.example.org"), Remotes: []netip.Addr{netip.MustParseAddr(gatewayAddr)},
		Proposals: ikeProposals("aes256gcm16-prfsha256-x25519"),
		Child:     sa.ChildConfig{Name: "net", Proposals: espProposals("aes256gcm16-esn"), Remote: []wire.Selector{prefix("10.0.0.0/8")}},
		VIPs:      []netip.Addr{netip.IPv4Unspecified()}, Backoff: sa.DefaultBackoff}}}
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

// peers is the snapshot.
func (s *site) peers() []Peer {
	s.w.t.Helper()
	peers, err := s.group.Peers(context.Background())
	if err != nil {
		s.w.t.Fatal(err)
	}
	return peers
}

func (s *site) status() Status {
	s.w.t.Helper()
	st, err := s.group.Status(context.Background())
	if err != nil {
		s.w.t.Fatal(err)
	}
	return st
}

func (s *site) counter(c counter) uint64 { return s.status().Counters[counterNames[c]] }

// inSPI is the inbound SPI of the site's only tunnel.
func (s *site) inSPI() uint32 {
	s.w.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tracked) != 1 {
		s.w.t.Fatalf("%v tracks %d SPIs, want 1", s.addr, len(s.tracked))
	}
	for spi := range s.tracked {
		return spi
	}
	return 0
}

// happened are the site's events since the last call: kinds, and the reason of
// an end.
func (s *site) happened() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ev := range s.events {
		name := ev.Kind.String()
		if ev.Kind == sa.Closed {
			name += ": " + ev.Reason.String()
		}
		out = append(out, name)
	}
	s.events = nil
	return out
}

func (s *site) wantEvents(want ...string) {
	s.w.t.Helper()
	if got := s.happened(); !slices.Equal(got, want) {
		s.w.t.Errorf("%v: events %q, want %q", s.addr, got, want)
	}
}

// wantEventsInAnyOrder is for events of several shards.
func (s *site) wantEventsInAnyOrder(want ...string) {
	s.w.t.Helper()
	if got := slices.Sorted(slices.Values(s.happened())); !slices.Equal(got, want) {
		s.w.t.Errorf("%v: events %q, want %q", s.addr, got, want)
	}
}

// eventAt is when the last event of a kind happened.
func (s *site) eventAt(kind sa.EventKind) mono.Time {
	s.w.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ev := range slices.Backward(s.events) {
		if ev.Kind == kind {
			return ev.At
		}
	}
	s.w.t.Fatalf("%v: no event %v", s.addr, kind)
	return 0
}

// view is a copy of what a site keeps.
type view struct {
	tracked       map[uint32]track
	stamps        map[uint32]evidence
	calls, fail   map[string]int
	events        []Event
	inner         [][]byte
	sentIKE       [][]byte
	sent          int
	records, spis int
}

func (s *site) held() view {
	s.mu.Lock()
	defer s.mu.Unlock()
	return view{maps.Clone(s.tracked), maps.Clone(s.stamps), maps.Clone(s.calls), maps.Clone(s.fail), slices.Clone(s.events),
		slices.Clone(s.inner), slices.Clone(s.sentIKE), s.sent, len(s.records), len(s.spis)}
}

// lastEvent is none if there is none.
func (s *site) lastEvent() (last Event) {
	for _, last = range s.held().events {
	}
	return last
}

// breakCall makes a call fail so often.
func (s *site) breakCall(call string, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[call] = times
}

// panicIn makes a call panic once.
func (s *site) panicIn(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.panics[call] = 1
}

// took gives how often each edge was called since the last call.
func (s *site) took() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = map[string]int{}
	return calls
}

// wantNothing checks that nothing of any SA is left, in the shards or behind
// their edges.
func (s *site) wantNothing() {
	s.w.t.Helper()
	st := s.status()
	if left := s.leftovers(); left != "" {
		s.w.t.Errorf("%v: left behind: %s", s.addr, left)
	}
	if st.Up+st.Connecting+st.Deleting+st.HalfOpen != 0 || s.group.total.Load() != 0 {
		s.w.t.Errorf("%v: SAs are left: %+v", s.addr, st)
	}
	for name, n := range st.Leases {
		if n != 0 {
			s.w.t.Errorf("%v: pool %s has %d leases", s.addr, name, n)
		}
	}
	for _, sh := range s.group.shards {
		sizes, err := ask(context.Background(), sh, func(mono.Time) [5]int {
			t := &sh.table
			return [5]int{len(t.bySPI), len(t.byInit), len(t.byChild), len(t.slab) - len(t.free), sh.wheel.Len()}
		})
		if err != nil || sizes != [5]int{} {
			s.w.t.Errorf("%v: tables of shard %d: %v %v", s.addr, sh.index, sizes, err)
		}
	}
}

// wantOrderly is wantNothing, and that the SAs have seen to it by themselves.
func (s *site) wantOrderly() {
	s.w.t.Helper()
	s.wantNothing()
	if n := s.counter(cReclaimed); n != 0 {
		s.w.t.Errorf("%v: the shard had to clean up after %d SAs", s.addr, n)
	}
}

// leftovers is what the edges hold.
func (s *site) leftovers() string {
	in, out := 0, 0
	for _, p := range s.planes {
		p.mu.Lock()
		in += len(p.in)
		out += len(p.out)
		p.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tracked)+len(s.records)+len(s.spis)+in+out == 0 {
		return ""
	}
	return fmt.Sprintf("%d tracked, %d records, %d SPIs, %d inbound, %d outbound", len(s.tracked), len(s.records), len(s.spis), in, out)
}

// tick is when the wheel's tick comes that a deadline waits for.
func tick(t mono.Time) mono.Time {
	const size = 1 << 19 // the largest power of two of nanoseconds in granularity
	return (t + size - 1) / size * size
}
