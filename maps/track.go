package maps

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Track makes an inbound SPI and its tuple known to XDP: rich, then peers, then
// hot, so that whoever meets the SPI in a packet finds all that belongs to it.
// After an error nothing of it is left. natted says that the peer is behind a
// NAT, whose keepalives may be answered. An SPI beyond the maps stays unknown
// to XDP; its evidence is kept here.
//
// Calls for one SPI belong to one goroutine, as do Untrack, Move and Stamp.
func (s *Set) Track(spi uint32, local, peer netip.AddrPort, natted bool) error {
	tuple := Tuple{local, peer}
	if slot, ok := s.beyond.slot(spi); ok {
		return s.beyond.track(slot, spi, tuple)
	}
	if err := errors.Join(tuple.valid(), s.Hot.free(spi)); err != nil {
		return fmt.Errorf("tracking SPI %08x: %w", spi, err)
	}
	err := inOrder(
		step{
			do:   func() error { return s.SAs.put(SlotOf(spi), spi, tuple, natted) },
			undo: func() error { _, err := s.SAs.clear(SlotOf(spi)); return err },
		},
		step{
			do:   func() error { return s.Peers.Acquire(tuple, natted) },
			undo: func() error { return s.Peers.Release(tuple) },
		},
		step{do: func() error { return s.Hot.Install(spi, tuple) }},
	)
	if err != nil {
		return fmt.Errorf("tracking SPI %08x: %w", spi, err)
	}
	return nil
}

// Untrack makes an SPI unknown: hot first, then whatever follows is tried to
// the end. The owner that goes is the one of the tuple that Track or Move
// recorded; local and peer are for an entry that has lost it.
func (s *Set) Untrack(spi uint32, local, peer netip.AddrPort) error {
	if slot, ok := s.beyond.slot(spi); ok {
		return s.beyond.untrack(slot, spi)
	}
	if err := s.Hot.Remove(spi); err != nil {
		return fmt.Errorf("untracking SPI %08x: %w", spi, err)
	}
	before, errSAs := s.SAs.clear(SlotOf(spi))
	tuple := Tuple{local, peer}
	if before.SPI == spi {
		tuple = before.Tuple
	}
	if err := errors.Join(errSAs, s.Peers.Release(tuple)); err != nil {
		return fmt.Errorf("untracking SPI %08x: %w", spi, err)
	}
	return nil
}

// Move changes the tuple of a tracked SPI: the new one is known before packets
// are expected from it, the old one goes last. After an error the SPI is where
// it was.
func (s *Set) Move(spi uint32, oldLocal, oldPeer, newLocal, newPeer netip.AddrPort, natted bool) error {
	from, to := Tuple{oldLocal, oldPeer}, Tuple{newLocal, newPeer}
	if slot, ok := s.beyond.slot(spi); ok {
		return s.beyond.hot.moveAt(slot, spi, to)
	}
	before, ok, err := s.SAs.Get(spi)
	switch {
	case err != nil:
	case !ok:
		err = ErrNotTracked
	case before.Tuple.key() != from.key():
		err = fmt.Errorf("it is at %s, not at %s", before.Tuple, from)
	default:
		err = to.valid()
	}
	if err != nil {
		return fmt.Errorf("moving SPI %08x: %w", spi, err)
	}
	err = inOrder(
		step{
			do:   func() error { return s.Peers.Acquire(to, natted) },
			undo: func() error { return s.Peers.Release(to) },
		},
		step{
			do:   func() error { return s.SAs.move(SlotOf(spi), spi, to, natted) },
			undo: func() error { return s.SAs.move(SlotOf(spi), spi, from, before.NATted) },
		},
		step{
			do:   func() error { return s.Hot.Move(spi, to) },
			undo: func() error { return s.Hot.Move(spi, from) },
		},
		step{do: func() error { return s.Peers.Release(from) }},
	)
	if err != nil {
		return fmt.Errorf("moving SPI %08x: %w", spi, err)
	}
	return nil
}

// Reset forgets every SPI and every tuple, for a daemon that starts without
// the tunnels of the one before it. Local addresses and counters stay.
func (s *Set) Reset() error {
	var errs []error
	errs = append(errs, s.clearFollow())
	s.Hot.Each(func(slot, spi, _, _ uint32) { errs = append(errs, s.Hot.removeAt(slot, spi)) })
	var gone []uint32
	errs = append(errs, s.SAs.Each(func(sa SA) { gone = append(gone, sa.Slot) }))
	for _, slot := range gone {
		_, err := s.SAs.clear(slot)
		errs = append(errs, err)
	}
	if err := errors.Join(append(errs, s.Peers.clear())...); err != nil {
		return fmt.Errorf("forgetting every SPI: %w", err)
	}
	return nil
}

// step is a change and what takes it back; the last one needs no undo.
type step struct{ do, undo func() error }

// inOrder takes the steps; at the first error it takes those before it back,
// the newest first, and stops.
func inOrder(steps ...step) error {
	for i, s := range steps {
		err := s.do()
		if err == nil {
			continue
		}
		for _, done := range slices.Backward(steps[:i]) {
			if undone := done.undo(); undone != nil {
				err = errors.Join(err, fmt.Errorf("taking it back: %w", undone))
			}
		}
		return err
	}
	return nil
}
