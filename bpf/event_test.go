package bpf

import (
	"net/netip"
	"os"
	"testing"
)

// An SA's drift is news when more than the interval has passed since the last
// news of it, by subtraction that wraps. Its stamp is due in any case.
func TestDriftInterval(t *testing.T) {
	const top = 1<<32 - 1
	expected := espInUDP(knownSPI, 1)
	f := expected.alter(func(f *frame) { f.src = netip.AddrPortFrom(another, 1) })
	for _, row := range []struct {
		last, now, interval uint32
		news                bool
	}{
		{0, 5000, 10, true},
		{4989, 5000, 10, true},
		{4990, 5000, 10, false},
		{5000, 5000, 10, false},
		{4999, 5000, 0, true},
		{5000, 5000, 0, false},
		{5001, 5000, 0, false},
		{top, 10, 10, true},
		{top, 9, 10, false},
		{top - 20, 3, 10, true},
		{0, 1, 10, true},
	} {
		r := load(t, func(s *settings) { s.now, s.DriftInterval = row.now, row.interval })
		tuple := expected.tuple()
		r.local(f).sa(knownSPI, tuple, tuple.Hash())
		var entry SAEntry
		if err := r.IkepulseSas.Lookup(uint32(knownSPI&SlotField), &entry); err != nil {
			t.Fatal(err)
		}
		entry.MovedTick = row.last
		r.put(r.IkepulseSas, uint32(knownSPI&SlotField), entry)
		if row.news {
			r.expect(f, ReasonESPUDPMoved, r.moved(knownSPI, f))
		} else {
			r.expect(f, ReasonESPUDPMoved, r.seen(knownSPI))
		}
	}
}

// A known SPI without an expected tuple does not drift, nor does transit.
func TestNoDrift(t *testing.T) {
	f := espInUDP(knownSPI, 1)
	r := load(t).local(f).sa(knownSPI, f.tuple(), 0)
	moved := f.alter(func(f *frame) { f.src = netip.AddrPortFrom(another, 1) })
	r.expect(moved, ReasonESPUDPKnown, r.seen(knownSPI))
	tuple := f.tuple()
	r.sa(knownSPI, tuple, tuple.Hash())
	r.expect(f.alter(func(f *frame) { f.dst = netip.AddrPortFrom(another, 4500) }), ReasonNotLocal)
}

// Strangers are reported within their own budget, which answers do not use up
// and which does not use up theirs.
func TestStrangerBudget(t *testing.T) {
	r := load(t, func(s *settings) { s.StrangerBudget, s.AnswerBudget = 2, 1 })
	known := keepalive()
	r.local(known).peer(known, peerState{Flags: PeerNATted})
	for port := range uint16(2) {
		r.expect(fromPort(1000+port), ReasonStrangerDropped, r.strange(fromPort(1000+port)))
	}
	r.expect(fromPort(1002), ReasonStrangerDropped)
	r.expect(known, ReasonKeepaliveAnswered, r.answered(known))
	r.expect(fromPort(1003), ReasonStrangerDropped)
	r.put(r.IkepulseBudget, BudgetStrangers, Budget{Count: 2, Tick: r.now - 1})
	r.expect(fromPort(1004), ReasonStrangerDropped, r.strange(fromPort(1004)))

	r = load(t, func(s *settings) { s.StrangerBudget = 0 })
	r.local(known).expect(known, ReasonStrangerDropped)
	elsewhere := known.alter(func(f *frame) { f.dst = netip.AddrPortFrom(another, 4500) })
	r.expect(elsewhere, ReasonNotLocal)
}

// A full ring loses events, counts them, and changes nothing else; once it was
// read there is room again. A record has 8 bytes in front.
func TestFullRing(t *testing.T) {
	room := os.Getpagesize() / 96
	r := load(t, func(s *settings) { s.ring, s.StrangerBudget = uint32(os.Getpagesize()), 1<<31 })
	f := espInUDP(knownSPI, 1)
	tuple := f.tuple()
	r.local(f).sa(knownSPI, tuple, tuple.Hash())
	strangers := 0
	send := func(count int) {
		for range count {
			strangers++
			if verdict, _ := r.run(fromPort(uint16(strangers)).build()); verdict != VerdictDrop {
				t.Fatalf("stranger %d: %v", strangers, verdict)
			}
		}
	}

	send(room + 50)
	moved := f.alter(func(f *frame) { f.src = netip.AddrPortFrom(another, 1) })
	if verdict, _ := r.run(moved.build()); verdict != VerdictPass {
		t.Fatalf("%v", verdict)
	}
	s := r.state()
	if n := len(s.Events); n != room || s.Events[room-1].From.PeerPort != uint16(room) {
		t.Errorf("%d events in the ring, want the first %d", n, room)
	}
	if s.Counters["events"] != uint64(room) || s.Counters["events_lost"] != 51 {
		t.Errorf("%d events counted, %d lost; want %d and 51", s.Counters["events"], s.Counters["events_lost"], room)
	}
	if s.Counters["stranger_dropped"] != uint64(room+50) || s.SAs[knownSPI&SlotField].MovedTick != r.now {
		t.Errorf("a lost event changed more: %+v", s)
	}
	send(1)
	if events := r.drain(); len(events) != 1 || events[0].From.PeerPort != uint16(strangers) {
		t.Errorf("after reading: %+v", events)
	}
}

// Every Nth keepalive of a tuple goes to the stack; the others are treated as
// ever, and each tuple has its own count.
func TestPassEvery(t *testing.T) {
	for _, row := range []struct {
		every uint32
		sent  uint32
		want  Reason
	}{
		{0, 0, ReasonKeepaliveAnswered},
		{1, 0, ReasonKeepalivePassed},
		{1, 1, ReasonKeepalivePassed},
		{3, 0, ReasonKeepaliveAnswered},
		{3, 1, ReasonKeepaliveAnswered},
		{3, 2, ReasonKeepalivePassed},
		{3, 3, ReasonKeepaliveAnswered},
		{3, 3<<30 - 1, ReasonKeepalivePassed},
		{1<<32 - 1, 1<<32 - 2, ReasonKeepalivePassed},
		{1 << 30, 1<<32 - 1, ReasonKeepalivePassed},
	} {
		r := load(t, func(s *settings) { s.PassEvery = row.every })
		f := keepalive()
		r.local(f).peer(f, peerState{Flags: PeerNATted, Keepalives: row.sent})
		change := r.keptAlive(f)
		if row.want == ReasonKeepaliveAnswered {
			change = r.answered(f)
		}
		r.expect(f, row.want, change)
		if t.Failed() {
			t.Fatalf("%+v", row)
		}
	}

	r := load(t, func(s *settings) { s.PassEvery, s.KeepaliveMode = 2, KeepaliveAbsorb })
	a, b := fromPort(1001), fromPort(1002)
	r.local(a).peer(a, peerState{}).peer(b, peerState{})
	for _, f := range []frame{a, b} {
		r.expect(f, ReasonKeepaliveAbsorbed, r.keptAlive(f))
		r.expect(f, ReasonKeepalivePassed, r.keptAlive(f))
		r.expect(f, ReasonKeepaliveAbsorbed, r.keptAlive(f))
	}
	// A stranger has no count, and is dropped.
	r.expect(fromPort(1003), ReasonStrangerDropped, r.strange(fromPort(1003)))
	r.expect(fromPort(1003), ReasonStrangerDropped, r.strange(fromPort(1003)))
}
