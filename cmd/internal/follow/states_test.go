package follow

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/ike/xfrm"
	"github.com/ikepulse/ikepulse/maps"
)

const keepalive = 0xff

// An SA's life: its tuple's keepalives are absorbed as long as it has it, and
// its packets known.
func TestLife(t *testing.T) {
	g := newStage(t, 16)
	in := inbound(0xc1234567)
	g.arrives(natted, bpf.ReasonStrangerDropped, keepalive)
	g.changes(xfrm.Added, in, outbound(0xd2345678))
	g.want("sa_added c1234567 203.0.113.9:61201")
	g.arrives(natted, bpf.ReasonKeepaliveAbsorbed, keepalive)
	g.arrives(natted, bpf.ReasonESPUDPKnown, esp(in.SPI)...)
	g.arrives(natted, bpf.ReasonESPUDPUnknown, esp(0xd2345678)...)

	moved := with(in, func(s *xfrm.SA) { s.SrcPort = rebound.Port() })
	g.changes(xfrm.Updated, moved)
	g.want("sa_moved c1234567 203.0.113.9:24884")
	g.arrives(rebound, bpf.ReasonKeepaliveAbsorbed, keepalive)
	g.arrives(natted, bpf.ReasonStrangerDropped, keepalive)
	g.changes(xfrm.Updated, with(moved, func(s *xfrm.SA) { s.Reqid = 4 }))
	g.want()

	// A rekey: for a while there are two of one tuple.
	next := with(moved, func(s *xfrm.SA) { s.SPI = 0x00000100 })
	g.changes(xfrm.Added, next)
	g.changes(xfrm.Removed, moved, outbound(0xd2345678))
	g.want("sa_added 00000100 203.0.113.9:24884", "sa_removed c1234567 203.0.113.9:24884")
	g.arrives(rebound, bpf.ReasonKeepaliveAbsorbed, keepalive)
	g.arrives(rebound, bpf.ReasonESPUDPUnknown, esp(in.SPI)...)
	g.arrives(rebound, bpf.ReasonESPUDPKnown, esp(next.SPI)...)
	g.changes(xfrm.Removed, next)
	g.want("sa_removed 00000100 203.0.113.9:24884")
	g.arrives(rebound, bpf.ReasonStrangerDropped, keepalive)
	g.takes(xfrm.Batch{Synced: true, Lost: true})
	g.want("resync lost")
}

// Which way a state works: by what the kernel was told, else by whose address
// it is, whenever it becomes ours.
func TestDirection(t *testing.T) {
	g := newStage(t, 16)
	late := netip.MustParseAddr("198.51.100.2")
	toLate := with(inbound(0x200), func(s *xfrm.SA) { s.Dst = late })
	g.changes(xfrm.Added, toLate)
	g.want()
	g.ours(us, late)
	g.want("sa_added 00000200 203.0.113.9:61201")
	g.ours(us, late)
	g.want()
	g.ours(us)
	g.want("sa_removed 00000200 203.0.113.9:61201")
	g.changes(xfrm.Removed, toLate)
	g.want()

	g.changes(xfrm.Added,
		with(inbound(0x300), func(s *xfrm.SA) { s.Direction = xfrm.Outbound }),
		with(inbound(0x400), func(s *xfrm.SA) { s.Dst, s.Direction = late, xfrm.Inbound }))
	g.want("sa_added 00000400 203.0.113.9:61201")
}

// After kill -9 the next process goes on: packets and keepalives are known all
// the while, no stamp is lost or older than it was, and what went meanwhile goes.
func TestRestart(t *testing.T) {
	g := newStage(t, 16)
	in := inbound(0xc1234567)
	gone := with(inbound(0xc7654321), func(s *xfrm.SA) { s.SrcPort = rebound.Port() })
	g.changes(xfrm.Added, in, gone)
	g.arrives(natted, bpf.ReasonKeepaliveAbsorbed, keepalive)
	g.arrives(natted, bpf.ReasonESPUDPKnown, esp(in.SPI)...)
	g.kernel[in.Key] = xfrm.Counters{Packets: 1, LastUsed: time.Now()}
	g.looks()
	slot := g.all[in.Key].slot
	seen, auth := g.set.EvidenceAt(slot, in.SPI)
	if seen == 0 || auth == 0 {
		t.Fatalf("seen at %d, authenticated at %d", seen, auth)
	}
	g.want("sa_added c1234567 203.0.113.9:61201", "sa_added c7654321 203.0.113.9:24884")

	g.follows(g.set)
	g.ours(us)
	g.arrives(natted, bpf.ReasonKeepaliveAbsorbed, keepalive)
	g.arrives(natted, bpf.ReasonESPUDPKnown, esp(in.SPI)...)
	// A kernel before 6.2 does not say when an SA was used last.
	used := with(in, func(s *xfrm.SA) { s.Packets, s.FirstUsed = 1, time.Now().Add(-time.Hour) })
	g.takes(xfrm.Batch{Changes: []xfrm.Change{{Kind: xfrm.Added, SA: used}}, Synced: true})
	g.want("following 1")
	nowSeen, nowAuth := g.set.EvidenceAt(slot, in.SPI)
	if st := g.all[in.Key]; st.slot != slot || nowSeen < seen || nowAuth < auth || st.proof.auth < auth {
		t.Errorf("slot %d, seen at %d, authenticated at %d or %d; before: %d, %d, %d", st.slot, nowSeen, nowAuth, st.proof.auth, slot, seen, auth)
	}
	g.arrives(rebound, bpf.ReasonStrangerDropped, keepalive)
	g.arrives(rebound, bpf.ReasonESPUDPUnknown, esp(gone.SPI)...)
	peer, _, err := g.set.Peers.Get(maps.Tuple{Local: in.Local(), Peer: in.Peer()})
	if err != nil || peer.Keepalives != 2 || peer.Owners != 1 {
		t.Errorf("%+v, %v", peer, err)
	}
	g.looks() // what was seen before is no packet of this look
	if st := g.all[in.Key]; st.proof.strikes != 0 {
		t.Errorf("%d looks saw packets without proof, of none", st.proof.strikes)
	}
}

// Packets that XDP sees and the kernel does not authenticate raise an alarm,
// which ends with the first that it does. Proof is stamped where all read it.
func TestAlarm(t *testing.T) {
	g := newStage(t, 16)
	in := inbound(0xc1234567)
	g.changes(xfrm.Added, in)
	g.want("sa_added c1234567 203.0.113.9:61201")
	state := g.all[in.Key]
	count := func(c xfrm.Counters) {
		t.Helper()
		g.kernel[in.Key] = c
		g.looks()
	}
	seen := func() { // as if the last packet came in another tick
		t.Helper()
		g.arrives(natted, bpf.ReasonESPUDPKnown, esp(in.SPI)...)
		state.proof.seen++
	}
	count(xfrm.Counters{})
	seen()
	count(xfrm.Counters{IntegrityFailed: 1})
	g.want()
	seen()
	count(xfrm.Counters{IntegrityFailed: 2})
	g.want("alarm c1234567 203.0.113.9:61201 !unauthenticated: " + whyIntegrity)
	if _, auth := g.set.EvidenceAt(state.slot, in.SPI); auth != 0 {
		t.Error("forged packets are stamped as authenticated")
	}
	if sum := g.summary(); sum.Alarms != 1 || sum.SAs != 1 {
		t.Errorf("%+v", sum)
	}
	from := g.set.Clock.Now()
	count(xfrm.Counters{IntegrityFailed: 2, Packets: 1, LastUsed: time.Now()})
	g.want("alarm_over c1234567 203.0.113.9:61201")
	if _, auth := g.set.EvidenceAt(state.slot, in.SPI); auth < from-int64(2*time.Second) {
		t.Errorf("authenticated at %d, looked at %d", auth, from)
	}
}

// TestBlind: where the kernel authenticates what XDP does not see, an alarm says
// so until XDP sees it; a peer on this host comes by no interface.
func TestBlind(t *testing.T) {
	g := newStage(t, 16)
	in := inbound(0xc1234567)
	here := with(inbound(0x200), func(s *xfrm.SA) { s.Src = us })
	g.changes(xfrm.Added, in, here)
	g.want("sa_added c1234567 203.0.113.9:61201", "sa_added 00000200 198.51.100.1:61201")
	for n := range uint64(3) {
		g.want()
		c := xfrm.Counters{Packets: n + 1, LastUsed: time.Now()}
		g.kernel[in.Key], g.kernel[here.Key] = c, c
		g.looks()
	}
	g.want("alarm c1234567 203.0.113.9:61201 !unseen: " + whyUnseen)
	g.arrives(natted, bpf.ReasonESPUDPKnown, esp(in.SPI)...)
	g.looks()
	g.want("alarm_over c1234567 203.0.113.9:61201")
}

// With replay window 0 the kernel counts replayed packets as good ones: what it
// says is no proof, and its silence no alarm.
func TestNoReplayWindow(t *testing.T) {
	g := newStage(t, 16)
	in := with(inbound(0xc1234567), func(s *xfrm.SA) { s.ReplayWindow = 0; s.Packets, s.LastUsed = 7, time.Now() })
	g.changes(xfrm.Added, in)
	for n := range uint64(3) {
		g.arrives(natted, bpf.ReasonESPUDPKnown, esp(in.SPI)...)
		g.all[in.Key].proof.seen++
		g.kernel[in.Key] = xfrm.Counters{Packets: 7 + n/2, LastUsed: time.Now()}
		g.looks()
	}
	g.want("sa_added c1234567 203.0.113.9:61201")
	row := g.about(EventSA, g.all[in.Key])
	if row.Proof != "hint" || row.ProofMS != nil || row.IdleMS == nil {
		t.Errorf("%+v", row.SA)
	}
	if _, auth := g.set.EvidenceAt(g.all[in.Key].slot, in.SPI); auth != 0 {
		t.Error("stamped as authenticated")
	}
}

// Where the kernel hears a peer from elsewhere, it is told once for each place,
// and is over when the daemon moves the SA or the peer has come back.
func TestHeardElsewhere(t *testing.T) {
	g := newStage(t, 16)
	in := inbound(0xc1234567)
	g.changes(xfrm.Added, in)
	heard := func(at netip.AddrPort) {
		t.Helper()
		g.takes(xfrm.Batch{Changes: []xfrm.Change{{Kind: xfrm.Moved, SA: in, Mapping: xfrm.Mapping{Key: in.Key, Old: natted, New: at}}}})
	}
	heard(rebound)
	heard(rebound)
	third := netip.AddrPortFrom(peerAddr, 999)
	heard(third)
	g.want("sa_added c1234567 203.0.113.9:61201",
		"heard_elsewhere c1234567 203.0.113.9:61201 !moved at 203.0.113.9:24884",
		"heard_elsewhere c1234567 203.0.113.9:61201 !moved at 203.0.113.9:999")

	state := g.all[in.Key]
	g.kernel[in.Key] = xfrm.Counters{Packets: 1}
	g.looks()
	g.want() // it may have been this packet
	state.heardAt -= 2 * heardFor
	g.kernel[in.Key] = xfrm.Counters{Packets: 2}
	g.looks()
	g.want("alarm_over c1234567 203.0.113.9:61201")

	heard(rebound)
	moved := with(in, func(s *xfrm.SA) { s.SrcPort = rebound.Port() })
	g.changes(xfrm.Updated, moved)
	g.want("heard_elsewhere c1234567 203.0.113.9:61201 !moved at 203.0.113.9:24884", "sa_moved c1234567 203.0.113.9:24884")
}

// What does not fit is tried again at each look.
func TestTrackedLater(t *testing.T) {
	g := newStage(t, 1) // two tuples
	others := []maps.Tuple{{Local: netip.AddrPortFrom(us, 4500), Peer: rebound}, {Local: netip.AddrPortFrom(us, 4501), Peer: rebound}}
	for _, tuple := range others {
		if err := g.set.Peers.Acquire(tuple, false); err != nil {
			t.Fatal(err)
		}
	}
	g.changes(xfrm.Added, inbound(0x100))
	for range 5 {
		g.looks()
	}
	g.want("untracked 00000100 203.0.113.9:61201 !untracked")
	if err := g.set.Peers.Release(others[0]); err != nil {
		t.Fatal(err)
	}
	g.looks()
	g.want("sa_added 00000100 203.0.113.9:61201")
	g.arrives(natted, bpf.ReasonESPUDPKnown, esp(0x100)...)
}

// What does not fit is told once, and is in the report; what fits goes on.
func TestUntracked(t *testing.T) {
	g := newStage(t, 1) // two slots
	g.changes(xfrm.Added, inbound(0x100), inbound(0x200), inbound(0x300))
	g.looks()
	g.looks()
	g.want("sa_added 00000100 203.0.113.9:61201", "sa_added 00000200 203.0.113.9:61201",
		"untracked 00000300 203.0.113.9:61201 !untracked")
	if sum := g.summary(); sum.SAs != 3 || sum.Untracked != 1 || sum.Alarms != 1 {
		t.Errorf("%+v", sum)
	}
	g.changes(xfrm.Removed, inbound(0x300))
	if sum := g.summary(); sum.SAs != 2 || sum.Untracked != 0 || sum.Alarms != 0 {
		t.Errorf("%+v", sum)
	}
	g.want()
}

// What the kernel tells of an update is the request, which has counted nothing
// and is new: the SA is as old as it was, and as much used.
func TestUpdateKeepsAge(t *testing.T) {
	g := newStage(t, 16)
	hour := time.Now().Add(-time.Hour)
	old := with(inbound(0x1234), func(s *xfrm.SA) { s.Added, s.Packets, s.ReplayWindow = hour, 7, 0 })
	g.changes(xfrm.Added, old)
	g.changes(xfrm.Updated, with(old, func(s *xfrm.SA) { s.SrcPort, s.Counters = rebound.Port(), xfrm.Counters{Added: time.Now()} }))
	if up := g.raw[1].UpMS; up == nil || *up < 3_600_000 {
		t.Errorf("it is new: %+v", g.raw[1].SA)
	}
	g.want("sa_added 00001234 203.0.113.9:61201", "sa_moved 00001234 203.0.113.9:24884")
	if c := g.all[old.Key].Counters; c != old.Counters {
		t.Errorf("counted %+v", c)
	}
}

// An SA that there was no room for is no alarm once its address is not ours.
func TestUntrackedIsNotOurs(t *testing.T) {
	g := newStage(t, 1)
	for spi := uint32(1); g.summary().Untracked == 0 && spi < 100; spi++ {
		g.changes(xfrm.Added, inbound(spi))
	}
	if sum := g.summary(); sum.Untracked != 1 || sum.Alarms != 1 {
		t.Fatalf("%+v", sum)
	}
	g.ours()
	if sum := g.summary(); sum.SAs != 0 || sum.Untracked != 0 || sum.Alarms != 0 {
		t.Errorf("nothing is ours: %+v", sum)
	}
}
