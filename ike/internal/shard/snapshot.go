package shard

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Match selects SAs: by the name of their connection, the identity of their
// peer, its address, or an SPI of ours in hexadecimal (16 digits for IKE, 8 for
// ESP). "*" selects all.
type Match string

func (m Match) fits(e *entry) bool {
	if m == "*" {
		return true
	}
	if c := e.sa.Conn(); c != nil && c.Name == string(m) {
		return true
	}
	path := e.sa.Path()
	for _, name := range []string{e.sa.PeerID().String(), path.Remote.Addr().String(), path.Remote.String(), ikeSPI(e.sa.SPI())} {
		if string(m) == name {
			return true
		}
	}
	spi := e.sa.InSPI()
	return spi != 0 && string(m) == espSPI(spi)
}

// RoleName is the role as it is shown.
func RoleName(r sa.Role) string {
	if r == sa.Initiator {
		return "initiator"
	}
	return "responder"
}

func ikeSPI(spi uint64) string { return fmt.Sprintf("%016x", spi) }
func espSPI(spi uint32) string { return fmt.Sprintf("%08x", spi) }

func (s *Shard) matching(m Match) (hits []*entry) {
	for _, e := range s.table.slab {
		if e != nil && m.fits(e) {
			hits = append(hits, e)
		}
	}
	return hits
}

// Peer is an IKE SA as it is shown. Instants are given as ages.
type Peer struct {
	Connection  string         `json:"connection"`
	Identity    string         `json:"identity"`
	State       string         `json:"state"`
	Role        string         `json:"role"`
	Local       netip.AddrPort `json:"local"`
	Remote      netip.AddrPort `json:"remote"`
	LocalNATted bool           `json:"local_natted"`
	PeerNATted  bool           `json:"peer_natted"`
	SPI         string         `json:"spi"` // ours
	PeerSPI     string         `json:"peer_spi"`
	Suite       string         `json:"suite"`
	Shard       int            `json:"shard"`
	UpMS        int64          `json:"up_ms"`
	HeardMS     *int64         `json:"heard_ms,omitempty"`      // since the last authenticated IKE message
	RoundTripMS *int64         `json:"round_trip_ms,omitempty"` // since the last answer to a request of ours
	Liveness
	Child *ChildView `json:"child,omitempty"`

	spi uint64
}

// ChildView is a Child SA as it is shown, under its inbound SPI.
type ChildView struct {
	Connection string         `json:"connection"`
	Identity   string         `json:"identity"`
	Remote     netip.AddrPort `json:"remote"`
	InSPI      string         `json:"spi_in"`
	OutSPI     string         `json:"spi_out"`
	Suite      string         `json:"suite"`
	LocalTS    []string       `json:"local_ts"`
	RemoteTS   []string       `json:"remote_ts"`
	VirtualIPs []netip.Addr   `json:"virtual_ips,omitempty"` // ours
	UpMS       int64          `json:"up_ms"`
	IdleMS     *int64         `json:"idle_ms,omitempty"` // since anything was seen, authentic or not
	SentMS     *int64         `json:"sent_ms,omitempty"`
	Liveness
}

// Liveness is what is known of a peer's life, and what comes next.
type Liveness struct {
	ProofMS *int64 `json:"proof_ms,omitempty"` // since the last proof of life
	Proof   string `json:"proof,omitempty"`    // what it was: "esp" or "ike"
	NextMS  *int64 `json:"next_ms,omitempty"`  // until the next judgement or retransmission
	// Outstanding tells that a request of ours waits for its answer; it has
	// been sent again Tries times of at most MaxTries.
	Outstanding bool   `json:"outstanding"`
	Tries       int    `json:"tries"`
	MaxTries    int    `json:"max_tries"`
	Alarm       string `json:"alarm,omitempty"` // see alarm
}

// snapshotPage is how many SAs a shard describes before it looks at its inboxes
// again.
const snapshotPage = 512

// Peers describes all SAs.
func (g *Group) Peers(ctx context.Context) ([]Peer, error) {
	var peers []Peer
	for _, s := range g.shards {
		spis, err := ask(ctx, s, func(mono.Time) []uint64 { return s.allSPIs() })
		for err == nil && len(spis) > 0 {
			n := min(snapshotPage, len(spis))
			var page []Peer
			page, err = ask(ctx, s, func(now mono.Time) []Peer { return s.describe(now, spis[:n]) })
			peers = append(peers, page...)
			spis = spis[n:]
		}
		if err != nil {
			return nil, err
		}
	}
	return peers, g.confirm(ctx, peers)
}

func (s *Shard) allSPIs() []uint64 {
	spis := make([]uint64, 0, len(s.table.bySPI))
	for _, e := range s.table.slab {
		if e != nil {
			spis = append(spis, e.sa.SPI())
		}
	}
	return spis
}

// describe tells what has become of the SAs of these SPIs.
func (s *Shard) describe(now mono.Time, spis []uint64) (out []Peer) {
	for _, spi := range spis {
		if e := s.table.bySPI[spi]; e != nil {
			out = append(out, s.peer(now, e))
		}
	}
	return out
}

func (s *Shard) peer(now mono.Time, e *entry) Peer {
	path := e.sa.Path()
	p := Peer{Identity: e.sa.PeerID().String(), State: e.stateName(), Role: RoleName(e.sa.Role()),
		Local: path.Local, Remote: path.Remote, LocalNATted: e.sa.LocalNATted(), PeerNATted: e.sa.PeerNATted(),
		SPI: ikeSPI(e.sa.SPI()), spi: e.sa.SPI(), PeerSPI: ikeSPI(e.sa.PeerSPI()), Suite: e.sa.Suite(), Shard: s.index,
		UpMS: int64(now.Sub(e.sa.Created()).Milliseconds()), HeardMS: age(now, e.sa.LastIKE()),
		RoundTripMS: age(now, e.sa.LastRoundTrip()), Liveness: s.liveness(now, e)}
	if c := e.sa.Conn(); c != nil {
		p.Connection = c.Name
	}
	p.Child = s.childView(now, e, p)
	return p
}

// childless reports whether an SA is up that has no Child SA: it is no tunnel.
func (e *entry) childless() bool { return e.sa.State() == sa.Up && e.sa.InSPI() == 0 }

func (e *entry) stateName() string {
	if e.childless() {
		return "no child"
	}
	return e.sa.State().String()
}

func (s *Shard) liveness(now mono.Time, e *entry) Liveness {
	ev := s.evidence(e)
	l := Liveness{ProofMS: age(now, max(ev.Auth, e.sa.LastIKE())), Outstanding: ev.Outstanding, Tries: e.sa.Tries()}
	switch {
	case ev.Auth > e.sa.LastIKE():
		l.Proof = "esp"
	case e.sa.LastIKE() != 0:
		l.Proof = "ike"
	}
	if c := e.sa.Conn(); c != nil {
		l.MaxTries = c.Backoff.Tries
		l.Alarm = alarm(now, e.sa.Created(), ev, c.DPD.Delay)
	}
	if next := mono.Earliest(e.sa.Deadline(), e.checkAt); next != 0 {
		ms := max(next.Sub(now), 0).Milliseconds()
		l.NextMS = &ms
	}
	return l
}

func (s *Shard) childView(now mono.Time, e *entry, p Peer) *ChildView {
	c, ok := e.sa.Child()
	if !ok {
		return nil
	}
	seen, _ := s.edges.Tracker.Evidence(c.InSPI)
	return &ChildView{Connection: p.Connection, Identity: p.Identity, Remote: p.Remote,
		InSPI: espSPI(c.InSPI), OutSPI: espSPI(c.OutSPI), Suite: c.Suite.String(),
		LocalTS: SelectorNames(c.Local), RemoteTS: SelectorNames(c.Remote), VirtualIPs: c.VirtualIPs, UpMS: p.UpMS,
		IdleMS: age(now, mono.Time(seen)), SentMS: age(now, mono.Time(s.plane.LastSent(c.InSPI))), Liveness: p.Liveness}
}

// age is how long ago t was; nil for never.
func age(now, t mono.Time) *int64 {
	if t == 0 {
		return nil
	}
	ms := max(now.Sub(t), 0).Milliseconds()
	return &ms
}

// SelectorNames writes selectors as a person does: a prefix where it is one,
// with protocol and ports where they are limited.
func SelectorNames(list []wire.Selector) []string {
	names := make([]string, len(list))
	for i, sel := range list {
		names[i] = selectorName(sel)
	}
	return names
}

// selectorName writes one selector.
func selectorName(sel wire.Selector) string {
	var b strings.Builder
	b.WriteString(rangeName(sel.Start, sel.End))
	switch {
	case sel.Protocol == 0 && sel.StartPort == 0 && sel.EndPort == 65535:
		return b.String()
	case sel.StartPort == 0 && sel.EndPort == 65535:
		fmt.Fprintf(&b, "[%d]", sel.Protocol)
	case sel.StartPort == 65535 && sel.EndPort == 0:
		fmt.Fprintf(&b, "[%d/opaque]", sel.Protocol)
	case sel.StartPort == sel.EndPort:
		fmt.Fprintf(&b, "[%d/%d]", sel.Protocol, sel.StartPort)
	default:
		fmt.Fprintf(&b, "[%d/%d-%d]", sel.Protocol, sel.StartPort, sel.EndPort)
	}
	return b.String()
}

// rangeName is the range as a prefix, if it is one.
func rangeName(start, end netip.Addr) string {
	for bits := start.BitLen(); bits >= 0; bits-- {
		p := netip.PrefixFrom(start, bits)
		if p.Masked().Addr() != start {
			break
		}
		if lastOf(p) == end {
			return p.String()
		}
	}
	return start.String() + "-" + end.String()
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Status sums up the group.
type Status struct {
	Up         int               `json:"up"`        // with a Child SA
	Childless  int               `json:"childless"` // authenticated, and without one: they carry nothing
	Connecting int               `json:"connecting"`
	Deleting   int               `json:"deleting"`
	Handshakes Handshakes        `json:"handshakes"`
	Taken      int               `json:"taken"` // places of tunnels: of those we call, and of peers who have proved who they are
	MaxSAs     int               `json:"max"`   // there are so many places
	Down       []Down            `json:"down"`  // those that have been for the longest
	DownTotal  int               `json:"down_total"`
	Leases     map[string]int    `json:"leases"`     // addresses that each pool has given
	LagMaxUS   []int64           `json:"lag_max_us"` // the longest that anything has waited for each shard
	LagP99US   []int64           `json:"lag_p99_us"` // 99 % of such waits in the last minute, by their length
	Counters   map[string]uint64 `json:"counters"`
}

// Handshakes are those with peers who have not proved who they are.
type Handshakes struct {
	HalfOpen    int  `json:"half_open"`
	Max         int  `json:"max"`
	PerSource   int  `json:"per_source"`
	CookiesFrom int  `json:"cookies_from"`
	Cookies     bool `json:"cookies"` // everybody is asked for one
	// Waiting are key exchanges that are still to be computed, the next of them
	// for so long.
	Waiting   int          `json:"waiting"`
	WaitingMS int64        `json:"waiting_ms"`
	Sources   []FromSource `json:"sources"` // the largest few, those that were turned away first
}

// FromSource are the handshakes of one source.
type FromSource = halfopen.FromSource

// largestSources is how many sources are shown.
const largestSources = 5

func (g *Group) handshakes() Handshakes {
	now := g.conf.Clock()
	waiting, oldest := g.workers.backlog(now)
	g.gate.mu.Lock()
	defer g.gate.mu.Unlock()
	p := g.gate.places
	l := p.Limits()
	return Handshakes{HalfOpen: p.Taken(now), Max: l.Max, PerSource: l.PerSource, CookiesFrom: l.CookiesFrom,
		Cookies: p.Pressed(now), Waiting: waiting, WaitingMS: oldest.Milliseconds(), Sources: p.Largest(now, largestSources)}
}

// Status asks every shard and the directory.
func (g *Group) Status(ctx context.Context) (Status, error) {
	st := Status{Down: []Down{}, Handshakes: g.handshakes(), Taken: int(g.total.Load()), MaxSAs: g.conf.MaxSAs, Counters: map[string]uint64{
		"datagrams_undeliverable": g.undeliverable.Load(), "key_exchange_panics": g.workers.panics.Load()}}
	var read counters
	g.tally.addTo(&read)
	st.count(read)
	for _, s := range g.shards {
		one, err := ask(ctx, s, func(now mono.Time) shardStatus { return s.status(now) })
		if err != nil {
			return st, err
		}
		st.add(one)
	}
	d, err := g.directoryStatus(ctx)
	st.Leases = d.leases
	st.Counters[counterNames[cPanics]] += d.panics
	return st, err
}

// shardStatus is one shard's part of a Status.
type shardStatus struct {
	up, childless, connecting, deleting int
	lagMax, lagP99                      time.Duration
	counters                            counters
	down                                []Down
	downTotal                           int
}

func (st *Status) add(one shardStatus) {
	st.Up += one.up
	st.Childless += one.childless
	st.Connecting += one.connecting
	st.Deleting += one.deleting
	st.DownTotal += one.downTotal
	st.Down = longestDown(append(st.Down, one.down...), func(d Down) int64 { return -d.DownMS })
	st.LagMaxUS = append(st.LagMaxUS, one.lagMax.Microseconds())
	st.LagP99US = append(st.LagP99US, one.lagP99.Microseconds())
	st.count(one.counters)
}

func (st *Status) count(c counters) {
	for i, n := range c {
		st.Counters[counterNames[i]] += n
	}
}

func (s *Shard) status(now mono.Time) shardStatus {
	st := shardStatus{counters: s.counted(), lagMax: s.lag.max, lagP99: s.lag.p99(now)}
	for _, e := range s.table.slab {
		switch {
		case e == nil:
		case e.childless():
			st.childless++
		case e.sa.State() == sa.Up:
			st.up++
		case e.sa.State() == sa.Deleting:
			st.deleting++
		default:
			st.connecting++
		}
	}
	st.down, st.downTotal = s.dialers.down(now)
	return st
}
