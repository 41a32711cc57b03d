package config

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// many is a configuration of n connections, a pool and a secret each. With
// wrong set, each also holds an unknown key, a misspelt pool, a secret's
// identity that is there twice and a pool that overlaps the one before.
func many(n int, wrong bool) []byte {
	var b strings.Builder
	b.WriteString(minimal + "defaults: {local: {auth: psk, id: vpn.example.org}}\nconnections:\n")
	for i := range n {
		fmt.Fprintf(&b, "  c%06d: {remote: {auth: psk, id: c%d.example.org}, pools: [p%06d], children: {net: {local_ts: [10.0.0.0/8]}}}\n", i, i, i)
		if wrong {
			fmt.Fprintf(&b, "  w%06d: {remote: {auth: psk, id: c%d.example.org}, pools: [q%06d], childs: {}}\n", i, i, i)
		}
	}
	b.WriteString("pools:\n")
	for i := range n {
		fmt.Fprintf(&b, "  p%06d: {addresses: \"2001:db8:%x:%x::/64\"}\n", i, i>>16, i&0xffff)
		if wrong {
			fmt.Fprintf(&b, "  o%06d: {addresses: \"2001:db8:%x:%x::/80\"}\n", i, i>>16, i&0xffff)
		}
	}
	b.WriteString("secrets:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {id: c%d.example.org, psk_file: a.psk}\n", i)
		if wrong {
			fmt.Fprintf(&b, "  - {id: c%d.example.org, psk_file: a.psk}\n", i)
		}
	}
	return []byte(b.String())
}

// cost is what decoding and checking takes, in allocations and in steps.
func cost(t *testing.T, n int, wrong bool) (allocations, steps float64) {
	t.Helper()
	src := many(n, wrong)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l := newLoader(checks)
	l.decode(&source{name: "a.yaml"}, src)
	_, ps := l.finish()
	runtime.ReadMemStats(&after)
	if wrong && len(ps) < 5*n || !wrong && ps != nil {
		t.Fatalf("%d problems with %d connections", len(ps), n)
	}
	return float64(after.Mallocs - before.Mallocs), float64(l.work)
}

// Nothing in a load compares everything with everything: twice the
// configuration costs about twice as much. A step too many in every
// comparison would make it four times.
func TestCostGrowsWithTheInput(t *testing.T) {
	for wrong, n := range map[bool]int{false: 10_000, true: 4_000} {
		allocations, steps := cost(t, n, wrong)
		allocations2, steps2 := cost(t, 2*n, wrong)
		t.Logf("wrong %v: %.0f → %.0f allocations, %.0f → %.0f steps", wrong, allocations, allocations2, steps, steps2)
		if r := allocations2 / allocations; r > 2.3 {
			t.Errorf("wrong %v: %.2f times the allocations for twice the connections", wrong, r)
		}
		if r := steps2 / steps; r > 2.3 {
			t.Errorf("wrong %v: %.2f times the steps for twice the connections", wrong, r)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	src := many(1000, false)
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		l := newLoader(checks)
		l.decode(&source{name: "a.yaml"}, src)
		l.finish()
	}
}
