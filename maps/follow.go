package maps

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// ErrNoSlots says that every slot is taken, or rests.
var ErrNoSlots = errors.New("no slot is free: the capacity is used up")

// Followed are the inbound SAs of another daemon, whose SPIs carry no slot of
// ours: a hash leads XDP from address, SPI and protocol to the slot. It belongs
// to one goroutine; what it writes may be read by anyone.
type Followed struct {
	set   *Set
	slots *Slots
	taken map[followKey]*taken
	left  map[followKey]*taken // of the process before this one; nil from Settle on
	spare uint32               // a token that nothing was made of; 0: none
}

// FollowedSA is what a packet finds its SA by.
type FollowedSA struct {
	Local    netip.Addr
	SPI      uint32
	Protocol uint8 // 50 ESP, also in UDP; 51 AH
}

func (f FollowedSA) String() string {
	return fmt.Sprintf("SPI %08x of protocol %d to %s", f.SPI, f.Protocol, f.Local)
}

type followKey = bpf.FollowKey

func (f FollowedSA) key() followKey {
	return followKey{Local: f.Local.As16(), Spi: f.SPI, Protocol: uint32(f.Protocol)}
}

// taken is a slot and who has it. The token is what the allocator of our own
// SPIs gave out for it.
type taken struct {
	token uint32
	tuple Tuple
}

// Follow returns the view that follows. What another process that followed left
// in the maps stays, with its stamps, until Settle. random never fails.
func (s *Set) Follow(random io.Reader) (*Followed, error) {
	if !s.Meta.Follow {
		return nil, errors.New("the maps are not loaded for SPIs of another daemon")
	}
	f := &Followed{
		set: s, slots: NewSlots(s.Meta.Capacity, 0, 1, random), taken: make(map[followKey]*taken),
	}
	whole, err := f.adopt()
	if err == nil && !whole {
		err = s.Reset()
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Track makes an inbound SA known to XDP: rich, peers, hot, and last the way
// to them. One that was left is known already. After an error nothing of it is
// left.
func (f *Followed) Track(sa FollowedSA, local, peer netip.AddrPort) (slot uint32, err error) {
	key, tuple := sa.key(), Tuple{local, peer}
	if _, known := f.taken[key]; known {
		return 0, fmt.Errorf("tracking %s: it is tracked already", sa)
	}
	if t, there := f.left[key]; there {
		return f.retake(sa, t, tuple)
	}
	token, ok := f.alloc()
	if !ok {
		return 0, fmt.Errorf("tracking %s: %w", sa, ErrNoSlots)
	}
	slot = SlotOf(token)
	err = inOrder(
		step{do: tuple.valid, undo: func() error { return nil }},
		step{
			do:   func() error { return f.set.SAs.put(slot, sa.SPI, tuple, false) },
			undo: func() error { _, err := f.set.SAs.clear(slot); return err },
		},
		step{
			do:   func() error { return f.set.Peers.Acquire(tuple, false) },
			undo: func() error { return f.set.Peers.Release(tuple) },
		},
		step{
			do:   func() error { return f.set.Hot.installAt(slot, sa.SPI, tuple) },
			undo: func() error { return f.set.Hot.removeAt(slot, sa.SPI) },
		},
		step{do: func() error { return f.set.handles.Follow.Update(key, slot, ebpf.UpdateNoExist) }},
	)
	if err != nil {
		// No packet could find the slot, so it need not rest: whoever tries
		// again and again does not use all of them up.
		f.spare = token
		return 0, fmt.Errorf("tracking %s: %w", sa, orFull(err))
	}
	f.taken[key] = &taken{token, tuple}
	return slot, nil
}

// retake goes on with one that was left, wherever it is now.
func (f *Followed) retake(sa FollowedSA, t *taken, tuple Tuple) (slot uint32, err error) {
	delete(f.left, sa.key())
	f.taken[sa.key()] = t
	if t.tuple.key() == tuple.key() {
		return SlotOf(t.token), nil
	}
	if err := f.Move(sa, tuple.Local, tuple.Peer); err != nil {
		return 0, errors.Join(err, f.Untrack(sa))
	}
	return SlotOf(t.token), nil
}

func (f *Followed) alloc() (token uint32, ok bool) {
	if f.spare != 0 {
		token, f.spare = f.spare, 0
		return token, true
	}
	return f.slots.Alloc(f.set.Clock.Now())
}

// Untrack makes an SA unknown: the way to it first, then whatever follows is
// tried to the end.
func (f *Followed) Untrack(sa FollowedSA) error {
	key := sa.key()
	t, known := f.taken[key]
	if !known {
		return fmt.Errorf("untracking %s: %w", sa, ErrNotTracked)
	}
	delete(f.taken, key)
	slot := SlotOf(t.token)
	errs := []error{f.set.handles.Follow.Delete(key), f.set.Hot.removeAt(slot, sa.SPI)}
	_, err := f.set.SAs.clear(slot)
	errs = append(errs, err, f.set.Peers.Release(t.tuple))
	f.slots.Free(t.token, f.set.Clock.Now())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("untracking %s: %w", sa, err)
	}
	return nil
}

// Move changes the tuple of a tracked SA; its stamps stay. After an error it
// is where it was.
func (f *Followed) Move(sa FollowedSA, local, peer netip.AddrPort) error {
	key, to := sa.key(), Tuple{local, peer}
	t, known := f.taken[key]
	if !known {
		return fmt.Errorf("moving %s: %w", sa, ErrNotTracked)
	}
	slot := SlotOf(t.token)
	err := inOrder(
		step{do: to.valid, undo: func() error { return nil }},
		step{
			do:   func() error { return f.set.Peers.Acquire(to, false) },
			undo: func() error { return f.set.Peers.Release(to) },
		},
		step{
			do:   func() error { return f.set.SAs.move(slot, sa.SPI, to, false) },
			undo: func() error { return f.set.SAs.move(slot, sa.SPI, t.tuple, false) },
		},
		step{
			do:   func() error { return f.set.Hot.moveAt(slot, sa.SPI, to) },
			undo: func() error { return f.set.Hot.moveAt(slot, sa.SPI, t.tuple) },
		},
		step{do: func() error { return f.set.Peers.Release(t.tuple) }},
	)
	if err != nil {
		return fmt.Errorf("moving %s: %w", sa, err)
	}
	t.tuple = to
	return nil
}

// Stamp records that a packet of the SA in a slot was authenticated at an
// instant of CLOCK_BOOTTIME.
func (f *Followed) Stamp(slot, spi uint32, at int64) {
	f.set.Hot.stampAt(slot, spi, f.set.Clock.TickAt(at))
}

// clearFollow forgets every way.
func (s *Set) clearFollow() error {
	var keys []followKey
	if err := eachEntry(s.handles.Follow, func(key followKey, _ uint32) { keys = append(keys, key) }); err != nil {
		return err
	}
	for _, key := range keys {
		if err := s.handles.Follow.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("%s: %w", bpf.MapFollow, err)
		}
	}
	return nil
}
