package maps

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/ikepulse/ikepulse/bpf"
)

// What Track, Untrack and Move say of an SPI that is not where they need it.
var (
	ErrNoSlot     = errors.New("it carries no slot of these maps")
	ErrSlotTaken  = errors.New("its slot is taken")
	ErrNotTracked = errors.New("it is not tracked")
	ErrReadOnly   = errors.New("the maps are opened for reading")
)

// Hot is the mapped view of ikepulse_hot: an entry of two words an SPI, read
// and written without a system call.
//
//	word 0: SPI (low), tick last seen (high)
//	word 1: tick last authenticated (low), tuple hash (high)
//
// The kernel writes seen, we write the rest. Reads are safe from any goroutine
// and process. Install, Move, Stamp and Remove of one SPI belong to one
// goroutine at a time: the shard that owns it.
type Hot struct {
	words    words
	mapped   bool // from a map, else they are this process's own
	writable bool // else a store would fault
}

const wordsPerEntry = 2

// newHot maps the entries of m.
func newHot(m *ebpf.Map, writable bool) (*Hot, error) {
	w, err := mapWords(m.FD(), int(m.MaxEntries())*wordsPerEntry, writable)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", bpf.MapHot, err)
	}
	return &Hot{words: w, mapped: true, writable: writable}, nil
}

// Close unmaps; no other method may run any more.
func (h *Hot) Close() error {
	w := h.words
	h.words = nil
	if !h.mapped {
		return nil
	}
	return w.unmap()
}

// Slots returns how many entries there are.
func (h *Hot) Slots() int { return len(h.words) / wordsPerEntry }

// index returns where the first word of an SPI's entry is.
func (h *Hot) index(spi uint32) (int, bool) { return h.at(SlotOf(spi)) }

// at returns where the first word of a slot's entry is.
func (h *Hot) at(slot uint32) (int, bool) {
	i := int(slot) * wordsPerEntry
	return i, i < len(h.words)
}

// Install makes the SPI known to XDP. Its word comes last and whole: a packet
// meets either no entry or a complete one that was never seen, and a stamp
// that XDP wrote late for the slot's last owner is gone with it.
func (h *Hot) Install(spi uint32, tuple Tuple) error {
	if err := h.free(spi); err != nil {
		return fmt.Errorf("SPI %08x: %w", spi, err)
	}
	return h.installAt(SlotOf(spi), spi, tuple)
}

func (h *Hot) installAt(slot, spi uint32, tuple Tuple) error {
	if err := h.freeAt(slot); err != nil {
		return fmt.Errorf("SPI %08x: %w", spi, err)
	}
	i, _ := h.at(slot)
	h.words.store(i+1, word(0, tuple.hash()))
	h.words.store(i, word(spi, 0))
	return nil
}

// free says why an SPI of our own cannot be installed.
func (h *Hot) free(spi uint32) error {
	if tagOf(spi) == 0 {
		return fmt.Errorf("%w: it has no tag", ErrNoSlot)
	}
	return h.freeAt(SlotOf(spi))
}

func (h *Hot) freeAt(slot uint32) error {
	i, ok := h.at(slot)
	if !h.writable {
		return ErrReadOnly
	}
	if !ok {
		return fmt.Errorf("%w: slot %d of %d", ErrNoSlot, slot, h.Slots())
	}
	if there := low(h.words.load(i)); there != 0 {
		return fmt.Errorf("%w by %08x", ErrSlotTaken, there)
	}
	return nil
}

// Remove makes the SPI unknown: its own word first.
func (h *Hot) Remove(spi uint32) error { return h.removeAt(SlotOf(spi), spi) }

func (h *Hot) removeAt(slot, spi uint32) error {
	if !h.writable {
		return ErrReadOnly
	}
	i, ok := h.at(slot)
	if !ok || spi == 0 || low(h.words.load(i)) != spi {
		return fmt.Errorf("SPI %08x: %w", spi, ErrNotTracked)
	}
	h.words.store(i, 0)
	h.words.store(i+1, 0)
	return nil
}

// Move changes the tuple that the SPI's packets are expected from.
func (h *Hot) Move(spi uint32, tuple Tuple) error { return h.moveAt(SlotOf(spi), spi, tuple) }

func (h *Hot) moveAt(slot, spi uint32, tuple Tuple) error {
	if !h.writable {
		return ErrReadOnly
	}
	hash := tuple.hash()
	if !h.change(slot, spi, func(auth, _ uint32) (uint32, uint32) { return auth, hash }) {
		return fmt.Errorf("SPI %08x: %w", spi, ErrNotTracked)
	}
	return nil
}

// Stamp records an authenticated packet, storing only when the tick has
// moved: a busy SA costs a read. A stamp for an SPI that is gone is dropped, and
// so is any where the maps are opened for reading.
func (h *Hot) Stamp(spi, tick uint32) { h.stampAt(SlotOf(spi), spi, tick) }

func (h *Hot) stampAt(slot, spi, tick uint32) {
	h.change(slot, spi, func(_, hash uint32) (uint32, uint32) { return tick, hash })
}

// change swaps word 1 of the SPI's entry. Where an evidence program stamps
// auth in the kernel, a Move must not put an older stamp back: hence the swap.
func (h *Hot) change(slot, spi uint32, f func(auth, hash uint32) (uint32, uint32)) bool {
	i, ok := h.at(slot)
	if !ok || spi == 0 || !h.writable {
		return false
	}
	for low(h.words.load(i)) == spi {
		old := h.words.load(i + 1)
		changed := word(f(low(old), high(old)))
		if old == changed || h.words.swap(i+1, old, changed) {
			return true
		}
	}
	return false
}

// Read returns the ticks of an SPI; ok is false when it is not installed.
func (h *Hot) Read(spi uint32) (seen, auth uint32, ok bool) { return h.ReadAt(SlotOf(spi), spi) }

// ReadAt is Read for an SPI that need not carry its slot.
func (h *Hot) ReadAt(slot, spi uint32) (seen, auth uint32, ok bool) {
	i, ok := h.at(slot)
	if !ok || spi == 0 {
		return 0, 0, false
	}
	there, seen, auth := h.entry(i)
	if there != spi {
		return 0, 0, false
	}
	return seen, auth, true
}

// entry reads both words of one SPI; spi is 0 when the slot is free or changed
// hands meanwhile. An SPI does not return for minutes: if it is still there
// after the second word was read, that word was its own.
func (h *Hot) entry(i int) (spi, seen, auth uint32) {
	first := h.words.load(i)
	if low(first) == 0 {
		return 0, 0, 0
	}
	second := h.words.load(i + 1)
	if low(first) != low(h.words.load(i)) {
		return 0, 0, 0
	}
	return low(first), high(first), low(second)
}

// Each calls f for every installed SPI, in the order of their slots. Entries
// that come or go meanwhile may be missed, never mixed.
func (h *Hot) Each(f func(slot, spi, seen, auth uint32)) {
	for i := 0; i < len(h.words); i += wordsPerEntry {
		if spi, seen, auth := h.entry(i); spi != 0 {
			f(uint32(i/wordsPerEntry), spi, seen, auth)
		}
	}
}

// A word is two fields of the entry as the little-endian CPUs that the object
// is built for lay them out.
func word(low, high uint32) uint64 { return uint64(low) | uint64(high)<<32 }
func low(w uint64) uint32          { return uint32(w) }
func high(w uint64) uint32         { return uint32(w >> 32) }
