package main

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/test/require"
)

func testRig(t *testing.T) *rig {
	t.Helper()
	require.Have(t, "root", "bpf")
	r, err := newRig()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// send runs frames of ESP through a program.
func (r *rig) send(t *testing.T, p *population, how spread, program *ebpf.Program, frames int) {
	t.Helper()
	m := mutator{program: benchProgMutateEsp, constants: how.constants(p), frame: esp()}
	head, err := r.before(m, program)
	if err != nil {
		t.Fatal(err)
	}
	verdict, err := head.Run(&ebpf.RunOptions{Data: m.frame, Repeat: uint32(frames)})
	if err != nil || bpf.Verdict(verdict) != bpf.VerdictPass {
		t.Fatalf("%v, %v", bpf.Verdict(verdict), err)
	}
}

// members returns the entries of all members by slot.
func members[V any](t *testing.T, p *population, m *ebpf.Map, _ V) map[uint32]V {
	t.Helper()
	all := make(map[uint32]V)
	for i := range p.members {
		slot := p.spiOf(uint32(i)) & bpf.SlotField
		var v V
		if err := m.Lookup(slot, &v); err != nil {
			t.Fatal(err)
		}
		all[slot] = v
	}
	if len(all) != p.members {
		t.Fatalf("%d members share %d slots", p.members, len(all))
	}
	return all
}

// stored returns what the hash has for each member.
func stored(t *testing.T, p *population) (all []uint64) {
	t.Helper()
	var key benchTextbookKey
	var entry benchTextbookEntry
	iter := p.hash.Iterate()
	for iter.Next(&key, &entry) {
		all = append(all, entry.Last)
	}
	if err := iter.Err(); err != nil || len(all) != p.members {
		t.Fatalf("%d entries of %d, %v", len(all), p.members, err)
	}
	return all
}

// What the product is compared with does its work: a time of each SPI, of the
// right clock, or a load and no more.
func TestSmokeOthers(t *testing.T) {
	const count, frames = 100, 5000
	for _, test := range []struct {
		name  string
		check func(t *testing.T, p *population, from, to time.Duration)
	}{
		{benchProgParseOnly, untouched},
		{benchProgLimitLoad, untouched},
		{benchProgLimitStore, func(t *testing.T, p *population, _, _ time.Duration) {
			for slot, entry := range members(t, p, p.limit, benchLimitEntry{}) {
				if entry.Seen == 0 || entry.Seen > frames {
					t.Errorf("slot %d: tick %d", slot, entry.Seen)
				}
			}
		}},
		{benchProgTextbookKtime, func(t *testing.T, p *population, from, to time.Duration) {
			for _, last := range stored(t, p) {
				if at := time.Duration(last); at < from || at > to {
					t.Errorf("seen %v after boot, not between %v and %v", at, from, to)
				}
			}
		}},
		{benchProgTextbookTick, func(t *testing.T, p *population, _, to time.Duration) {
			for _, last := range stored(t, p) {
				// Jiffies begin 5 minutes before they wrap.
				if last == 0 || last > 1<<32/256+uint64(to/time.Millisecond) {
					t.Errorf("seen in tick %d, %v after boot", last, to)
				}
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := testRig(t)
			p, err := r.populate(count)
			if err != nil {
				t.Fatal(err)
			}
			program, err := r.program(test.name, settings{benchVarSlotMask: p.slotMask()},
				map[string]*ebpf.Map{benchMapLimit: p.limit, benchMapTextbook: p.hash})
			if err != nil {
				t.Fatal(err)
			}
			from := time.Duration(clock(unix.CLOCK_MONOTONIC))
			r.send(t, p, uniform, program, frames)
			test.check(t, p, from, time.Duration(clock(unix.CLOCK_MONOTONIC)))
			if s, err := r.shared(); err != nil || s.Missed != 0 || s.Tick != frames {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

func untouched(t *testing.T, p *population, _, _ time.Duration) {
	for slot, entry := range members(t, p, p.limit, benchLimitEntry{}) {
		if entry.Seen != 0 {
			t.Errorf("slot %d: stored %d", slot, entry.Seen)
		}
	}
	for _, last := range stored(t, p) {
		if last != 0 {
			t.Errorf("stored %d", last)
		}
	}
}
