package maps

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Memory keeps the evidence of inbound SPIs where no map can be loaded: the
// same entries, in this process alone, so that whoever decides by them decides
// the same. Nobody but this process stamps them, and nothing outlives it.
//
// Calls for one SPI belong to one goroutine, as with [Set].
type Memory struct {
	Ledger
}

// NewMemory returns entries for every SPI that a supply for so many tunnels has.
func NewMemory(capacity int) (*Memory, error) {
	clock, err := newClock(bootJiffies, memoryJiffy, shiftFor(memoryJiffy))
	if err != nil {
		return nil, err
	}
	hot := &Hot{words: make(words, MaxSPIs(capacity)*wordsPerEntry), writable: true}
	return &Memory{Ledger{Hot: hot, Clock: clock}}, nil
}

// memoryJiffy is the length of a jiffy that no kernel counts.
const memoryJiffy = 4 * time.Millisecond

// bootJiffies counts them in CLOCK_BOOTTIME: they go on in suspend, and never
// move away from it.
func bootJiffies() (sample, error) {
	boot, err := readClock(unix.CLOCK_BOOTTIME)
	return sample{jiffies: uint64(boot / int64(memoryJiffy)), boot: boot - boot%int64(memoryJiffy)}, err
}

// Track makes room for an SPI's evidence. natted is of no use here: nothing
// answers.
func (m *Memory) Track(spi uint32, local, peer netip.AddrPort, _ bool) error {
	return m.Hot.Install(spi, Tuple{local, peer})
}

// Untrack forgets it.
func (m *Memory) Untrack(spi uint32, _, _ netip.AddrPort) error { return m.Hot.Remove(spi) }

// Move changes the tuple that its packets are expected from.
func (m *Memory) Move(spi uint32, _, _, local, peer netip.AddrPort, _ bool) error {
	return m.Hot.Move(spi, Tuple{local, peer})
}
