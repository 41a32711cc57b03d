package shard

import (
	"net/netip"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Event is what has become of an SA. It holds no key and nothing of the SA's
// own memory.
type Event struct {
	Shard   int
	Seq     uint64 // of its shard; a gap is what was dropped on the way
	At      mono.Time
	Kind    sa.EventKind
	Reason  sa.Reason
	Notify  wire.NotifyType
	Try     int
	Path    sa.Path
	From    netip.AddrPort // of Drift
	Err     error
	Refusal *sa.Refusal // of Refusing
	SPI     uint64      // ours
	PeerSPI uint64
	Role    sa.Role
	Conn    string // "" before the peer is known
	Peer    policy.ID
	Suite   string
	Child   *Child
	IdleFor time.Duration // of Closed for PeerDead: since the last sign of life; 0: unknown
	// Moves of Moved counts those since one was last told; 0: one has been
	// told a moment ago, and this one is of no interest by itself.
	Moves    int
	PeerNAT  bool
	LocalNAT bool
}

// Child describes a Child SA.
type Child struct {
	InSPI, OutSPI uint32
	Suite         string
	Local, Remote []wire.Selector
	VirtualIPs    []netip.Addr
}

func describe(c *sa.ChildSA) *Child {
	if c == nil {
		return nil
	}
	return &Child{c.InSPI, c.OutSPI, c.Suite.String(), c.Local, c.Remote, c.VirtualIPs}
}

// movePause is how often one peer's moves are told.
const movePause = time.Minute

// told is when a move was last told, and how many there were since then.
type told struct {
	at    mono.Time
	since int
}

// moves counts another move, and gives how many are to be told.
func (e *entry) moves(now mono.Time) int {
	if e.told == nil {
		e.told = &told{}
	}
	t := e.told
	t.since++
	if t.at != 0 && now < t.at.Add(movePause) {
		return 0
	}
	n := t.since
	t.at, t.since = now, 0
	return n
}

// report hands an event to the sink.
func (s *Shard) report(now mono.Time, e *entry, ev sa.Event) {
	if ev.Kind == sa.Closed {
		e.reason = ev.Reason
	}
	if e.dial != nil {
		e.dial.heard(ev)
	}
	s.carries(now, e, ev)
	s.count.event(ev)
	s.seq++
	out := Event{Shard: s.index, Seq: s.seq, At: now, Kind: ev.Kind, Reason: ev.Reason, Notify: ev.Notify, Try: ev.Try,
		Path: ev.Path, From: ev.From, Err: ev.Err, Refusal: ev.Refusal, SPI: e.sa.SPI(), PeerSPI: e.sa.PeerSPI(), Role: e.sa.Role(), Peer: e.sa.PeerID(),
		Child: describe(ev.Child), PeerNAT: e.sa.PeerNATted(), LocalNAT: e.sa.LocalNATted()}
	if out.PeerSPI != 0 { // before there is none, and this is the way of those who are refused
		out.Suite = e.sa.Suite()
	}
	if c := e.sa.Conn(); c != nil {
		out.Conn = c.Name
	}
	if last := max(e.sa.LastIKE(), e.heard); ev.Reason == sa.PeerDead && last != 0 {
		out.IdleFor = now.Sub(last)
	}
	if ev.Kind == sa.Moved {
		out.Moves = e.moves(now)
		s.moved(e, ev.Path.Remote)
	}
	s.conf.Sink(out)
}
