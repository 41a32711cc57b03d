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

// Peers is the view of ikepulse_peers: the tuples whose keepalives are known,
// each with the number of SPIs that use it (a rekey and several IKE SAs share
// one). It may be read from any goroutine and process; the owner counts have
// one writer, this value, from any goroutine.
//
// XDP stamps and counts in the same entry, in place, while a change of the
// owner count replaces it: a keepalive that arrives within the two to four
// microseconds between reading and writing is answered as ever, but its stamp
// and its count are lost, or land in an entry that is no more. Both are only
// for people, and the answer's stamp costs at most one answer too many. The
// first and the last owner lose nothing.
type Peers struct {
	mu sync.Mutex
	m  *ebpf.Map
}

// Peer is one tuple.
type Peer struct {
	Tuple         Tuple
	Owners        uint32 // tracked SPIs that use it
	NATted        bool   // its peer is behind a NAT: it may be answered
	KeepaliveTick uint32 // last keepalive; 0: none
	AnswerTick    uint32 // last answer; 0: none
	Keepalives    uint64
	Answers       uint64
}

// Acquire counts one more owner of a tuple, and makes it known with the first.
// natted stays set as long as there is an owner: the tuple is the same.
func (p *Peers) Acquire(tuple Tuple, natted bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := tuple.key()
	var e bpf.PeerEntry
	flags := ebpf.UpdateExist
	switch err := p.m.Lookup(key, &e); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		flags = ebpf.UpdateNoExist
	case err != nil:
		return fmt.Errorf("%s, %s: %w", bpf.MapPeers, tuple, err)
	}
	e.Owners++
	if natted {
		e.Flags |= bpf.PeerNATted
	}
	if err := p.m.Update(key, e, flags); err != nil {
		return fmt.Errorf("%s, %s: %w", bpf.MapPeers, tuple, orFull(err))
	}
	return nil
}

// Release counts one owner less, and forgets the tuple with the last.
func (p *Peers) Release(tuple Tuple) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := tuple.key()
	var e bpf.PeerEntry
	err := p.m.Lookup(key, &e)
	switch {
	case err != nil:
	case e.Owners <= 1:
		err = p.m.Delete(key)
	default:
		e.Owners--
		err = p.m.Update(key, e, ebpf.UpdateExist)
	}
	if err != nil {
		return fmt.Errorf("%s, %s: %w", bpf.MapPeers, tuple, err)
	}
	return nil
}

// Get returns what is known of a tuple.
func (p *Peers) Get(tuple Tuple) (Peer, bool, error) {
	key := tuple.key()
	var e bpf.PeerEntry
	err := p.m.Lookup(key, &e)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Peer{}, false, nil
	}
	if err != nil {
		return Peer{}, false, fmt.Errorf("%s, %s: %w", bpf.MapPeers, tuple, err)
	}
	return peerOf(key, e), true, nil
}

// Each calls f for every tuple, in no order.
func (p *Peers) Each(f func(Peer)) error {
	return eachEntry(p.m, func(key bpf.PeerKey, e bpf.PeerEntry) { f(peerOf(key, e)) })
}

// clear forgets every tuple, whoever owns it.
func (p *Peers) clear() error {
	p.mu.Lock()
	defer p.mu.Unlock()
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

func peerOf(key bpf.PeerKey, e bpf.PeerEntry) Peer {
	return Peer{
		Tuple: tupleOf(key), Owners: e.Owners, NATted: e.Flags&bpf.PeerNATted != 0,
		KeepaliveTick: e.KeepaliveTick, AnswerTick: e.AnswerTick,
		Keepalives: e.Keepalives, Answers: e.Answers,
	}
}

// orFull names what a hash at its max_entries answers.
func orFull(err error) error {
	if errors.Is(err, unix.E2BIG) {
		return ErrFull
	}
	return err
}
