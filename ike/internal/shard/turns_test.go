package shard

import (
	"net/netip"
	"slices"
	"testing"
)

// Sources take turns, each with its jobs in their order; who comes later waits
// for one job of each of the others.
func TestTurns(t *testing.T) {
	var q turns
	addr := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}) }
	all := func(*job) bool { return true }
	push := func(source, spi int) { q.push(&job{source: addr(source), spi: uint64(spi)}) }
	take := func(n int, counts func(*job) bool) (got []uint64) {
		for range n {
			j := q.first(counts)
			if j == nil {
				break
			}
			got = append(got, j.spi)
			q.pop()
		}
		return got
	}
	for i := range 5 {
		push(1, 10+i)
	}
	push(2, 20)
	push(2, 21)
	if got := take(3, all); !slices.Equal(got, []uint64{10, 20, 11}) {
		t.Errorf("taken %v", got)
	}
	push(3, 30)
	if got := take(3, all); !slices.Equal(got, []uint64{21, 12, 30}) {
		t.Errorf("taken %v", got)
	}
	push(2, 22)
	if got := take(9, func(j *job) bool { return j.spi != 13 && j.spi != 22 }); !slices.Equal(got, []uint64{14}) {
		t.Errorf("of those that count: %v", got)
	}
	if q.first(all) != nil || len(q.jobs) != 0 || q.sources.len() != 0 {
		t.Errorf("%d sources are left", len(q.jobs))
	}
}
