package maps

import (
	"errors"
	"net/netip"

	"github.com/ikepulse/ikepulse/bpf"
)

// What a process that follows leaves in the maps is as good as ever for the
// next: the SAs are the kernel's and live on, and XDP has stamped them meanwhile.
// It is taken over as it stands, if it is whole. Where a process was killed in
// the middle of a change it is not, and all is forgotten.

// adopt takes over what is left: Track of it finds it, Settle forgets the rest.
func (f *Followed) adopt() (whole bool, err error) {
	left, owners, err := f.set.followable()
	if err != nil || left == nil {
		return false, err
	}
	if whole, err = f.set.Peers.owned(owners); err != nil || !whole {
		return false, err
	}
	f.slots.hold(left)
	f.left = left
	return true, nil
}

// Settle forgets what was there before this process and has not been tracked by
// it: SAs that went while nobody followed.
func (f *Followed) Settle() error {
	var errs []error
	for key, t := range f.left {
		f.taken[key] = t
		errs = append(errs, f.Untrack(FollowedSA{Local: netip.AddrFrom16(key.Local).Unmap(), SPI: key.Spi, Protocol: uint8(key.Protocol)}))
	}
	f.left = nil
	return errors.Join(errs...)
}

// followable reads the SAs that lead from follow to sas and hot, and how many of
// them each tuple has. They are nil if one leads nowhere, or there is more in
// sas or hot than they lead to.
func (s *Set) followable() (left map[followKey]*taken, owners map[bpf.PeerKey]uint32, err error) {
	hot, rich := map[uint32]uint32{}, map[uint32]SA{}
	s.Hot.Each(func(slot, spi, _, _ uint32) { hot[slot] = spi })
	if err := s.SAs.Each(func(sa SA) { rich[sa.Slot] = sa }); err != nil {
		return nil, nil, err
	}
	left, owners = map[followKey]*taken{}, map[bpf.PeerKey]uint32{}
	whole := true
	err = eachEntry(s.handles.Follow, func(key followKey, slot uint32) {
		tuple := rich[slot].Tuple
		whole = whole && rich[slot].SPI == key.Spi && hot[slot] == key.Spi &&
			tuple.Local.Addr() == netip.AddrFrom16(key.Local).Unmap() && s.Hot.expects(slot, tuple)
		delete(rich, slot)
		delete(hot, slot)
		left[key] = &taken{token: slot, tuple: tuple}
		owners[tuple.key()]++
	})
	if err != nil || !whole || len(hot) > 0 || len(rich) > 0 {
		return nil, nil, err
	}
	return left, owners, nil
}

// expects tells whether the entry in a slot is for packets of that tuple.
func (h *Hot) expects(slot uint32, tuple Tuple) bool {
	i, ok := h.at(slot)
	return ok && high(h.words.load(i+1)) == tuple.hash()
}

// owned tells whether exactly these tuples are known, each with so many owners,
// and near agrees.
func (p *Peers) owned(owners map[bpf.PeerKey]uint32) (whole bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, whole := 0, true
	spilled, placed := map[int]uint64{}, 0
	err = eachEntry(p.m, func(key bpf.PeerKey, e bpf.PeerEntry) {
		known++
		tuple := tupleOf(key)
		whole = whole && owners[key] == e.Owners
		switch {
		case e.Place != 0:
			placed++
			whole = whole && p.near.has(e.Place, tuple)
		case p.near.takes(tuple):
			spilled[p.near.home(tuple)]++
		}
	})
	return whole && known == len(owners) && p.near.holds(placed, spilled), err
}

// has tells whether a tuple stands in its place.
func (n *near) has(place uint32, t Tuple) bool {
	at := int(place - 1)
	if home := n.home(t); !n.takes(t) || at < home || at >= home+bpf.NearWays {
		return false
	}
	addresses, ports := nearWords(t)
	return n.words.load(at*wordsPerNear) == addresses && uint64(uint32(n.words.load(at*wordsPerNear+1))) == ports
}

// holds tells whether so many tuples stand in their places, and so many had none
// in the bucket that begins with each entry.
func (n *near) holds(placed int, spilled map[int]uint64) bool {
	for at := range len(n.words) / wordsPerNear {
		word := n.words.load(at*wordsPerNear + 1)
		if uint32(word) != 0 {
			placed--
		}
		if word>>spilledShift != spilled[at] {
			return false
		}
	}
	return placed == 0
}

// hold takes slots out of the free ones, and makes tokens of them.
func (s *Slots) hold(slots map[followKey]*taken) {
	for _, t := range slots {
		n, ok := s.number(t.token)
		if !ok || s.live[n] {
			panic("maps: a slot is held twice, or is none")
		}
		s.live[n] = true
		s.tags[n] = nextTag(s.tags[n])
		t.token |= uint32(s.tags[n]) << SlotBits
	}
	free := s.free[:0]
	for _, n := range s.free {
		if !s.live[n] {
			free = append(free, n)
		}
	}
	s.free = free
}
