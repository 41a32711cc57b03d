package pool

import "net/netip"

// space is the addresses of one family. Those that were never handed out are
// no more than a cursor; each of the others has a record, which is live (it
// has a generation), resting (a holder, but no generation) or free.
type space struct {
	remember int
	ranges   []addrRange
	at       int        // the range that cursor lies in
	cursor   netip.Addr // from here on nothing was handed out but on request

	records []record
	byAddr  map[[16]byte]int32
	holders map[holder]int32
	resting list // longest first
	free    list
	spare   list // records that stand for no address
	live    int
}

// addrRange is the first and the last address that may be leased.
type addrRange struct{ first, last netip.Addr }

func (r addrRange) contains(a netip.Addr) bool {
	return r.first.Compare(a) <= 0 && a.Compare(r.last) <= 0
}

type record struct {
	address    [16]byte
	holder     holder
	generation uint64 // 0: not leased
	prev, next int32  // within resting, free or spare; index plus one
	v4         bool
}

func (r *record) addr() netip.Addr {
	a := netip.AddrFrom16(r.address)
	if r.v4 {
		return a.Unmap()
	}
	return a
}

func newSpace(remember int) space {
	return space{remember: remember, byAddr: map[[16]byte]int32{}, holders: map[holder]int32{}}
}

// add appends the leasable addresses of a prefix.
func (s *space) add(p netip.Prefix) {
	p = p.Masked()
	r := addrRange{p.Addr(), lastOf(p)}
	if hostBits := p.Addr().BitLen() - p.Bits(); hostBits > 1 {
		r.first = r.first.Next()
		if p.Addr().Is4() {
			r.last = r.last.Prev()
		}
	}
	if len(s.ranges) == 0 {
		s.cursor = r.first
	}
	s.ranges = append(s.ranges, r)
}

// lastOf is the highest address of a masked prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// lease finds the record for a holder and makes it live.
func (s *space) lease(h holder, want netip.Addr) (int32, bool) {
	own, known := s.holders[h]
	if known && s.records[own].generation != 0 {
		return own, true
	}
	index, ok := s.claim(want)
	switch {
	case ok && known:
		s.forget(own)
	case ok:
	case known:
		index = own
		s.unlink(&s.resting, own)
	default:
		if index, ok = s.any(); !ok {
			return 0, false
		}
	}
	s.records[index].holder = h
	s.holders[h] = index
	s.live++
	return index, true
}

// claim takes the wanted address if nobody holds it and it rests for nobody.
func (s *space) claim(want netip.Addr) (int32, bool) {
	if !s.contains(want) {
		return 0, false
	}
	index, ok := s.byAddr[want.As16()]
	switch {
	case !ok:
		return s.record(want), true
	case s.records[index].holder != holder{}:
		return 0, false
	}
	s.unlink(&s.free, index)
	return index, true
}

// any takes an address for somebody who has none: one that is nobody's, then
// one that was never handed out, then the one that has rested longest.
func (s *space) any() (int32, bool) {
	if s.free.len == 0 {
		if fresh, ok := s.fresh(); ok {
			return s.record(fresh), true
		}
		if s.resting.len == 0 {
			return 0, false
		}
		s.forget(s.resting.first - 1)
	}
	index := s.free.first - 1
	s.unlink(&s.free, index)
	return index, true
}

// fresh moves the cursor past the next address without a record. Each address
// that was handed out on request is skipped once.
func (s *space) fresh() (netip.Addr, bool) {
	for ; s.at < len(s.ranges); s.nextRange() {
		for s.ranges[s.at].contains(s.cursor) {
			a := s.cursor
			s.cursor = a.Next()
			if _, taken := s.byAddr[a.As16()]; !taken {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

func (s *space) nextRange() {
	if s.at++; s.at < len(s.ranges) {
		s.cursor = s.ranges[s.at].first
	}
}

// release ends a lease: its address rests, and the one that has rested longest
// is forgotten if those are too many.
func (s *space) release(l Lease) bool {
	index, ok := s.byAddr[l.Addr.As16()]
	if !ok || l.Generation == 0 || s.records[index].generation != l.Generation {
		return false
	}
	s.records[index].generation = 0
	s.live--
	s.push(&s.resting, index)
	if s.resting.len > s.remember {
		s.forget(s.resting.first - 1)
	}
	return true
}

// forget makes a resting address anybody's. One that the cursor will still
// come to needs no record, so a peer who asks for another address each time
// leaves nothing behind.
func (s *space) forget(index int32) {
	r := &s.records[index]
	s.unlink(&s.resting, index)
	delete(s.holders, r.holder)
	r.holder = holder{}
	if s.ahead(r.addr()) {
		delete(s.byAddr, r.address)
		s.push(&s.spare, index)
		return
	}
	s.push(&s.free, index)
}

// ahead tells that the cursor has yet to pass a.
func (s *space) ahead(a netip.Addr) bool {
	for i := s.at; i < len(s.ranges); i++ {
		if s.ranges[i].contains(a) {
			return i > s.at || s.cursor.IsValid() && s.cursor.Compare(a) <= 0
		}
	}
	return false
}

func (s *space) contains(a netip.Addr) bool {
	for _, r := range s.ranges {
		if r.contains(a) {
			return true
		}
	}
	return false
}

// record makes a record for an address that has none.
func (s *space) record(a netip.Addr) int32 {
	var index int32
	if s.spare.len > 0 {
		index = s.spare.first - 1
		s.unlink(&s.spare, index)
	} else {
		index = int32(len(s.records))
		s.records = append(s.records, record{})
	}
	s.records[index] = record{address: a.As16(), v4: a.Is4()}
	s.byAddr[a.As16()] = index
	return index
}

// list is a queue of records, by index plus one.
type list struct {
	first, last int32
	len         int
}

func (s *space) push(l *list, index int32) {
	s.records[index].prev, s.records[index].next = l.last, 0
	if l.last != 0 {
		s.records[l.last-1].next = index + 1
	} else {
		l.first = index + 1
	}
	l.last = index + 1
	l.len++
}

func (s *space) unlink(l *list, index int32) {
	r := &s.records[index]
	if r.prev != 0 {
		s.records[r.prev-1].next = r.next
	} else {
		l.first = r.next
	}
	if r.next != 0 {
		s.records[r.next-1].prev = r.prev
	} else {
		l.last = r.prev
	}
	l.len--
}
