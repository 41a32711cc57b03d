package maps

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ikepulse/ikepulse/bpf"
)

var (
	here    = netip.MustParseAddrPort("198.51.100.1:4500")
	there   = netip.MustParseAddrPort("203.0.113.9:61201")
	behind  = Tuple{here, there}
	rebound = Tuple{here, netip.MustParseAddrPort("203.0.113.9:24884")}
)

func memoryHot(slots int) *Hot { return &Hot{words: make(words, slots*wordsPerEntry), writable: true} }

// stored decodes the words as the C type that bpf2go mirrors.
func stored(t testing.TB, h *Hot, slot int) (e bpf.HotEntry) {
	t.Helper()
	var b []byte
	for _, w := range h.words[slot*wordsPerEntry : (slot+1)*wordsPerEntry] {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	if n, err := binary.Decode(b, binary.NativeEndian, &e); err != nil || n != len(b) {
		t.Fatalf("an entry of %d bytes, the view has %d: %v", n, len(b), err)
	}
	return e
}

// xdpSaw does what the kernel does to seen.
func xdpSaw(h *Hot, slot int, tick uint32) {
	i := slot * wordsPerEntry
	h.words.store(i, word(low(h.words.load(i)), tick))
}

// The two words of the view must be the four fields of the ABI.
func TestHotLayout(t *testing.T) {
	h := memoryHot(8)
	spi := uint32(7)<<SlotBits | 5
	if err := h.Install(spi, behind); err != nil {
		t.Fatal(err)
	}
	e := stored(t, h, 5)
	key := behind.key()
	if e.Spi != spi || e.Seen != 0 || e.Auth != 0 || e.TupleHash != key.Hash() || e.TupleHash == 0 {
		t.Errorf("installed: %+v", e)
	}
	xdpSaw(h, 5, 11)
	h.Stamp(spi, 12)
	if err := h.Move(spi, rebound); err != nil {
		t.Fatal(err)
	}
	moved := rebound.key()
	if e = stored(t, h, 5); e.Seen != 11 || e.Auth != 12 || e.TupleHash != moved.Hash() {
		t.Errorf("stamped and moved: %+v", e)
	}
	if seen, auth, ok := h.Read(spi); seen != 11 || auth != 12 || !ok {
		t.Errorf("Read = %d, %d, %v", seen, auth, ok)
	}
	if err := h.Remove(spi); err != nil {
		t.Fatal(err)
	}
	if e = stored(t, h, 5); e != (bpf.HotEntry{}) {
		t.Errorf("removed: %+v", e)
	}
}

func TestHotRefuses(t *testing.T) {
	h := memoryHot(8)
	spi, other := uint32(7)<<SlotBits|5, uint32(8)<<SlotBits|5
	if err := h.Install(spi, behind); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		try  func() error
		want error
	}{
		{"the same again", func() error { return h.Install(spi, behind) }, ErrSlotTaken},
		{"another in its slot", func() error { return h.Install(other, behind) }, ErrSlotTaken},
		{"no tag", func() error { return h.Install(6, behind) }, ErrNoSlot},
		{"zero", func() error { return h.Install(0, behind) }, ErrNoSlot},
		{"slot past the end", func() error { return h.Install(1<<SlotBits|8, behind) }, ErrNoSlot},
		{"remove another", func() error { return h.Remove(other) }, ErrNotTracked},
		{"remove nothing", func() error { return h.Remove(1<<SlotBits | 3) }, ErrNotTracked},
		{"remove zero", func() error { return h.Remove(0) }, ErrNotTracked},
		{"remove past the end", func() error { return h.Remove(1<<SlotBits | 8) }, ErrNotTracked},
		{"move another", func() error { return h.Move(other, behind) }, ErrNotTracked},
		{"move zero", func() error { return h.Move(0, behind) }, ErrNotTracked},
		{"move past the end", func() error { return h.Move(1<<SlotBits|8, behind) }, ErrNotTracked},
		{"remove", func() error { return h.Remove(spi) }, nil},
		{"remove a second time", func() error { return h.Remove(spi) }, ErrNotTracked},
	} {
		if err := c.try(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, _, ok := h.Read(0); ok {
		t.Error("SPI 0 reads as installed: it is the mark of a free slot")
	}
}

// What XDP stamps between looking up an SPI and its removal must not look like
// a packet of the slot's next SPI; nor must user space stamp a stranger.
func TestHotLateStamps(t *testing.T) {
	h := memoryHot(8)
	first, next := uint32(7)<<SlotBits|5, uint32(8)<<SlotBits|5
	if err := errors.Join(h.Install(first, behind), h.Remove(first)); err != nil {
		t.Fatal(err)
	}
	xdpSaw(h, 5, 99)
	h.Stamp(first, 98)
	if e := stored(t, h, 5); e.Auth != 0 {
		t.Errorf("a stamp for an SPI that is gone was stored: %+v", e)
	}
	h.Each(func(_, spi, _, _ uint32) { t.Errorf("%08x in a free slot", spi) })
	if err := h.Install(next, rebound); err != nil {
		t.Fatal(err)
	}
	if seen, auth, ok := h.Read(next); seen != 0 || auth != 0 || !ok {
		t.Errorf("fresh SPI reads %d, %d, %v", seen, auth, ok)
	}
	h.Stamp(first, 97)
	if _, auth, _ := h.Read(next); auth != 0 {
		t.Error("the old SPI's stamp landed at the new one")
	}
}

func TestHotEach(t *testing.T) {
	h := memoryHot(16)
	want := map[uint32]uint32{2: 3<<SlotBits | 2, 9: 1<<SlotBits | 9, 15: 1023<<SlotBits | 15}
	for slot, spi := range want {
		if err := h.Install(spi, behind); err != nil {
			t.Fatal(err)
		}
		xdpSaw(h, int(slot), slot+100)
		h.Stamp(spi, slot+200)
	}
	last := -1
	h.Each(func(slot, spi, seen, auth uint32) {
		if want[slot] != spi || seen != slot+100 || auth != slot+200 || int(slot) <= last {
			t.Errorf("slot %d: %08x, %d, %d", slot, spi, seen, auth)
		}
		last = int(slot)
		delete(want, slot)
	})
	if len(want) != 0 {
		t.Errorf("missed %v", want)
	}
}

// A reader must never get the stamps of one SPI under the name of another.
// Slots change hands more than a million times, no SPI returns, and what is stamped is
// made of the SPI. There are many more readers than CPUs: they get interrupted
// in the middle of an entry and find it changed when they go on.
func TestHotReadersNeverMix(t *testing.T) {
	const slots, rounds = 1 << 14, 1_200_000
	h := memoryHot(slots)
	stampOf := func(spi uint32) uint32 { return spi ^ 0x5a5a5a5a }
	spiOf := func(round uint32) uint32 { return (round/slots+1)<<SlotBits | round%slots }
	var present atomic.Uint32 // round
	var done atomic.Bool
	var hits atomic.Int64
	check := func(spi, seen, auth uint32) {
		hits.Add(1)
		if auth != 0 && auth != stampOf(spi) {
			t.Errorf("%08x: auth %08x is %08x's", spi, auth, stampOf(auth))
		}
		if seen != 0 && seen != ^spi {
			t.Errorf("%08x: seen %08x is %08x's", spi, seen, ^seen)
		}
	}
	var readers sync.WaitGroup
	for range 4 * runtime.NumCPU() {
		readers.Go(func() {
			for !done.Load() && !t.Failed() {
				round := present.Load()
				for range 100 { // where the writer is
					if spi, seen, auth := h.entry(int(round%slots) * wordsPerEntry); spi != 0 {
						check(spi, seen, auth)
					}
				}
				if seen, auth, ok := h.Read(spiOf(round)); ok {
					check(spiOf(round), seen, auth)
				}
			}
		})
	}
	for round := range uint32(rounds) {
		present.Store(round)
		if round >= slots {
			if err := h.Remove(spiOf(round - slots)); err != nil {
				t.Fatal(err)
			}
		}
		spi := spiOf(round)
		if err := h.Install(spi, behind); err != nil {
			t.Fatal(err)
		}
		h.Stamp(spi, stampOf(spi))
		xdpSaw(h, int(round%slots), ^spi)
	}
	done.Store(true)
	readers.Wait()
	h.Each(func(_, spi, seen, auth uint32) { check(spi, seen, auth) })
	if hits.Load() < rounds/10 {
		t.Errorf("the readers met %d entries: nothing was tested", hits.Load())
	}
}

func TestStampStoresOnlyNewTicks(t *testing.T) {
	h := memoryHot(8)
	spi := uint32(7)<<SlotBits | 5
	if err := h.Install(spi, behind); err != nil {
		t.Fatal(err)
	}
	h.Stamp(spi, 5)
	h.Stamp(spi, 6)
	if _, auth, _ := h.Read(spi); auth != 6 {
		t.Errorf("auth = %d after stamps 5 and 6", auth)
	}
	if n := testing.AllocsPerRun(100, func() { h.Stamp(spi, 7) }); n != 0 {
		t.Errorf("a stamp allocates %v times", n)
	}
}

func BenchmarkHotStampSameTick(b *testing.B) {
	h := memoryHot(8)
	spi := uint32(7)<<SlotBits | 5
	if err := h.Install(spi, behind); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		h.Stamp(spi, 5)
	}
}

func BenchmarkHotEach(b *testing.B) {
	h := memoryHot(1 << 20)
	for b.Loop() {
		h.Each(func(_, _, _, _ uint32) {})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(1<<20), "ns/slot")
}
