package bpf

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func fromPort(port uint16) frame {
	return keepalive().alter(func(f *frame) { f.src = netip.AddrPortFrom(f.src.Addr(), port) })
}

func TestKeepaliveModes(t *testing.T) {
	natted := peerState{Owners: 2, Flags: PeerNATted, Keepalives: 4}
	for _, row := range []struct {
		name  string
		mode  uint32
		entry peerState
		want  Reason
	}{
		{"answer", KeepaliveAnswer, natted, ReasonKeepaliveAnswered},
		{"absorb", KeepaliveAbsorb, natted, ReasonKeepaliveAbsorbed},
		{"pass", KeepalivePass, natted, ReasonKeepalivePassed},
		{"an unheard-of mode absorbs", 3, natted, ReasonKeepaliveAbsorbed},
		{"not natted: answer", KeepaliveAnswer, peerState{Owners: 1}, ReasonKeepaliveNotNATted},
		{"not natted: absorb", KeepaliveAbsorb, peerState{Owners: 1}, ReasonKeepaliveAbsorbed},
		{"not natted: pass", KeepalivePass, peerState{Owners: 1}, ReasonKeepalivePassed},
		{"another flag is not that flag", KeepaliveAnswer, peerState{Flags: ^PeerNATted}, ReasonKeepaliveNotNATted},
		{"another flag besides", KeepaliveAnswer, peerState{Flags: ^uint32(0)}, ReasonKeepaliveAnswered},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, padding := range []int{0, 60} {
				r := load(t, func(s *settings) { s.KeepaliveMode = row.mode })
				f := keepalive()
				f.padTo = padding
				r.local(f).peer(f, row.entry)
				if row.want == ReasonKeepaliveAnswered {
					r.expect(f, row.want, r.answered(f))
				} else {
					r.expect(f, row.want, r.keptAlive(f))
				}
			}
		})
	}
}

// The answer, byte for byte, as no code of these tests wrote it.
func TestAnswerOnTheWire(t *testing.T) {
	decode := func(s string) []byte {
		b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	in := decode(`00005e005301 00005e005302 0800
		4528 001d 3b1c 4000 39 11 0000  cb007107 c6336401
		6134 1194 0009 9c2f  ff  0000000000000000000000000000000000`)
	want := decode(`00005e005302 00005e005301 0800
		4500 001d 0000 4000 40 11 d493  c6336401 cb007107
		1194 6134 0009 0000  ff  0000000000000000000000000000000000`)

	f := keepalive()
	r := load(t).local(f).peer(f, peerState{Owners: 1, Flags: PeerNATted})
	verdict, got := r.run(in)
	if verdict != VerdictTX {
		t.Errorf("verdict %v, want tx", verdict)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

// The checksum is folded right whatever the words. With the last address the
// first fold carries once more: its words make the sum 0x1ffff.
func TestAnswerChecksums(t *testing.T) {
	r := load(t)
	for _, address := range []string{"0.0.0.1", "255.255.255.255", "255.255.255.254", "127.255.0.1", "128.0.128.0", "255.255.17.156"} {
		f := keepalive()
		f.src = netip.AddrPortFrom(netip.MustParseAddr(address), 65535)
		r.peer(f, peerState{Owners: 1, Flags: PeerNATted})
		r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
	}
}

// The same of UDP over IPv6, where the sum that would be 0, which stands for
// none, is sent as its other zero (RFC 768). The ports are those whose sums
// are the highest: one is that zero, and of the others the first fold carries.
func TestAnswerChecksumsOverIPv6(t *testing.T) {
	r := load(t)
	for _, address := range []string{"::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::ffff:fffe", "fe80::1"} {
		tried := map[uint16]bool{}
		for port := range 1 << 16 {
			f := keepalive().alter(over6)
			f.src = netip.AddrPortFrom(netip.MustParseAddr(address), uint16(port))
			sum := f.rightUDPSum()
			if sum < 0xffe0 {
				continue
			}
			tried[sum] = true
			r.peer(f, peerState{Owners: 1, Flags: PeerNATted})
			r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
			if err := r.IkepulsePeers.Delete(f.tuple()); err != nil {
				t.Fatal(err)
			}
		}
		if len(tried) != 32 {
			t.Errorf("%s: %d of 32 sums met", address, len(tried))
		}
	}
}

// Every field of the tuple counts, and nobody else's entry is touched.
func TestStrangers(t *testing.T) {
	for name, change := range map[string]func(*frame){
		"another peer address": func(f *frame) { f.src = netip.AddrPortFrom(another, f.src.Port()) },
		"another peer port":    func(f *frame) { f.src = netip.AddrPortFrom(f.src.Addr(), f.src.Port()+1) },
		"its bytes swapped":    func(f *frame) { f.src = netip.AddrPortFrom(f.src.Addr(), f.src.Port()<<8|f.src.Port()>>8) },
		"another of our addresses": func(f *frame) {
			f.dst = netip.AddrPortFrom(another, f.dst.Port())
		},
		"both ends exchanged": func(f *frame) {
			f.src, f.dst = netip.AddrPortFrom(f.dst.Addr(), 24884), netip.AddrPortFrom(f.src.Addr(), 4500)
		},
	} {
		t.Run(name, func(t *testing.T) {
			stranger := keepalive().alter(change)
			known := func(changes ...func(*settings)) *rig {
				return load(t, changes...).local(stranger).peer(keepalive(), peerState{Owners: 1, Flags: PeerNATted})
			}
			r := known()
			r.expect(stranger, ReasonStrangerDropped, r.strange(stranger))
			r = known(func(s *settings) { s.StrangerPass = 1 })
			r.expect(stranger, ReasonStrangerPassed, r.strange(stranger))
			// Modes speak of registered tuples only.
			r = known(func(s *settings) { s.KeepaliveMode = KeepalivePass })
			r.expect(stranger, ReasonStrangerDropped, r.strange(stranger))
		})
	}
}

// A tuple's second answer comes when more than the interval has passed, by
// subtraction that wraps: 0 stands for never, 1 follows 2^32-1 after it.
func TestAnswerInterval(t *testing.T) {
	const top = 1<<32 - 1
	for _, row := range []struct {
		last, now, interval uint32
		want                Reason
	}{
		{0, 5000, 10, ReasonKeepaliveAnswered},
		{4989, 5000, 10, ReasonKeepaliveAnswered},
		{4990, 5000, 10, ReasonKeepaliveLimited},
		{4999, 5000, 10, ReasonKeepaliveLimited},
		{5000, 5000, 10, ReasonKeepaliveLimited},
		{1, 5000, 10, ReasonKeepaliveAnswered},

		// An interval of 0 is still at most once a tick.
		{4999, 5000, 0, ReasonKeepaliveAnswered},
		{5000, 5000, 0, ReasonKeepaliveLimited},

		// Across the wrap.
		{top, 1, 10, ReasonKeepaliveLimited},
		{top, 9, 10, ReasonKeepaliveLimited},
		{top, 10, 10, ReasonKeepaliveAnswered},
		{top - 9, 1, 10, ReasonKeepaliveAnswered},
		{top - 8, 1, 10, ReasonKeepaliveLimited},
		{top - 11, top, 10, ReasonKeepaliveAnswered},
		{top - 10, top, 10, ReasonKeepaliveLimited},
		{top - 5, top - 1, 10, ReasonKeepaliveLimited},
		{top - 20, 3, 10, ReasonKeepaliveAnswered},
		{0, top, 10, ReasonKeepaliveAnswered},
		{0, 1, 10, ReasonKeepaliveAnswered},
		{0, 1<<31 + 5, 10, ReasonKeepaliveAnswered},

		// Another CPU answered, by a clock that it read after ours.
		{5001, 5000, 10, ReasonKeepaliveLimited},
		{5003, 5000, 0, ReasonKeepaliveLimited},
		{1, top, 10, ReasonKeepaliveLimited},
	} {
		t.Run(fmt.Sprintf("%d then %d within %d", row.last, row.now, row.interval), func(t *testing.T) {
			r := load(t, func(s *settings) { s.now, s.AnswerInterval = row.now, row.interval })
			f := keepalive()
			r.local(f).peer(f, peerState{Owners: 1, Flags: PeerNATted, AnswerTick: row.last})
			if row.want == ReasonKeepaliveAnswered {
				r.expect(f, row.want, r.answered(f))
			} else {
				r.expect(f, row.want, r.keptAlive(f))
			}
		})
	}
}

// Jiffies whose low half is 0 make the tick 1, as 0 means never.
func TestTickIsNeverZero(t *testing.T) {
	r := load(t, func(s *settings) { s.now = 0 })
	r.now = 1
	f, e := keepalive(), espInUDP(knownSPI, 1)
	r.local(f).peer(f, peerState{Owners: 1, Flags: PeerNATted}).sa(knownSPI, e.tuple(), 0)
	r.expect(e, ReasonESPUDPKnown, r.seen(knownSPI))
	r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
	r.expect(f, ReasonKeepaliveLimited, r.keptAlive(f))
}

func TestBudget(t *testing.T) {
	const top = 1<<32 - 1
	for _, row := range []struct {
		name   string
		before Budget
		now    uint32
		budget uint32
		want   Reason
		after  Budget
	}{
		{"first of all", Budget{}, 5000, 3, ReasonKeepaliveAnswered, Budget{Count: 1, Tick: 5000}},
		{"first of all, late", Budget{}, top, 3, ReasonKeepaliveAnswered, Budget{Count: 1, Tick: top}},
		{"last one", Budget{Count: 2, Tick: 5000}, 5000, 3, ReasonKeepaliveAnswered, Budget{Count: 3, Tick: 5000}},
		{"used up", Budget{Count: 3, Tick: 5000}, 5000, 3, ReasonKeepaliveOverBudget, Budget{Count: 3, Tick: 5000}},
		{"far over", Budget{Count: top, Tick: 5000}, 5000, 3, ReasonKeepaliveOverBudget, Budget{Count: top, Tick: 5000}},
		{"a new tick", Budget{Count: 3, Tick: 4999}, 5000, 3, ReasonKeepaliveAnswered, Budget{Count: 1, Tick: 5000}},
		{"a new tick after the wrap", Budget{Count: 3, Tick: top}, 1, 3, ReasonKeepaliveAnswered, Budget{Count: 1, Tick: 1}},
		{"by a clock read too early", Budget{Count: 2, Tick: 5001}, 5000, 3, ReasonKeepaliveAnswered, Budget{Count: 3, Tick: 5001}},
		{"the same, used up", Budget{Count: 3, Tick: 5001}, 5000, 3, ReasonKeepaliveOverBudget, Budget{Count: 3, Tick: 5001}},
		{"none at all", Budget{}, 5000, 0, ReasonKeepaliveOverBudget, Budget{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := load(t, func(s *settings) { s.now, s.AnswerBudget = row.now, row.budget })
			f := keepalive()
			r.local(f).peer(f, peerState{Owners: 1, Flags: PeerNATted})
			r.put(r.IkepulseBudget, BudgetAnswers, row.before)
			change := r.keptAlive(f)
			if row.want == ReasonKeepaliveAnswered {
				change = r.answered(f)
			}
			r.expect(f, row.want, change, func(s *state) { s.Budget[BudgetAnswers] = row.after })
		})
	}
}

// Only what would be answered asks the budget, so that a flood that is limited
// anyway cannot use it up.
func TestBudgetIsForAnswers(t *testing.T) {
	r := load(t, func(s *settings) { s.AnswerBudget = 2 })
	f, plain := fromPort(1001), fromPort(1002)
	r.local(f).peer(f, peerState{Flags: PeerNATted}).peer(plain, peerState{})
	r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
	for range 3 {
		r.expect(f, ReasonKeepaliveLimited, r.keptAlive(f))
		r.expect(plain, ReasonKeepaliveNotNATted, r.keptAlive(plain))
	}
	second, third := fromPort(1003), fromPort(1004)
	r.peer(second, peerState{Flags: PeerNATted}).peer(third, peerState{Flags: PeerNATted})
	r.expect(second, ReasonKeepaliveAnswered, r.answered(second))
	// Refused by the budget, it may still be answered in the next tick.
	r.expect(third, ReasonKeepaliveOverBudget, r.keptAlive(third))
}

func TestThousandKeepalivesOneAnswer(t *testing.T) {
	f := keepalive()
	r := load(t).local(f).peer(f, peerState{Owners: 1, Flags: PeerNATted})
	want := r.state()
	verdicts := map[Verdict]int{}
	for range 1000 {
		verdict, _ := r.run(f.build())
		verdicts[verdict]++
	}

	if diff := cmp.Diff(map[Verdict]int{VerdictTX: 1, VerdictDrop: 999}, verdicts); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	want.Counters["keepalive_answered"] = 1
	want.Counters["keepalive_limited"] = 999
	want.Budget[BudgetAnswers] = Budget{Count: 1, Tick: r.now}
	want.Peers[f.tuple()] = peerState{
		Owners: 1, Flags: PeerNATted, KeepaliveTick: r.now, AnswerTick: r.now, Keepalives: 1000, Answers: 1,
	}
	if diff := cmp.Diff(want, r.state()); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

// Two gateways that both answer: each treats the other's answer as a
// keepalive, and the exchange ends after one answer a side.
func TestTwoAnsweringGateways(t *testing.T) {
	for name, version := range map[string]func(*frame){"IPv4": func(*frame) {}, "IPv6": over6} {
		here := keepalive().alter(version)
		here.src = netip.AddrPortFrom(here.src.Addr(), 4500)
		there := here
		there.src, there.dst = here.dst, here.src

		r := load(t).local(here).local(there)
		r.peer(here, peerState{Flags: PeerNATted}).peer(there, peerState{Flags: PeerNATted})
		bytes, sent := here.build(), 0
		for verdict := VerdictTX; verdict == VerdictTX && sent < 10; sent++ {
			verdict, bytes = r.run(bytes)
		}
		if sent != 3 {
			t.Errorf("%s: %d packets crossed, want the keepalive and an answer of each side", name, sent)
		}
	}
}
