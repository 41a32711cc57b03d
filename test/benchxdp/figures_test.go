package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/test/measure"
)

func TestCheck(t *testing.T) {
	p := &product{}
	counted := func(reason bpf.Reason, n uint64) (all [bpf.ReasonCount]uint64) {
		all[reason] = n
		return all
	}
	const known, moved = bpf.ReasonESPUDPKnown, bpf.ReasonESPUDPMoved
	both := counted(known, 10)
	both[moved] = 1
	for _, test := range []struct {
		name  string
		way   way
		after traces
		want  int // 0: an error
	}{
		{"a floor", way{}, traces{}, 10},
		{"a floor that was mutated", way{}, traces{shared: benchShared{Tick: 10}}, 0},
		{"mutated", way{mutated: true}, traces{shared: benchShared{Tick: 10}}, 10},
		{"interrupted, begun again", way{mutated: true}, traces{shared: benchShared{Tick: 13}}, 13},
		{"not all mutated", way{mutated: true}, traces{shared: benchShared{Tick: 9}}, 0},
		{"one missed", way{mutated: true}, traces{shared: benchShared{Tick: 10, Missed: 1}}, 0},
		{"known", way{product: p, reason: known}, traces{reasons: counted(known, 10)}, 10},
		{"moved", way{product: p, reason: known}, traces{reasons: counted(moved, 10)}, 0},
		{"one moved", way{product: p, reason: known}, traces{reasons: both}, 0},
		{"too few known", way{product: p, reason: known}, traces{reasons: counted(known, 9)}, 0},
		{"never got there", way{product: p, reason: known}, traces{}, 0},
	} {
		got, err := test.way.check(traces{}, test.after, 10)
		if got != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%s: %d, %v, want %d", test.name, got, err, test.want)
		}
	}
}

func armOf(name string, floor *arm, ns ...float64) *arm {
	return &arm{name: name, floor: floor, ns: ns}
}

// Ratios are those of each round: a round in which all is twice as slow has the
// same one.
func TestComparisons(t *testing.T) {
	floor := armOf("floor", nil, 10, 20, 10)
	limit := armOf("limit", floor, 20, 40, 20)
	textbook := armOf("textbook", floor, 70, 140, 70)
	ours := armOf("ours", floor, 30, 60, 30)
	ours.limit, ours.rival = limit, textbook
	got := ours.report()
	want := armReport{
		Name: "ours", NS: measure.Summary{Median: 30, Min: 30, IQR: 0.5}, Rounds: ours.ns,
		Floor: &comparison{With: "floor", NS: 10, Ratio: 3, Added: 20},
		Limit: &comparison{With: "limit", NS: 20, Ratio: 1.5, Net: 2},
		Rival: &comparison{With: "textbook", NS: 70, Ratio: 70. / 30, Net: 3},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAims(t *testing.T) {
	floor := armOf("floor", nil, 10, 10, 10)
	ours, kernel := armOf("ours", floor, 12, 12, 14), armOf("kernel", floor, 90, 110, 110)
	for _, test := range []struct {
		aim  aim
		want aimReport
	}{
		{aim{"near", ours, floor, 1.2, false}, aimReport{"near", "at most 1.2x", true, 1.2, 0, 12, 10, 10, 2}},
		{aim{"nearer", ours, floor, 1.1, false}, aimReport{"nearer", "at most 1.1x", false, 1.2, 0, 12, 10, 10, 0}},
		{aim{"far", kernel, ours, 7.5, true}, aimReport{"far", "at least 7.5x", true, 110. / 14, 40, 110, 12, 10, 3}},
		{aim{"farther", kernel, ours, 8, true}, aimReport{"farther", "at least 8x", false, 110. / 14, 40, 110, 12, 10, 1}},
	} {
		if diff := cmp.Diff(test.want, test.aim.report()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestBreakEven(t *testing.T) {
	p := &population{members: 1000}
	floor := armOf("floor", nil, 10, 20)
	esp := &espSection{section: &section{}, population: p, spread: uniform}
	esp.arms = []*arm{armOf(armOneTick, floor, 20, 40), armOf(armNewTicks, floor, 30, 60)}
	b := &bench{
		taxes: []*espSection{esp},
		savings: []saving{
			{population: p},
			{p, armOf("kernel", floor, 500, 1000), armOf("absorbed", floor, 100, 200), armOf("answered", floor, 200, 400)},
		},
	}
	want := []breakEven{
		{SPIs: 1000, Spread: "uniform", Ticks: "one tick", Tax: 15, Absorbed: 600, Answered: 450,
			AbsorbedPackets: 40, AnsweredPackets: 30, AbsorbedRate: 2000, AnsweredRate: 1500},
		{SPIs: 1000, Spread: "uniform", Ticks: "new ticks", Tax: 30, Absorbed: 600, Answered: 450,
			AbsorbedPackets: 20, AnsweredPackets: 15, AbsorbedRate: 1000, AnsweredRate: 750},
	}
	if diff := cmp.Diff(want, b.breakEvens()); diff != "" {
		t.Error(diff)
	}
}

// A run whose floors move says so before its figures.
func TestInvalidRun(t *testing.T) {
	steady := armOf("floor", nil, 10, 10, 10, 10)
	moving := armOf("floor", nil, 10, 10, 14, 14)
	ours := armOf("ours", steady, 10, 90, 20, 300)
	for _, test := range []struct {
		name  string
		floor *arm
		steal float64
		stats string
		want  string
	}{
		{"steady", steady, 0.01, "0", ""},
		{"a floor that moves", moving, 0, "0", `"floor" spreads over 33%`},
		{"stolen", steady, 0.03, "0", "3.0% of the CPU's time was stolen"},
		{"programs are timed", steady, 0, "1", "bpf_stats_enabled is 1"},
	} {
		b := &bench{sections: []*section{{title: "frames", arms: []*arm{test.floor, ours}}}}
		b.machine = machine{Steal: test.steal, BPFStats: test.stats}
		r := b.report()
		var out bytes.Buffer
		if err := r.writeText(&out); err != nil {
			t.Fatal(err)
		}
		said := strings.Contains(out.String(), "INVALID RUN")
		if r.Valid != (test.want == "") || said == r.Valid || !strings.Contains(out.String(), test.want) {
			t.Errorf("%s: valid %t\n%s", test.name, r.Valid, &out)
		}
	}
}
