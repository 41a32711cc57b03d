package ike

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/shard"
)

// Event is what has become of an IKE SA.
type Event struct {
	Time time.Time `json:"time"`
	// Kind is "connecting", "refused", "nat_detected", "established", "child_up",
	// "child_gone", "probe_sent", "retransmit", "probe_answered", "moved",
	// "drift", "unanswered" or "closed".
	Kind string `json:"event"`
	// Seq counts the events of a shard without gaps: what is missing was
	// dropped on the way.
	Shard       int            `json:"shard"`
	Seq         uint64         `json:"seq"`
	Connection  string         `json:"connection,omitempty"`
	Peer        string         `json:"peer,omitempty"`
	Role        string         `json:"role"`
	Local       netip.AddrPort `json:"local"`
	Remote      netip.AddrPort `json:"remote"`
	From        netip.AddrPort `json:"from,omitzero"` // of "drift": where a packet came from that nobody has verified
	LocalNATted bool           `json:"local_natted"`
	PeerNATted  bool           `json:"peer_natted"`
	SPI         string         `json:"spi"`
	PeerSPI     string         `json:"peer_spi,omitempty"`
	Suite       string         `json:"suite,omitempty"`
	Reason      string         `json:"reason,omitempty"` // of "closed"
	Notify      string         `json:"notify,omitempty"` // what was sent or received with it
	Try         int            `json:"try,omitempty"`    // retransmissions so far
	Error       string         `json:"error,omitempty"`
	SilentMS    int64          `json:"silent_ms,omitempty"` // of a dead peer: since the last proof of life
	Child       *EventChild    `json:"child,omitempty"`
	Refusal     *Refusal       `json:"refusal,omitempty"` // of "refused"
}

// EventChild is the Child SA that an event is about.
type EventChild struct {
	InSPI      string       `json:"spi_in"`
	OutSPI     string       `json:"spi_out"`
	Suite      string       `json:"suite"`
	LocalTS    []string     `json:"local_ts"`
	RemoteTS   []string     `json:"remote_ts"`
	VirtualIPs []netip.Addr `json:"virtual_ips,omitempty"`
}

func newEvent(ev shard.Event) Event {
	out := Event{Time: time.Now(), Kind: strings.ReplaceAll(ev.Kind.String(), " ", "_"), Shard: ev.Shard, Seq: ev.Seq,
		Connection: ev.Conn, Peer: clip(ev.Peer.String()), Role: shard.RoleName(ev.Role), Local: ev.Path.Local,
		Remote: ev.Path.Remote, From: ev.From, LocalNATted: ev.LocalNAT, PeerNATted: ev.PeerNAT, SPI: fmt.Sprintf("%016x", ev.SPI),
		Try: ev.Try, SilentMS: ev.IdleFor.Milliseconds()}
	if ev.PeerSPI != 0 {
		out.PeerSPI, out.Suite = fmt.Sprintf("%016x", ev.PeerSPI), ev.Suite
	}
	if ev.Kind == sa.Closed {
		out.Reason = ev.Reason.String()
	}
	if ev.Notify != 0 {
		out.Notify = ev.Notify.String()
	}
	if ev.Err != nil {
		out.Error = clip(ev.Err.Error())
	}
	if c := ev.Child; c != nil {
		out.Child = &EventChild{fmt.Sprintf("%08x", c.InSPI), fmt.Sprintf("%08x", c.OutSPI), c.Suite,
			shard.SelectorNames(c.Local), shard.SelectorNames(c.Remote), c.VirtualIPs}
	}
	return out
}

// event is what an event of a shard is to those who listen.
func (h *hub) event(ev shard.Event) Event {
	out := newEvent(ev)
	if ev.Refusal != nil {
		out.Refusal = newRefusal(ev, h.policy)
		out.Refusal.Advice = h.advise(*out.Refusal)
		out.Connection = out.Refusal.Connection
	}
	return out
}

const (
	hubBuffer        = 8192
	surgeBuffer      = 16
	subscriberBuffer = 1024
)

// hub takes events from the shards, logs them, and gives them to whoever
// listens. Nobody ever waits for a listener: what does not fit is dropped, and
// counted or seen as a gap in Seq.
type hub struct {
	in      chan shard.Event
	surges  chan shard.Surge
	dropped atomic.Uint64
	log     *eventLog
	clock   func() mono.Time
	policy  *policy.Set
	advise  func(Refusal) string
	alarm   <-chan time.Time // when the log is to catch up
	alarmAt mono.Time

	mu        sync.Mutex
	ended     bool
	listeners map[chan Event]bool
}

func newHub(l *slog.Logger, clock func() mono.Time, set *policy.Set, advise func(Refusal) string) *hub {
	return &hub{clock: clock, policy: set, advise: advise, in: make(chan shard.Event, hubBuffer), surges: make(chan shard.Surge, surgeBuffer), log: &eventLog{to: l}, listeners: map[chan Event]bool{}}
}

// sink is where the shards put events.
func (h *hub) sink(ev shard.Event) {
	select {
	case h.in <- ev:
	default:
		h.dropped.Add(1)
	}
}

// surge is where the shards tell of surges.
func (h *hub) surge(s shard.Surge) {
	select {
	case h.surges <- s:
	default:
		h.dropped.Add(1)
	}
}

// run works until stop is closed, and then does what was left.
func (h *hub) run(stop <-chan struct{}) {
	for {
		select {
		case s := <-h.surges: // before the many events that it brings
			h.log.surge(s)
			continue
		default:
		}
		select {
		case ev := <-h.in:
			h.hand(ev)
			runtime.Gosched() // a log can wait, where it shares a processor with the loops
			continue
		default:
		}
		select {
		case ev := <-h.in:
			h.hand(ev)
		case s := <-h.surges:
			h.log.surge(s)
		case <-h.due():
			h.alarmAt = 0
			h.log.catchUp(h.clock())
		case <-stop:
			if len(h.in) == 0 && len(h.surges) == 0 {
				h.end()
				return
			}
		}
	}
}

// due is when the log has something to tell of what was left out of it.
func (h *hub) due() <-chan time.Time {
	if next := h.log.few.next(); next != h.alarmAt {
		h.alarm, h.alarmAt = nil, next
		if next != 0 {
			h.alarm = time.After(max(next.Sub(h.clock()), 0))
		}
	}
	return h.alarm
}

// hand logs an event and gives it to those who listen. Where nobody wants it,
// nothing is made of it: in a surge there are three for each handshake.
func (h *hub) hand(ev shard.Event) {
	h.log.catchUp(ev.At)
	logged := h.log.wants(ev)
	if !logged && !h.heard() {
		return
	}
	out := h.event(ev)
	if logged {
		h.log.write(out, ev) // which may take its time: nobody waits for it
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.listeners {
		select {
		case c <- out:
		default:
			h.dropped.Add(1)
		}
	}
}

// heard reports whether anybody listens.
func (h *hub) heard() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.listeners) > 0
}

func (h *hub) end() {
	for at := h.log.few.next(); at != 0; at = h.log.few.next() {
		h.log.catchUp(at)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	for c := range h.listeners {
		close(c)
	}
	clear(h.listeners)
}

func (h *hub) listen(ctx context.Context) <-chan Event {
	c := make(chan Event, subscriberBuffer)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		close(c)
		return c
	}
	h.listeners[c] = true
	context.AfterFunc(ctx, func() { h.forget(c) })
	return c
}

func (h *hub) forget(c chan Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listeners[c] {
		delete(h.listeners, c)
		close(c)
	}
}

// Events gives what happens from now on, until ctx or the gateway ends; then
// the channel is closed. A listener that falls behind misses events.
func (g *Gateway) Events(ctx context.Context) <-chan Event { return g.hub.listen(ctx) }
