package shard

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

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
	if st.Up+st.Connecting+st.Deleting+st.Handshakes.HalfOpen != 0 || s.group.total.Load() != 0 {
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

// deleteChild has a peer get a site's DELETE of the Child SA of the SA whose record
// the site has stored last. The site itself knows nothing of it.
func (s *site) deleteChild(peer *site) {
	s.w.t.Helper()
	s.mu.Lock()
	stored := s.stored
	s.mu.Unlock()
	var r sa.Record
	if err := r.Decode(stored, s.conf.Policy); err != nil {
		s.w.t.Fatal(err)
	}
	h := wire.Header{SPIi: r.PeerSPI, SPIr: r.SPI, Exchange: wire.Informational, MessageID: r.NextRequest}
	data := r.Suite.Seal(nil, h, []wire.Payload{&wire.Delete{Protocol: wire.ProtoESP, SPIs: []uint32{r.Child.InSPI}}}, &r.Keys.Er, &r.Keys.Ar, r.IV)
	s.w.send(wire.Packet{Local: r.Local.AddrPort(), Remote: r.Remote.AddrPort(), NATT: true, Data: data})
	s.w.after(time.Second)
	if !slices.ContainsFunc(peer.peers(), func(p Peer) bool { return p.Child == nil }) {
		s.w.t.Fatalf("the Child SA is there: %+v", peer.peers())
	}
}
