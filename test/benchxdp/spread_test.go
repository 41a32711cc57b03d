package main

import (
	"math"
	"testing"

	"github.com/ikepulse/ikepulse/bpf"
)

// The product's own counts of packets tell how often each SPI was chosen.
func TestSpread(t *testing.T) {
	const members, frames = 1000, 400_000
	for _, test := range []struct {
		spread
		probability func(rank float64) float64
	}{
		{uniform, func(float64) float64 { return 1. / members }},
		{zipf, func(rank float64) float64 { return math.Log2((rank+1)/rank) / math.Log2(members) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			for i, packets := range chosen(t, test.spread, members, frames) {
				p := test.probability(float64(i + 1))
				want, deviation := frames*p, math.Sqrt(frames*p*(1-p))
				// The curve between powers of two is off by up to 2 %.
				if off := math.Abs(float64(packets) - want); off > 6*deviation+0.02*want {
					t.Errorf("rank %d: %d frames, want %.0f", i+1, packets, want)
				}
			}
		})
	}
}

// chosen returns how often each member's SPI was seen.
func chosen(t *testing.T, how spread, count, frames int) (packets []uint64) {
	t.Helper()
	r := testRig(t)
	p, err := r.populate(count)
	if err != nil {
		t.Fatal(err)
	}
	product, err := r.product(p, variant{account: true})
	if err != nil {
		t.Fatal(err)
	}
	r.send(t, p, how, product.XDP, frames)
	entries := members(t, p, p.others[bpf.MapSAs], bpf.SAEntry{})
	for i := range count {
		packets = append(packets, entries[p.spiOf(uint32(i))&bpf.SlotField].Packets)
	}
	return packets
}
