package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/test/measure"
	"github.com/ikepulse/ikepulse/test/require"
)

// small is a run that is over in seconds and whose timings mean nothing.
func small(t *testing.T) config {
	t.Helper()
	require.Have(t, "root", "bpf", "netns")
	cpus, err := measure.CPUs()
	if err != nil {
		t.Fatal(err)
	}
	return config{cpu: cpus[len(cpus)-1], rounds: 2, repeat: 4000, liveFrames: 4000, members: []int{1000}}
}

// TestSmoke runs every arm. Each measurement fails that does not find all its
// frames in the counter of its reason; what the frames left in the maps is
// looked at here, so that a bench of nothing shows.
func TestSmoke(t *testing.T) {
	c := small(t)
	var r report
	err := withBench(c, func(b *bench) error {
		if err := b.measure(); err != nil {
			return err
		}
		r = b.report()
		for _, p := range b.populations {
			t.Run(fmt.Sprint(p), func(t *testing.T) { left(t, p, c) })
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("arms", func(t *testing.T) { hasArms(t, r, c) })
	t.Run("output", func(t *testing.T) { prints(t, r) })
}

// left looks at what the arms of a population left in its maps.
func left(t *testing.T, p *population, c config) {
	const rounds = 3 // one of them to warm up
	frames := uint64(rounds * c.repeat)
	ticks := map[uint32]bool{}
	for slot, entry := range members(t, p, p.moving, bpf.HotEntry{}) {
		if entry.Seen == steadyTick {
			t.Errorf("slot %d: no frame in a new tick", slot)
		}
		ticks[entry.Seen] = true
	}
	if len(ticks) != p.members {
		t.Errorf("%d SPIs were seen last in %d ticks: each frame should have its own", p.members, len(ticks))
	}
	for slot, entry := range members(t, p, p.steady, bpf.HotEntry{}) {
		if entry.Seen != steadyTick {
			t.Errorf("slot %d: seen in tick %d, there should be one tick only", slot, entry.Seen)
		}
	}
	var accounted uint64
	for slot, entry := range members(t, p, p.others[bpf.MapSAs], bpf.SAEntry{}) {
		accounted += entry.Packets
		if entry.Packets == 0 {
			t.Errorf("slot %d: no packet was accounted", slot)
		}
	}
	spreads := uint64(2)
	if p.members == 1 {
		spreads = 1
	}
	// One arm in one tick, and one in new ones.
	if want := 2 * spreads * frames; accounted != want {
		t.Errorf("%d packets were accounted, want %d", accounted, want)
	}
	leftByKeepalives(t, p, c)
}

// leftByKeepalives finds each keepalive and each answer in its tuple's mapping.
func leftByKeepalives(t *testing.T, p *population, c config) {
	const rounds = 3
	var keepalives, answers uint64
	for i := range p.members {
		var entry bpf.PeerEntry
		if err := p.others[bpf.MapPeers].Lookup(tuple(gatewayAddr, uint32(i)), &entry); err != nil {
			t.Fatal(err)
		}
		mapping := entry.Mapping
		if entry.Place != 0 {
			var bucket bpf.NearBucket
			if err := p.others[bpf.MapNear].Lookup((entry.Place-1)/uint32(bpf.NearWays), &bucket); err != nil {
				t.Fatal(err)
			}
			mapping = bucket.Entries[(entry.Place-1)%uint32(bpf.NearWays)].Mapping
		}
		if mapping.Keepalives == 0 || mapping.Answers == 0 {
			t.Errorf("tuple %d: %d keepalives, %d answers", i, mapping.Keepalives, mapping.Answers)
		}
		keepalives += uint64(mapping.Keepalives)
		answers += uint64(mapping.Answers)
	}
	each := uint64(rounds * (c.repeat + c.liveFrames)) // in memory and on the link
	want := 2 * each                                   // absorbed and answered
	if p.members == 1 {
		want += uint64(rounds * c.repeat) // the same frame each time
	}
	if keepalives != want || answers != each {
		t.Errorf("%d keepalives, %d answers, want %d and %d", keepalives, answers, want, each)
	}
}

// hasArms wants what the figures are made of, each round of it.
func hasArms(t *testing.T, r report, c config) {
	rows := map[string]int{}
	for _, s := range r.Sections {
		for _, a := range s.Arms {
			rows[a.Name]++
			if len(a.Rounds) != c.rounds || a.NS.Min <= 0 {
				t.Errorf("%s: %s: %v", s.Title, a.Name, a.Rounds)
			}
			if strings.HasSuffix(a.Name, "(floor)") != (a.Floor == nil) || a.Floor == nil && (a.Limit != nil || a.Rival != nil) {
				t.Errorf("%s: %s: compared without a floor", s.Title, a.Name)
			}
		}
	}
	want := map[string]int{
		"bare pass (floor)": 1, "bare drop (floor)": 1,
		"ikepulse, non-IPsec (TCP)": 1, "ikepulse, IKE on 500": 1, "ikepulse, IKE on 4500": 1,
		// Two populations in memory and on the link; one more in memory.
		"mutator, bare drop (floor)": 4, "mutator, bare tx (floor)": 4,
		"ikepulse, keepalive_answered": 4, armLeastDone: 4, "ikepulse, keepalive_absorbed": 5,
		"kernel, UDP_ENCAP drops it": 2, "Go socket, ReadBatch of 64": 2, "Go socket, a read each": 2,
		"mutator, bare drop, in bursts (floor)": 2,
		// One SPI; and more, uniform and Zipf.
		armPass: 3, "parse": 3, armLimit: 3, "parse, load and store": 3, armChained: 3,
		armTextbook: 3, "hash (SPI, dst), jiffies if new": 3,
		armOneTick: 3, armNewTicks: 3, armNewTicksChained: 3,
		"ikepulse, one tick, accounting": 3, "ikepulse, new ticks, accounting": 3,
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("arms of each name (-want +got):\n%s", diff)
	}
	if len(r.Aims) == 0 || len(r.BreakEven) == 0 {
		t.Errorf("%d aims, %d rows of break-even", len(r.Aims), len(r.BreakEven))
	}
}

// prints wants both forms of the output, and the label on every hot table.
func prints(t *testing.T, r report) {
	var text, encoded bytes.Buffer
	if err := r.writeText(&text); err != nil {
		t.Fatal(err)
	}
	if err := r.writeJSON(&encoded); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(encoded.Bytes(), &back); err != nil || len(back.Sections) != len(r.Sections) {
		t.Errorf("%d sections come back, %v", len(back.Sections), err)
	}
	for _, s := range r.Sections {
		title := s.Title
		if s.Hot {
			title += hotLabel
		}
		if !strings.Contains(text.String(), "\n"+title+"\n") {
			t.Errorf("no table %q in\n%s", title, &text)
		}
	}
}
