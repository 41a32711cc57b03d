package gateway

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/require"
)

// BenchmarkDecision compares three ways to see whether an SA's deadline has
// passed, in CPU time of one thread, on the same SAs in the same random order:
//
//	mapped: the evidence of its mapped entry, as the daemon reads it
//	lookup: the same entry by one bpf(2) system call, without any library
//	load:   its two words in plain memory of the same size, and no clock: the floor
//
// The arms take turns, and a ratio is the median of the rounds' ratios:
//
//	go test -run '^$' -bench Decision ./cmd/internal/gateway
func BenchmarkDecision(b *testing.B) {
	require.Have(b, "root", "netns", "bpf")
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("SAs=%d", n), func(b *testing.B) { benchDecision(b, n) })
	}
}

// arm is one way: it counts those of the SPIs that are due.
type arm struct {
	name string
	due  func(spis []uint32) int
	took []float64 // ns an SA, each round
}

// minRounds is how many there must be for a median.
const minRounds = 15

// perRound is how many SAs each arm looks at before it is the next one's turn.
const perRound = 20_000

func benchDecision(b *testing.B, n int) {
	instance, err := loader.Ensure(loader.Options{Instance: "bench", Capacity: n})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := errors.Join(instance.Remove(), instance.Close()); err != nil {
			b.Error(err)
		}
	}()
	set := instance.Maps()
	spis := install(b, set, n)
	arms := []*arm{mappedArm(set), lookupArm(b, instance), loadArm(set)}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	next := 0
	turn := func() {
		for i := range arms {
			arms[(next+i)%len(arms)].round(b, some(spis, next))
		}
		next++
	}
	for b.Loop() {
		turn()
	}
	for next < minRounds {
		turn()
	}
	b.ReportMetric(0, "ns/op")
	for _, a := range arms {
		b.ReportMetric(median(a.took), a.name+"-ns/SA")
	}
	b.ReportMetric(ratio(arms[1], arms[0]), "lookup/mapped")
	b.ReportMetric(ratio(arms[0], arms[2]), "mapped/load")
}

// install fills hot with SPIs that have just been heard of, but for one in a
// thousand, and gives them in another order than their slots'.
func install(b *testing.B, set *maps.Set, n int) []uint32 {
	slots := maps.NewSlots(n, 0, 1, rand.Reader)
	now := set.Clock.Now()
	tuple := maps.Tuple{Local: netip.AddrPortFrom(gatewayAddr, nattPort), Peer: netip.MustParseAddrPort("203.0.113.9:61201")}
	var spis []uint32
	for i := range n {
		spi, ok := slots.Alloc(now)
		if err := set.Hot.Install(spi, tuple); err != nil || !ok {
			b.Fatal(err)
		}
		if i%1000 != 0 {
			set.Stamp(spi, now)
		}
		spis = append(spis, spi)
	}
	return spis
}

// some are the SPIs of a round.
func some(spis []uint32, round int) []uint32 {
	size := min(perRound, len(spis))
	from := round * size % (len(spis) - size + 1)
	return spis[from : from+size]
}

func (a *arm) round(b *testing.B, spis []uint32) {
	began := threadTime()
	due := a.due(spis)
	a.took = append(a.took, float64(threadTime()-began)/float64(len(spis)))
	if want := len(spis) / 1000; due < want-1 || due > want+1 {
		b.Fatalf("%s: %d of %d are due", a.name, due, len(spis))
	}
}

// silent is the delay of the deadlines here.
const silent = int64(time.Hour)

func mappedArm(set *maps.Set) *arm {
	return &arm{name: "mapped", due: func(spis []uint32) (n int) {
		now := bootTime()
		for _, spi := range spis {
			if _, auth := set.Evidence(spi); auth+silent <= now {
				n++
			}
		}
		return n
	}}
}

// lookupAttr is what BPF_MAP_LOOKUP_ELEM takes.
type lookupAttr struct {
	fd         uint32
	_          uint32
	key, value uint64
	flags      uint64
}

func lookupArm(b *testing.B, i *loader.Instance) *arm {
	m, err := ebpf.LoadPinnedMap(filepath.Join(i.Dir(), bpf.MapHot), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Close() })
	key, e := new(uint32), new(bpf.HotEntry)
	var pins runtime.Pinner
	pins.Pin(key)
	pins.Pin(e)
	b.Cleanup(pins.Unpin)
	attr := &lookupAttr{fd: uint32(m.FD()), key: uint64(uintptr(unsafe.Pointer(key))), value: uint64(uintptr(unsafe.Pointer(e)))}
	clock := i.Maps().Clock
	return &arm{name: "lookup", due: func(spis []uint32) (n int) {
		now := bootTime()
		for _, spi := range spis {
			*key = maps.SlotOf(spi)
			_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_LOOKUP_ELEM, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
			if errno != 0 || e.Spi != spi {
				return -1
			}
			at := clock.Now()
			_, auth := clock.BootAt(e.Seen, at), clock.BootAt(e.Auth, at)
			if auth+silent <= now {
				n++
			}
		}
		return n
	}}
}

func loadArm(set *maps.Set) *arm {
	words := make([]uint64, 2*set.Hot.Slots())
	set.Hot.Each(func(slot, spi, seen, auth uint32) {
		words[2*slot], words[2*slot+1] = uint64(spi)|uint64(seen)<<32, uint64(auth)
	})
	return &arm{name: "load", due: func(spis []uint32) (n int) {
		for _, spi := range spis {
			i := 2 * maps.SlotOf(spi)
			if uint32(words[i]) == spi && words[i+1] == 0 {
				n++
			}
		}
		return n
	}}
}

// threadTime is what this thread has used of a CPU: another process that takes
// the CPU away does not count.
func threadTime() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return t.Nano()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// ratio is the median of the rounds' ratios.
func ratio(a, to *arm) float64 {
	var r []float64
	for i := range a.took {
		r = append(r, a.took[i]/to.took[i])
	}
	return median(r)
}
