package esp

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestWindow sends numbers in turn and names those that are refused.
func TestWindow(t *testing.T) {
	for _, v := range []struct {
		name string
		size int
		seqs []uint64
		want string // a letter each: t taken, r refused
	}{
		{"in order", 64, []uint64{1, 2, 3}, "ttt"},
		{"0 is never sent", 64, []uint64{0, 1, 0}, "rtr"},
		{"twice", 64, []uint64{1, 1, 2, 1, 2}, "trtrr"},
		{"left edge", 64, []uint64{64, 1, 65, 1, 2, 66, 2, 3}, "tttrttrt"},
		{"one left of the window", 64, []uint64{100, 36, 37, 37}, "trtr"},
		{"reordered", 64, []uint64{5, 3, 4, 1, 2, 3}, "tttttr"},
		{"a jump by the window", 64, []uint64{1, 65, 1, 2, 2}, "ttrtr"},
		{"a jump by the ring", 64, []uint64{1, 129, 66, 65, 66, 128}, "tttrrt"},
		{"a jump far on", 64, []uint64{1, 1 << 31, 1<<31 - 63, 1<<31 - 64, 1 << 31}, "tttrr"},
		{"to the last without ESN", 64, []uint64{1<<32 - 2, 1<<32 - 1, 1<<32 - 1, 1<<32 - 2, 5}, "ttrrr"},
		{"the last of all", 64, []uint64{1<<64 - 2, 1<<64 - 1, 1<<64 - 1, 1<<64 - 64, 1<<64 - 65}, "ttrtr"},
		{"the widest", 1024, []uint64{2000, 977, 976, 977, 1999}, "ttrrt"},
		{"an odd size", 100, []uint64{1000, 901, 900, 901, 1001, 901, 902}, "ttrrtrt"},
		{"1 means 64", 1, []uint64{100, 37, 36}, "ttr"},
		{"5000 means 1024", 5000, []uint64{5000, 3977, 3976}, "ttr"},
		{"negative means 64", -1, []uint64{100, 37, 36}, "ttr"},
	} {
		w := newWindow(v.size)
		got := ""
		for _, seq := range v.seqs {
			if !w.fresh(seq) {
				got += "r"
				continue
			}
			w.advance(seq)
			got += "t"
		}
		if got != v.want {
			t.Errorf("%s: %v: %s, want %s", v.name, v.seqs, got, v.want)
		}
	}
}

// TestExtend is RFC 4303 appendix A2.2, at the edges of both of its cases.
func TestExtend(t *testing.T) {
	const sub = 1 << 32
	for _, v := range []struct {
		name string
		top  uint64
		low  uint32
		want uint64
		ok   bool
	}{
		{"the first", 0, 1, 1, true},
		{"left of the first", 0, sub - 1, 0, false},
		{"left of the first, at the edge", 0, sub - 63, 0, false},
		{"as far on as can be", 0, sub - 64, sub - 64, true},
		{"in one subspace, after", 1000, 1001, 1001, true},
		{"in one subspace, at the left edge", 1000, 937, 937, true},
		{"in one subspace, left of it", 1000, 936, sub + 936, true},
		{"in one subspace, 0", 1000, 0, sub, true},
		{"at the border of the cases", 63, 0, 0, true},
		{"before the border of the cases", 62, 0, 0, true},
		{"the wrap", sub - 1, 0, sub, true},
		{"the wrap with a gap", sub - 1, 500, sub + 500, true},
		{"at the end of a subspace", sub - 1, sub - 64, sub - 64, true},
		{"at the end, left of the window", sub - 1, sub - 65, 2*sub - 65, true},
		{"just wrapped, from before", sub, sub - 1, sub - 1, true},
		{"just wrapped, the left edge", sub, sub - 63, sub - 63, true},
		{"just wrapped, left of the window", sub, sub - 64, 2*sub - 64, true},
		{"wrapped by 62, the left edge", sub + 62, sub - 1, sub - 1, true},
		{"wrapped by 63", sub + 63, sub - 1, 2*sub - 1, true},
		{"high up", 7*sub + 100, 101, 7*sub + 101, true},
		{"high up, the next", 7*sub + 100, 36, 8*sub + 36, true},
		{"the last subspace", (sub-1)*sub + 100, 101, (sub-1)*sub + 101, true},
		{"after the last subspace", (sub-1)*sub + 100, 36, 0, false},
		{"the last subspace from before", (sub - 1) * sub, sub - 1, (sub-1)*sub - 1, true},
	} {
		w := newWindow(64)
		w.top = v.top
		got, ok := w.extend(v.low)
		if ok != v.ok || ok && got != v.want {
			t.Errorf("%s: top %#x, low %#x: %#x, %v; want %#x, %v", v.name, v.top, v.low, got, ok, v.want, v.ok)
		}
	}
}

// oracle is the window as one would first think of it.
type oracle struct {
	size, top uint64
	seen      map[uint64]bool
}

func (o *oracle) take(seq uint64) bool {
	if seq == 0 || o.seen[seq] || seq+o.size <= o.top {
		return false
	}
	o.seen[seq] = true
	o.top = max(o.top, seq)
	return true
}

// TestWindowOracle loses, repeats and reorders numbers, and holds the window
// to the oracle, with whole numbers and with guessed ones.
func TestWindowOracle(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		size := 64 + r.IntN(961)
		w, esn := newWindow(size), newWindow(size)
		o := oracle{size: uint64(size), seen: map[uint64]bool{}}
		next := uint64(1)
		if seed%2 == 1 { // across a subspace
			next = 3<<32 - uint64(r.IntN(3000))
			w.top, esn.top, o.top = next-1, next-1, next-1
			o.seen[next-1] = true
			w.advance(next - 1)
			esn.advance(next - 1)
		}
		for range 5000 {
			next += uint64(r.IntN(3))
			if r.IntN(100) == 0 {
				next += uint64(r.IntN(3 * size))
			}
			seq := next - min(next, uint64(r.IntN(r.IntN(2*size)+1)))
			want := o.take(seq)
			if w.fresh(seq) != want {
				t.Fatalf("seed %d: %d with top %d: taken %v", seed, seq, w.top, !want)
			}
			guess, ok := esn.extend(uint32(seq))
			if inside := seq+uint64(size) > esn.top; inside && seq > 0 && (!ok || guess != seq) {
				t.Fatalf("seed %d: %#x with top %#x is guessed %#x", seed, seq, esn.top, guess)
			}
			if want {
				w.advance(seq)
				esn.advance(seq)
			}
		}
	}
}

// TestLossyPath sends real packets over a path that loses, repeats, delays and
// alters them: each comes through at most once, none that is altered, and all
// that the window allows.
func TestLossyPath(t *testing.T) {
	for seed, name := range suites {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 2))
			first := uint64(1)
			if strings.HasSuffix(name, "-esn") {
				first = 1<<32 - 500
			}
			out, in := pair(t, name, 128, first)
			in.window.top = first - 1
			o := oracle{size: 128, top: first - 1, seen: map[uint64]bool{}}
			type sent struct {
				seq    uint64
				packet []byte
			}
			var path []sent
			for range 3000 {
				seq := out.Next()
				path = append(path, sent{seq, seal(t, out, ping4())})
				if len(path) > 200 {
					path = path[1:] // lost
				}
				p := path[r.IntN(len(path))]
				if r.IntN(4) == 0 {
					p = path[len(path)-1]
				}
				if r.IntN(5) == 0 {
					bad := append([]byte(nil), p.packet...)
					bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
					if _, authenticated, err := in.Open(nil, bad, 0); authenticated || err == nil {
						t.Fatalf("%d altered: %v", p.seq, err)
					}
				}
				want := o.take(p.seq)
				_, authenticated, err := in.Open(nil, p.packet, 0)
				if authenticated != want || (err == nil) != want {
					t.Fatalf("%d with top %d: %v, want it taken: %v", p.seq, o.top, err, want)
				}
			}
		})
	}
}

// TestOpenESN carries the upper half from one subspace into the next, and
// shows that it is part of what is authenticated.
func TestOpenESN(t *testing.T) {
	for _, name := range []string{"aes256gcm16-esn", "chacha20poly1305-esn", "aes192-sha384-esn"} {
		out, in := pair(t, name, 64, 1<<32-2)
		in.window.top = 1<<32 - 3
		for range 5 {
			if _, _, err := in.Open(nil, seal(t, out, ping4()), 0); err != nil {
				t.Fatalf("%s: before %#x: %v", name, out.Next(), err)
			}
		}
		if in.window.top != 1<<32+2 {
			t.Errorf("%s: top %#x", name, in.window.top)
		}
		wrong, _ := pair(t, name, 64, 5<<32+3)
		if _, authenticated, err := in.Open(nil, seal(t, wrong, ping4()), 0); err != ErrICV || authenticated {
			t.Errorf("%s: another upper half: %v", name, err)
		}
		if in.window.top != 1<<32+2 {
			t.Errorf("%s: a packet of nobody moved the window to %#x", name, in.window.top)
		}
	}
}

// TestOpenOrder: what is not authenticated leaves the window as it was, at any
// number; what is, moves it even if it is refused for its content.
func TestOpenOrder(t *testing.T) {
	for _, name := range suites {
		out, in := pair(t, name, 64, 10)
		seal10 := seal(t, out, ping4())
		state := fmt.Sprint(in.window)
		for _, seq := range []byte{1, 10, 200} {
			forged := append([]byte(nil), seal10...)
			forged[7], forged[len(forged)-1] = seq, forged[len(forged)-1]^1
			if _, _, err := in.Open(nil, forged, 0); err != ErrICV {
				t.Errorf("%s: forged %d: %v", name, seq, err)
			}
		}
		if fmt.Sprint(in.window) != state {
			t.Errorf("%s: forged packets moved the window", name)
		}
		in.remote = nil
		if _, authenticated, err := in.Open(nil, seal10, 0); err != ErrSelector || !authenticated || in.window.top != 10 {
			t.Errorf("%s: %v, %v, top %d", name, authenticated, err, in.window.top)
		}
	}
}
