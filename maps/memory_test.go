package maps

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func newMemory(t *testing.T) *Memory {
	t.Helper()
	m, err := NewMemory(100)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// spiBeyond carries a slot that the maps of loadSet do not have.
var spiBeyond = 3<<SlotBits | uint32(Entries(64)) + 5

// Without a kernel's map the same calls have the same outcome, and so have those
// for an SPI beyond the maps: each is made of both, where both may be had.
func TestMemoryIsLikeTheMaps(t *testing.T) {
	for _, spi := range []uint32{spiA, spiBeyond} {
		t.Run(fmt.Sprintf("%08x", spi), func(t *testing.T) { likeTheMaps(t, spi) })
	}
}

func likeTheMaps(t *testing.T, spi uint32) {
	m := newMemory(t)
	moved := netip.AddrPortFrom(there.Addr(), there.Port()+1)
	type tracker interface {
		Track(spi uint32, local, peer netip.AddrPort, natted bool) error
		Untrack(spi uint32, local, peer netip.AddrPort) error
		Move(spi uint32, oldLocal, oldPeer, newLocal, newPeer netip.AddrPort, natted bool) error
		Evidence(spi uint32) (seen, auth int64)
		Stamp(spi uint32, now int64)
	}
	for name, s := range map[string]tracker{"memory": m, "maps": loadSet(t, nil)} {
		wantIs := func(what string, got, want error) {
			t.Helper()
			if !errors.Is(got, want) {
				t.Errorf("%s: %s: %v, want %v", name, what, got, want)
			}
		}
		stamped := func(what string, want bool) {
			t.Helper()
			seen, auth := s.Evidence(spi)
			now, err := readClock(unix.CLOCK_BOOTTIME)
			if err != nil {
				t.Fatal(err)
			}
			if seen != 0 || (auth != 0) != want || auth > now || want && now-auth > int64(m.Clock.Tick())*3 {
				t.Errorf("%s: %s: seen %d, auth %d at %d", name, what, seen, auth, now)
			}
		}
		now, err := readClock(unix.CLOCK_BOOTTIME)
		if err != nil {
			t.Fatal(err)
		}
		wantIs("untracked before", s.Untrack(spi, here, there), ErrNotTracked)
		wantIs("no slot", s.Track(1<<SlotBits|1<<(SlotBits-1), here, there, true), ErrNoSlot)
		s.Stamp(spi, now)
		stamped("before", false)
		wantIs("tracked", s.Track(spi, here, there, true), nil)
		wantIs("twice", s.Track(spi, here, there, true), ErrSlotTaken)
		stamped("tracked", false)
		s.Stamp(spi, now)
		stamped("stamped", true)
		wantIs("moved", s.Move(spi, here, there, here, moved, true), nil)
		stamped("moved", true)
		wantIs("moved elsewhere", s.Move(spi+1<<SlotBits, here, there, here, moved, true), ErrNotTracked)
		wantIs("untracked", s.Untrack(spi, here, moved), nil)
		stamped("untracked", false)
		wantIs("again", s.Track(spi, here, there, true), nil)
		stamped("again", false)
		wantIs("at the end", s.Untrack(spi, here, there), nil)
	}
	if err := m.Hot.Close(); err != nil { // its memory is Go's
		t.Error(err)
	}
}
