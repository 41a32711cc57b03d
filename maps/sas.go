package maps

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// SAs is the view of ikepulse_sas: what changes seldom about an SPI, for
// people and for drift. Slot for slot beside hot. It may be read from any
// goroutine; one SPI's entry is written by the goroutine that owns the SPI.
type SAs struct {
	m *ebpf.Map
}

// SA is one tracked SPI.
type SA struct {
	Slot       uint32
	SPI        uint32
	Tuple      Tuple
	NATted     bool
	Generation uint32 // how many SPIs this slot has had
	MovedTick  uint32 // last tick with a packet from another tuple; 0: never
	Packets    uint64 // this and LastSeq only with account_every_packet
	LastSeq    uint32
}

// Get returns what is known of an SPI.
func (s *SAs) Get(spi uint32) (SA, bool, error) { return s.GetAt(SlotOf(spi), spi) }

// GetAt is Get for an SPI that need not carry its slot.
func (s *SAs) GetAt(slot, spi uint32) (SA, bool, error) {
	e, err := s.entry(slot)
	if err != nil {
		return SA{}, false, err
	}
	return saOf(slot, e), e.Spi == spi && spi != 0, nil
}

// Each calls f for every tracked SPI, in the order of their slots.
func (s *SAs) Each(f func(SA)) error {
	return eachEntry(s.m, func(slot uint32, e bpf.SAEntry) {
		if e.Spi != 0 {
			f(saOf(slot, e))
		}
	})
}

// put describes an SPI, as the new owner of a slot.
func (s *SAs) put(slot, spi uint32, tuple Tuple, natted bool) error {
	before, err := s.entry(slot)
	if err != nil {
		return err
	}
	e := saEntry(spi, tuple, natted)
	e.Generation = before.Generation + 1
	return s.update(slot, e)
}

// move changes the tuple of an SPI. Packets that XDP accounts for within the
// few microseconds between the two system calls are not counted.
func (s *SAs) move(slot, spi uint32, tuple Tuple, natted bool) error {
	before, err := s.entry(slot)
	if err != nil {
		return err
	}
	e := saEntry(spi, tuple, natted)
	e.Generation, e.MovedTick = before.Generation, before.MovedTick
	e.Packets, e.LastSeq = before.Packets, before.LastSeq
	return s.update(slot, e)
}

// clear forgets the SPI of a slot and returns what was known of it. The slot's
// generation stays.
func (s *SAs) clear(slot uint32) (SA, error) {
	before, err := s.entry(slot)
	if err != nil {
		return SA{}, err
	}
	return saOf(slot, before), s.update(slot, bpf.SAEntry{Generation: before.Generation})
}

func (s *SAs) entry(slot uint32) (e bpf.SAEntry, err error) {
	if err := s.m.Lookup(slot, &e); err != nil {
		return e, fmt.Errorf("%s, slot %d: %w", bpf.MapSAs, slot, err)
	}
	return e, nil
}

func (s *SAs) update(slot uint32, e bpf.SAEntry) error {
	if err := s.m.Put(slot, e); err != nil {
		return fmt.Errorf("%s, slot %d: %w", bpf.MapSAs, slot, err)
	}
	return nil
}

func saEntry(spi uint32, tuple Tuple, natted bool) bpf.SAEntry {
	key := tuple.key()
	e := bpf.SAEntry{
		Spi: spi, Local: key.Local, Peer: key.Peer,
		LocalPort: key.LocalPort, PeerPort: key.PeerPort,
	}
	if natted {
		e.Flags = bpf.SANATted
	}
	return e
}

func saOf(slot uint32, e bpf.SAEntry) SA {
	return SA{
		Slot: slot, SPI: e.Spi, Generation: e.Generation, NATted: e.Flags&bpf.SANATted != 0,
		Tuple: tupleOf(bpf.PeerKey{
			Local: e.Local, Peer: e.Peer, LocalPort: e.LocalPort, PeerPort: e.PeerPort,
		}),
		MovedTick: e.MovedTick, Packets: e.Packets, LastSeq: e.LastSeq,
	}
}
