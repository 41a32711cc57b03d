package follow

import (
	"testing"

	"github.com/ikepulse/ikepulse/ike/xfrm"
)

// step is one look and what is known after it.
type step struct {
	now, used int64
	seen      uint32
	c         xfrm.Counters
	auth      int64
	why       string
}

func packets(n uint64) xfrm.Counters { return xfrm.Counters{Packets: n} }

func TestProof(t *testing.T) {
	tests := []struct {
		name  string
		begin xfrm.Counters
		used  int64
		auth  int64
		steps []step
	}{
		{"never a packet", packets(0), 0, 0, []step{{200, 0, 0, packets(0), 0, ""}}},
		{"used before it was met", packets(3), 40, 40, nil},
		{"used in a future that another clock made", packets(3), 400, 100, nil},
		{"a time without a packet is none", packets(0), 40, 0, nil},
		{"the kernel tells when", packets(3), 40, 40, []step{{200, 170, 5, packets(4), 170, ""}}},
		{"it does not: credited at the last look", packets(3), 40, 40, []step{{200, 0, 5, packets(4), 100, ""}, {300, 0, 6, packets(9), 200, ""}}},
		{"its clock went back", packets(3), 40, 40, []step{{200, 50, 5, packets(4), 100, ""}}},
		{"its clock went ahead", packets(3), 40, 40, []step{{200, 900, 5, packets(4), 200, ""}}},
		{"proof without a stamp: another interface", packets(0), 0, 0, []step{{200, 150, 0, packets(1), 150, ""}}},
		{"forged: an alarm with the second look that sees others", packets(1), 40, 40, []step{
			{200, 40, 5, xfrm.Counters{Packets: 1, IntegrityFailed: 1}, 40, ""},
			{300, 40, 6, xfrm.Counters{Packets: 1, IntegrityFailed: 2}, 40, whyIntegrity},
			{400, 40, 6, xfrm.Counters{Packets: 1, IntegrityFailed: 2}, 40, whyIntegrity},
			{500, 450, 9, xfrm.Counters{Packets: 2, IntegrityFailed: 2}, 450, ""}}},
		{"the first failure counts, too", packets(0), 0, 0, []step{
			{200, 0, 5, xfrm.Counters{IntegrityFailed: 1}, 0, ""},
			{300, 0, 6, xfrm.Counters{IntegrityFailed: 1}, 0, whyIntegrity}}},
		{"replayed", packets(1), 40, 40, []step{
			{200, 40, 5, xfrm.Counters{Packets: 1, Replayed: 1}, 40, ""},
			{300, 40, 6, xfrm.Counters{Packets: 1, Replayed: 2}, 40, whyReplay}}},
		{"dropped on the way", packets(1), 40, 40, []step{
			{200, 40, 5, packets(1), 40, ""}, {300, 40, 6, packets(1), 40, whyUncounted}}},
		{"one packet on its way at the look", packets(1), 40, 40, []step{
			{200, 40, 5, packets(1), 40, ""}, {300, 40, 5, packets(1), 40, ""}, {400, 210, 5, packets(2), 300, ""},
			{500, 210, 6, packets(2), 300, ""}, {600, 210, 6, packets(2), 300, ""}}},
		{"strikes in a row only", packets(1), 40, 40, []step{
			{200, 40, 5, packets(1), 40, ""}, {300, 250, 6, packets(2), 250, ""}, {400, 250, 7, packets(2), 250, ""}}},
		{"replaced by a state that begins anew", packets(9), 40, 40, []step{
			{200, 40, 5, packets(9), 40, ""}, {300, 0, 6, packets(0), 40, ""}, {400, 0, 7, packets(0), 40, ""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p proof
			p.begin(100, 0, tt.begin, tt.used)
			if p.auth != tt.auth {
				t.Errorf("authenticated at %d, want %d", p.auth, tt.auth)
			}
			for i, s := range tt.steps {
				p.look(s.now, s.seen, false, s.c, s.used)
				if p.auth != s.auth || p.why != s.why {
					t.Errorf("look %d: authenticated at %d, alarm %q; want %d, %q", i, p.auth, p.why, s.auth, s.why)
				}
			}
		})
	}
}

// TestUnseen: XDP is blind for an SA whose packets the kernel counts again and
// again, long after it saw the last; one that it sees, or that was seen lately,
// ends it.
func TestUnseen(t *testing.T) {
	type look struct {
		seen   uint32
		stale  bool
		n      uint64 // packets
		unseen bool
	}
	for name, looks := range map[string][]look{
		"never seen":           {{0, true, 1, false}, {0, true, 2, false}, {0, true, 3, true}, {0, true, 3, true}},
		"no longer seen":       {{5, false, 1, false}, {5, true, 2, false}, {5, true, 3, false}, {5, true, 4, true}},
		"seen lately":          {{5, false, 1, false}, {5, false, 2, false}, {5, false, 3, false}, {5, false, 4, false}},
		"silent":               {{0, true, 1, false}, {0, true, 1, false}, {0, true, 1, false}, {0, true, 1, false}},
		"seen again":           {{0, true, 1, false}, {0, true, 2, false}, {0, true, 3, true}, {6, false, 4, false}, {6, true, 5, false}},
		"one that was held up": {{5, true, 1, false}, {5, true, 2, false}, {6, false, 2, false}, {6, true, 3, false}},
	} {
		var p proof
		p.begin(100, 0, packets(0), 0)
		for i, l := range looks {
			if p.look(int64(200+100*i), l.seen, l.stale, packets(l.n), 0); p.unseenAll() != l.unseen {
				t.Errorf("%s, look %d: unseen %v", name, i, p.unseenAll())
			}
		}
	}
}
