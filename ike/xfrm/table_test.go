package xfrm

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func set(sa SA) event   { return event{kind: eventSet, sa: sa} }
func ended(k Key) event { return event{kind: eventGone, sa: SA{Key: k}} }

func with(sa SA, change func(*SA)) SA { change(&sa); return sa }

// The changes that events make, one list an event.
func TestTable(t *testing.T) {
	busy := with(inbound, func(s *SA) { s.Packets += 100 })
	rebound := with(inbound, func(s *SA) { s.SrcPort = 24884 })
	comp := with(inbound, func(s *SA) { s.Proto = 108 })
	grown := with(inbound, func(s *SA) { s.Key = larval.Key })
	moved := Mapping{Key: inbound.Key, Old: inbound.Peer(), New: elsewhere}
	tests := []struct {
		name   string
		events []event
		want   [][]Change
	}{
		{"added, busy, changed, gone",
			[]event{set(inbound), set(busy), set(rebound), ended(inbound.Key)},
			[][]Change{{{Kind: Added, SA: inbound}}, nil, {{Kind: Updated, SA: rebound, Old: busy}}, {{Kind: Removed, SA: rebound}}}},
		{"gone without having been known", []event{ended(inbound.Key)}, [][]Change{nil}},
		{"replaced under the same SPI, as strongSwan does when a peer moves",
			[]event{set(inbound), ended(inbound.Key), set(rebound)},
			[][]Change{{{Kind: Added, SA: inbound}}, {{Kind: Removed, SA: inbound}}, {{Kind: Added, SA: rebound}}}},
		{"larval, then whole", []event{set(larval), set(grown)}, [][]Change{nil, {{Kind: Added, SA: grown}}}},
		{"larval, then expired", []event{set(larval), ended(larval.Key)}, [][]Change{nil, nil}},
		{"whole, then larval", []event{set(grown), set(larval)}, [][]Change{{{Kind: Added, SA: grown}}, {{Kind: Removed, SA: grown}}}},
		{"neither ESP nor AH", []event{set(comp), ended(comp.Key)}, [][]Change{nil, nil}},
		{"flush of one protocol",
			[]event{set(inbound), set(outboundV6), {kind: eventFlush, proto: AH}},
			[][]Change{{{Kind: Added, SA: inbound}}, {{Kind: Added, SA: outboundV6}}, {{Kind: Removed, SA: outboundV6}}}},
		{"flush of all, in the order of the keys",
			[]event{set(outboundV6), set(inbound), {kind: eventFlush}},
			[][]Change{{{Kind: Added, SA: outboundV6}}, {{Kind: Added, SA: inbound}}, {{Kind: Removed, SA: inbound}, {Kind: Removed, SA: outboundV6}}}},
		{"heard from elsewhere",
			[]event{{kind: eventMoved, mapping: moved}, set(inbound), {kind: eventMoved, mapping: moved}},
			[][]Change{nil, {{Kind: Added, SA: inbound}}, {{Kind: Moved, SA: inbound, Mapping: moved}}}},
		{"heard before the SPI was given out anew, and told after the dump that found it larval",
			[]event{set(with(inbound, func(s *SA) { s.Larval = true })), {kind: eventMoved, mapping: moved}, ended(inbound.Key)}, [][]Change{nil, nil, nil}},
		{"nothing", []event{{}, {kind: eventResync}}, [][]Change{nil, nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := newTable()
			for i, e := range tt.events {
				if diff := cmp.Diff(tt.want[i], table.apply(e), compare); diff != "" {
					t.Errorf("event %d (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

// A dump after lost events gives what differs, what went first.
func TestTableReplace(t *testing.T) {
	rebound := with(inbound, func(s *SA) { s.SrcPort = 24884 })
	table := newTable()
	table.apply(set(inbound))
	table.apply(set(outboundV6))
	other := with(inbound, func(s *SA) { s.SPI = 1 })
	want := []Change{{Kind: Removed, SA: outboundV6}, {Kind: Added, SA: other}, {Kind: Updated, SA: rebound, Old: inbound}}
	if diff := cmp.Diff(want, table.replace([]SA{other, rebound, larval}), compare); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := table.replace([]SA{rebound, other, larval}); got != nil {
		t.Errorf("the same dump again: %v", got)
	}
}

// Events that are older than a dump, but read after it, leave what the dump
// says, as long as none is missing.
func TestTableStaleEvents(t *testing.T) {
	history := []event{set(inbound), ended(inbound.Key), set(outboundV6), ended(outboundV6.Key), set(outboundV6)}
	for dumped := range len(history) + 1 {
		kernel := newTable()
		for _, e := range history[:dumped] {
			kernel.apply(e)
		}
		var dump []SA
		for _, sa := range kernel.states {
			dump = append(dump, sa)
		}
		table := newTable()
		table.replace(dump)
		for _, e := range history { // all of them were waiting
			table.apply(e)
		}
		if _, has := table.states[outboundV6.Key]; !has || len(table.states) != 1 {
			t.Errorf("dumped after %d events: %v", dumped, table.states)
		}
	}
}
