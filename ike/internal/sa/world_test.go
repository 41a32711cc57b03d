package sa

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// A world is two nodes and a network between them with a clock of its own.
// What the nodes do is carried out on records that a test can read.
type world struct {
	t       testing.TB
	now     mono.Time
	client  *node
	gateway *node
	wire    []flight
	latency time.Duration
	natted  bool
	natPort uint16
	rng     *rand.Rand
	loss    float64
	dup     float64
	jitter  time.Duration
	drop    func(f flight) bool // true: lost
	log     *strings.Builder    // nil: no transcript
}

// flight is a datagram on its way.
type flight struct {
	at       mono.Time
	from, to *node
	packet   wire.Packet // as the receiver sees it
}

// node is one side: its SA and what its edges hold.
type node struct {
	name     string
	env      *Env
	sa       *SA
	conn     *policy.Connection
	dead     bool // packets vanish
	fail     string
	nextSPI  uint32
	lease    []netip.Addr
	dns      []netip.Addr
	domains  []policy.Domain
	wanted   []netip.Addr // by the last Admit
	cookies  [][]byte     // that the node may have asked for
	noLease  bool
	refuse   policy.Rule // by which it admits nobody
	company  bool        // there is another SA between the two
	onAdmit  func()
	records  int
	record   []byte // last persisted
	room     int    // that it was to have beside it
	tracked  map[uint32]Path
	in, out  map[uint32]*ChildSA
	moved    map[uint32]Path
	admitted string
	events   []Event
	steps    []string
	keys     suite.IKEKeys // of the SA, or of the one before: they outlive it here
	onSteps  func()        // before they are carried out
	onAgreed func(Agreed)
	slow     bool   // what Agree asks for does not come
	late     Agreed // by itself
	received int
}

var (
	clientAddr  = netip.MustParseAddrPort("10.7.0.2:500")
	gatewayAddr = netip.MustParseAddrPort("198.51.100.1:500")
	natAddr     = netip.MustParseAddr("198.51.100.254")
)

// stream is a reproducible random source.
func stream(seed string) io.Reader {
	return rand.NewChaCha8(sha256.Sum256([]byte(seed)))
}

func proposals(t testing.TB, parse func(string) (suite.Proposal, error), names ...string) (out []suite.Proposal) {
	for _, n := range names {
		p, err := parse(n)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func pattern(s string) policy.Pattern {
	p, err := policy.ParsePattern(s)
	if err != nil {
		panic(err)
	}
	return p
}

func identity(s string) policy.ID { id, _ := pattern(s).Exact(); return id }

func prefix(s string) wire.Selector {
	p := netip.MustParsePrefix(s)
	end := p.Addr().As4()
	binary.BigEndian.PutUint32(end[:], binary.BigEndian.Uint32(end[:])|(1<<(32-p.Bits())-1))
	return wire.Selector{EndPort: 65535, Start: p.Addr(), End: netip.AddrFrom4(end)}
}

const testPSK = "a secret of the two, long enough"

func newWorld(t testing.TB) *world {
	w := &world{t: t, now: mono.Time(time.Hour), latency: 10 * time.Millisecond, natted: true, natPort: 52755,
		rng: rand.New(rand.NewPCG(1, 2))}
	esp := proposals(t, suite.ParseESP, "aes256gcm16-esn", "aes256gcm16")
	ike := proposals(t, suite.ParseIKE, "aes256gcm16-prfsha256-x25519")
	vip := netip.MustParseAddr("10.99.0.2")
	w.client = w.newNode("client", 0xc0000001, &policy.Connection{Name: "home", LocalID: identity("anna@example.org"),
		RemoteID: pattern("vpn.example.org"), Pins: []netip.Addr{gatewayAddr.Addr()}, Proposals: ike,
		Child: policy.Child{Name: "net", Proposals: esp, Remote: []wire.Selector{prefix("10.0.0.0/8")}},
		VIPs:  []netip.Addr{netip.IPv4Unspecified()}, Backoff: policy.DefaultBackoff, NATKeepalive: 20 * time.Second}, "vpn.example.org")
	w.gateway = w.newNode("gateway", 0x80000001, &policy.Connection{Name: "roadwarriors", LocalID: identity("vpn.example.org"),
		RemoteID: pattern("*@example.org"), Proposals: ike,
		Child: policy.Child{Name: "net", Proposals: esp, Local: []wire.Selector{prefix("10.0.0.0/8")}},
		Pools: []string{"office"}, Backoff: policy.DefaultBackoff}, "*@example.org")
	w.gateway.lease, w.gateway.dns = []netip.Addr{vip}, []netip.Addr{netip.MustParseAddr("10.0.0.53")}
	return w
}

func (w *world) newNode(name string, firstSPI uint32, c *policy.Connection, secretFor string) *node {
	n := &node{name: name, conn: c, nextSPI: firstSPI, tracked: map[uint32]Path{},
		in: map[uint32]*ChildSA{}, out: map[uint32]*ChildSA{}, moved: map[uint32]Path{}}
	n.env = &Env{Rand: stream(name), Policy: policy.NewSet([]*policy.Connection{c}, []policy.Secret{{Remote: pattern(secretFor), PSK: []byte(testPSK)}}),
		AllocSPI: func(mono.Time) (uint32, bool) {
			if n.nextSPI == 0 {
				return 0, false
			}
			n.nextSPI++
			return n.nextSPI - 1, true
		},
		LastSent:   func(uint32) mono.Time { return 0 },
		Cookies:    func(mono.Time, uint64, []byte, netip.AddrPort) [][]byte { return n.cookies },
		FailedAuth: func(mono.Time, netip.Addr, policy.ID) time.Duration { return 0 },
		NATTPort:   4500, HalfOpen: 30 * time.Second}
	return n
}

// initiate lets the client call.
func (w *world) initiate() {
	w.client.sa = NewInitiator(w.client.env, 0xc11e47, w.client.conn, Path{clientAddr, gatewayAddr})
	w.do(w.client, Initiate{})
}

func (w *world) do(n *node, c Command) {
	var out Effects
	n.sa.Do(w.now, c, &out)
	w.carryOut(n, &out)
}

// carryOut runs the steps as a shard would.
func (w *world) carryOut(n *node, out *Effects) {
	if len(n.sa.rec.Keys.D.Bytes()) > 0 {
		n.keys = n.sa.rec.Keys
	}
	if n.onSteps != nil {
		n.onSteps()
	}
	for _, st := range out.Steps {
		name := strings.TrimPrefix(reflect.TypeOf(st).String(), "sa.")
		if n.fail == name {
			n.fail = ""
			w.logf("        %-7s %s FAILS", n.name, w.describe(n, st))
			w.do(n, Failed{st, errors.New("made to fail")})
			return
		}
		if line := w.describe(n, st); line != "" {
			w.logf("        %-7s %s", n.name, line)
			n.steps = append(n.steps, name)
		}
		w.step(n, st)
	}
}

func (w *world) step(n *node, st Step) {
	switch st := st.(type) {
	case Persist:
		n.records++
		n.record, n.room = st.Record.AppendBinary(nil), st.Record.Room()
	case Forget:
		n.record = nil
	case Track:
		n.tracked[st.SPI] = st.Path
	case Untrack:
		if st.Path.Local.IsValid() && n.tracked[st.SPI] != st.Path {
			w.t.Errorf("%s untracks %08x on %v, tracked on %v", n.name, st.SPI, st.Path, n.tracked[st.SPI])
		}
		delete(n.tracked, st.SPI)
	case Retrack:
		if n.tracked[st.SPI] != st.Old {
			w.t.Errorf("%s moves %08x from %v, tracked on %v", n.name, st.SPI, st.Old, n.tracked[st.SPI])
		}
		n.tracked[st.SPI] = st.New
	case InstallInbound:
		n.in[st.Child.InSPI] = st.Child
	case InstallOutbound:
		n.out[st.Child.InSPI] = st.Child
	case MoveOutbound:
		n.moved[st.InSPI] = st.Path
	case RemoveOutbound:
		delete(n.out, st.InSPI)
	case RemoveInbound:
		delete(n.in, st.InSPI)
	case Send:
		w.send(n, st.Packet)
	case Agree:
		if n.late = agree(n, st); !n.slow {
			w.do(n, n.late)
		}
	case Admit:
		n.admitted = n.sa.PeerID().String()
		w.do(n, n.admit(st))
	case Leave:
		n.admitted = ""
	case Report:
		n.events = append(n.events, st.Event)
	}
}

func agree(n *node, a Agree) Agreed {
	r := Agreed{Alone: !n.company}
	if r.Private = a.Private; r.Private == nil {
		r.Private, r.Err = suite.Generate(a.Group, n.env.Rand)
	}
	if a.Peer != nil && r.Err == nil {
		r.Secret, r.Err = r.Private.Agree(a.Peer)
	}
	if n.onAgreed != nil {
		n.onAgreed(r)
	}
	return r
}

func (n *node) admit(a Admit) Admitted {
	if n.onAdmit != nil {
		n.onAdmit()
	}
	n.wanted = a.Want
	if n.refuse != policy.Accepted {
		return Admitted{Rule: n.refuse}
	}
	switch {
	case len(a.Want) == 0:
		return Admitted{}
	case n.noLease || len(n.lease) == 0:
		return Admitted{Rule: policy.NoAddress}
	}
	return Admitted{Addrs: n.lease, DNS: n.dns, Domains: n.domains}
}

// send puts a datagram on the wire, through the NAT if there is one.
func (w *world) send(n *node, p wire.Packet) {
	f := flight{at: w.now.Add(w.latency), from: n, to: w.gateway}
	p.Data = slices.Clone(p.Data)
	f.packet = wire.Packet{Local: p.Remote, Remote: p.Local, NATT: p.NATT, Data: p.Data}
	if n == w.gateway {
		f.to = w.client
		if w.natted {
			f.packet.Local = netip.AddrPortFrom(clientAddr.Addr(), p.Local.Port())
		}
	} else if w.natted {
		f.packet.Remote = netip.AddrPortFrom(natAddr, w.natPort+p.Local.Port()%2)
	}
	forgotten := n == w.gateway && w.natted && p.Remote != netip.AddrPortFrom(natAddr, w.natPort) // by the NAT
	if w.drop != nil && w.drop(f) || forgotten || w.rng.Float64() < w.loss {
		w.logf("                lost")
		return
	}
	f.at = f.at.Add(time.Duration(w.rng.Float64() * float64(w.jitter)))
	w.wire = append(w.wire, f)
	if w.rng.Float64() < w.dup {
		f.at = f.at.Add(time.Duration(w.rng.Float64() * float64(w.jitter+time.Millisecond)))
		w.wire = append(w.wire, f)
	}
}

// next is the earliest thing to happen.
func (w *world) next() mono.Time {
	t := mono.Time(0)
	for _, f := range w.wire {
		t = mono.Earliest(t, f.at)
	}
	for _, n := range []*node{w.client, w.gateway} {
		if n.sa != nil && !n.dead {
			t = mono.Earliest(t, n.sa.Deadline())
		}
	}
	return t
}

// run lets d pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for {
		t := w.next()
		if t == 0 || t > end {
			w.now = end
			return
		}
		w.now = max(w.now, t)
		w.deliver()
		for _, n := range []*node{w.client, w.gateway} {
			if n.sa != nil && !n.dead && n.sa.Deadline() != 0 && n.sa.Deadline() <= w.now {
				var out Effects
				n.sa.Advance(w.now, &out)
				w.carryOut(n, &out)
			}
		}
	}
}

// deliver hands over what has arrived, in the order of arrival.
func (w *world) deliver() {
	slices.SortStableFunc(w.wire, func(a, b flight) int { return int(a.at - b.at) })
	for len(w.wire) > 0 && w.wire[0].at <= w.now {
		f := w.wire[0]
		w.wire = w.wire[1:]
		w.arrive(f.to, f.packet)
	}
}

func (w *world) arrive(n *node, p wire.Packet) {
	if n.dead {
		return
	}
	n.received++
	if n.sa == nil || n.sa.State() == Gone {
		if n != w.gateway || len(p.Data) < wire.HeaderLen || p.Data[18] != byte(wire.IKESAInit) {
			return
		}
		n.sa = NewResponder(n.env, 0x9a7e)
	}
	var out Effects
	if err := n.sa.Handle(w.now, p, &out); err != nil {
		w.logf("        %-7s discards: %v", n.name, err)
	}
	w.carryOut(n, &out)
	if n.sa.State() == New || n.sa.State() == Gone {
		n.sa = nil
	}
}

// establish is the whole handshake, which must succeed.
func (w *world) establish() {
	w.t.Helper()
	w.initiate()
	w.run(time.Second)
	for _, n := range []*node{w.client, w.gateway} {
		if n.sa == nil || n.sa.State() != Up || len(n.in) != 1 || len(n.out) != 1 || len(n.tracked) != 1 {
			w.t.Fatalf("%s is not established: %+v", n.name, n.events)
		}
	}
}

// empty tells what a node's edges still hold.
func (n *node) empty() error {
	if len(n.in)+len(n.out)+len(n.tracked) > 0 || n.admitted != "" || n.record != nil {
		return fmt.Errorf("%s still holds in %d, out %d, tracked %d, identity %q, record %d bytes", n.name,
			len(n.in), len(n.out), len(n.tracked), n.admitted, len(n.record))
	}
	return nil
}

func (n *node) last() Event { return n.events[len(n.events)-1] }

func (w *world) logf(format string, args ...any) {
	if w.log != nil {
		fmt.Fprintf(w.log, format+"\n", args...)
	}
}
