package maps

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
)

// ErrFull says that a map takes no more entries: the capacity is used up.
var ErrFull = errors.New("the map is full")

// Peers is the view of the tuples whose keepalives are known, each with the
// number of SPIs that use it (a rekey and several IKE SAs share one):
// ikepulse_peers has them all, by their whole tuple, and ikepulse_near once more
// those that most keepalives come from, where XDP finds them fast. It may be
// read from any goroutine and process; it has one writer, this value, from any
// goroutine.
//
// Of a tuple that is not in near, XDP stamps and counts in the entry that a
// change of its owners replaces: a keepalive that arrives within the two to four
// microseconds between reading and writing is answered as ever, but its stamp
// and its count are lost, or land in an entry that is no more. Both are only
// for people, and the answer's stamp costs at most one answer too many. The
// first and the last owner lose nothing.
type Peers struct {
	mu   sync.Mutex
	m    *ebpf.Map
	near *near
}

// Peer is one tuple.
type Peer struct {
	Tuple         Tuple
	Owners        uint32 // tracked SPIs that use it
	NATted        bool   // its peer is behind a NAT: it may be answered
	KeepaliveTick uint32 // last keepalive; 0: none
	AnswerTick    uint32 // last answer; 0: none
	Keepalives    uint64 // modulo 2^32, as Answers is
	Answers       uint64
}

// Acquire counts one more owner of a tuple, and makes it known with the first.
// natted stays set as long as there is an owner: the tuple is the same.
func (p *Peers) Acquire(tuple Tuple, natted bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var flags uint32
	if natted {
		flags = bpf.PeerNATted
	}
	e, known, err := p.lookup(tuple)
	switch {
	case err != nil:
	case known:
		err = p.addOwner(tuple, e, flags)
	default:
		err = p.add(tuple, flags)
	}
	if err != nil {
		return fmt.Errorf("%s, %s: %w", bpf.MapPeers, tuple, orFull(err))
	}
	return nil
}

// add makes a tuple known: to people first, then to XDP.
func (p *Peers) add(tuple Tuple, flags uint32) error {
	e := bpf.PeerEntry{Owners: 1, Place: p.near.vacancy(tuple)}
	if e.Place == 0 {
		e.Mapping.Flags = flags
	}
	if err := p.m.Update(tuple.key(), e, ebpf.UpdateNoExist); err != nil {
		return err
	}
	if e.Place == 0 {
		p.near.spill(tuple, 1)
	} else {
		p.near.install(e.Place, tuple, flags)
	}
	return nil
}

func (p *Peers) addOwner(tuple Tuple, e bpf.PeerEntry, flags uint32) error {
	e.Owners++
	if e.Place == 0 {
		e.Mapping.Flags |= flags
	}
	if err := p.m.Update(tuple.key(), e, ebpf.UpdateExist); err != nil {
		return err
	}
	if e.Place != 0 {
		p.near.addFlags(e.Place, flags)
	}
	return nil
}

// Release counts one owner less, and forgets the tuple with the last.
func (p *Peers) Release(tuple Tuple) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, known, err := p.lookup(tuple)
	switch {
	case err != nil:
	case !known:
		err = ebpf.ErrKeyNotExist
	case e.Owners <= 1:
		err = p.remove(tuple, e)
	default:
		e.Owners--
		err = p.m.Update(tuple.key(), e, ebpf.UpdateExist)
	}
	if err != nil {
		return fmt.Errorf("%s, %s: %w", bpf.MapPeers, tuple, err)
	}
	return nil
}

func (p *Peers) remove(tuple Tuple, e bpf.PeerEntry) error {
	if err := p.m.Delete(tuple.key()); err != nil {
		return err
	}
	if e.Place == 0 {
		p.near.spill(tuple, -1)
	} else {
		p.near.remove(e.Place)
	}
	return nil
}

// Get returns what is known of a tuple.
func (p *Peers) Get(tuple Tuple) (Peer, bool, error) {
	e, known, err := p.lookup(tuple)
	if err != nil {
		return Peer{}, false, fmt.Errorf("%s, %s: %w", bpf.MapPeers, tuple, err)
	}
	if !known {
		return Peer{}, false, nil
	}
	return p.peer(tuple, e), true, nil
}

func (p *Peers) lookup(tuple Tuple) (e bpf.PeerEntry, known bool, err error) {
	err = p.m.Lookup(tuple.key(), &e)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return e, false, nil
	}
	return e, err == nil, err
}

// Each calls f for every tuple, in no order.
func (p *Peers) Each(f func(Peer)) error {
	return eachEntry(p.m, func(key bpf.PeerKey, e bpf.PeerEntry) { f(p.peer(tupleOf(key), e)) })
}

// clear forgets every tuple, whoever owns it.
func (p *Peers) clear() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.near.clear(); err != nil {
		return err
	}
	var keys []bpf.PeerKey
	if err := eachEntry(p.m, func(key bpf.PeerKey, _ bpf.PeerEntry) { keys = append(keys, key) }); err != nil {
		return err
	}
	for _, key := range keys {
		if err := p.m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("%s, %s: %w", bpf.MapPeers, tupleOf(key), err)
		}
	}
	return nil
}

func (p *Peers) peer(tuple Tuple, e bpf.PeerEntry) Peer {
	m := e.Mapping
	if e.Place != 0 {
		m = p.near.get(e.Place)
	}
	return Peer{
		Tuple: tuple, Owners: e.Owners, NATted: m.Flags&bpf.PeerNATted != 0,
		KeepaliveTick: m.KeepaliveTick, AnswerTick: m.AnswerTick,
		Keepalives: uint64(m.Keepalives), Answers: uint64(m.Answers),
	}
}

// orFull names what a hash at its max_entries answers.
func orFull(err error) error {
	if errors.Is(err, unix.E2BIG) {
		return ErrFull
	}
	return err
}
