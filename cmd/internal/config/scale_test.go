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

// crowd is n connections for the same peers, each as another of us, with one suite of
// all and one of its own; n secrets of the two, n that closer ones hide and n that are for nobody.
func crowd(n int) []byte {
	var b strings.Builder
	b.WriteString(minimal + "connections:\n")
	words := [4]string{"aes128gcm16", "aes256gcm16", "prfsha256", "prfsha384"}
	for i := range n {
		var list []string
		for bit := i; bit > 0; bit /= len(words) {
			list = append(list, words[bit%len(words)])
		}
		fmt.Fprintf(&b, "  c%06d: {local: {auth: psk, id: v%d.example.org}, remote: {auth: psk, id: \"*.example.net\"}, proposals: [aes256-sha256-ecp256, %s], children: {net: {local_ts: [10.0.0.0/8]}}}\n",
			i, i, strings.Join(append(list, "x25519"), "-"))
	}
	b.WriteString("secrets:\n  - {id: a.example.net, psk_file: a.psk}\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {ids: [v%d.example.org, a.example.net], psk_file: a.psk}\n", i)
		fmt.Fprintf(&b, "  - {ids: [v%d.example.org, \"*.net\"], psk_file: a.psk}\n", i)
		fmt.Fprintf(&b, "  - {id: b%d.example.com, psk_file: a.psk}\n", i)
	}
	return []byte(b.String())
}

// cost is what decoding and checking takes, in allocations and in steps.
func cost(t *testing.T, src []byte, problems int) (allocations, steps float64) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l := newLoader(checks)
	l.decode(&source{name: "a.yaml"}, src)
	_, ps := l.finish()
	runtime.ReadMemStats(&after)
	if len(ps) < problems || problems == 0 && ps != nil {
		t.Fatalf("%d problems, want %d", len(ps), problems)
	}
	if len(l.cfg.Notes) > 5*(maxAlike+1) {
		t.Fatalf("%d notes", len(l.cfg.Notes))
	}
	return float64(after.Mallocs - before.Mallocs), float64(l.work)
}

// Nothing in a load compares everything with everything: twice the
// configuration costs about twice as much. A step too many in every
// comparison would make it four times.
func TestCostGrowsWithTheInput(t *testing.T) {
	for _, of := range []struct {
		name     string
		n        int
		config   func(n int) []byte
		problems int // for each
	}{
		{"right", 10_000, func(n int) []byte { return many(n, false) }, 0},
		{"wrong", 4_000, func(n int) []byte { return many(n, true) }, 5},
		{"crowd", 4_000, crowd, 0},
	} {
		allocations, steps := cost(t, of.config(of.n), of.problems*of.n)
		allocations2, steps2 := cost(t, of.config(2*of.n), of.problems*2*of.n)
		t.Logf("%s: %.0f → %.0f allocations, %.0f → %.0f steps", of.name, allocations, allocations2, steps, steps2)
		if r := allocations2 / allocations; r > 2.3 {
			t.Errorf("%s: %.2f times the allocations for twice the connections", of.name, r)
		}
		if r := steps2 / steps; r > 2.3 {
			t.Errorf("%s: %.2f times the steps for twice the connections", of.name, r)
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
