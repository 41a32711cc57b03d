package maps

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// near is the mapped view of ikepulse_near: the IPv4 tuples of [Peers] where a
// keepalive finds them with one look, four in a bucket. An entry has four words:
//
//	word 0: peer (low) and local address, in network order
//	word 1: peer port, local port (low half), flags (high half)
//	word 2: tick of the last keepalive (low), of the last answer (high)
//	word 3: keepalives (low), answers (high)
//
// The kernel writes the last two, we the others; Peers' lock is ours.
type near struct {
	words    words
	writable bool // else a store would fault; the hash, which is written first, refuses too
}

const (
	wordsPerNear = 4
	// flagsShift is where flags stand in word 1, spilledShift where the first
	// entry of a bucket counts, in its flags, the tuples that had no room.
	flagsShift   = 32
	spilledShift = flagsShift + bpf.NearSpilledShift
)

func newNear(m *ebpf.Map, writable bool) (*near, error) {
	w, err := mapWords(m.FD(), int(m.MaxEntries())*bpf.NearWays*wordsPerNear, writable)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", bpf.MapNear, err)
	}
	return &near{words: w, writable: writable}, nil
}

// takes tells which tuples are looked for here: IPv4, and of ESP in UDP, since
// bare ESP has no keepalives.
func (n *near) takes(t Tuple) bool {
	return t.Local.Addr().Unmap().Is4() && t.Peer.Addr().Unmap().Is4() && t.Local.Port() != 0
}

// home returns the number of the first entry of the tuple's bucket.
func (n *near) home(t Tuple) int {
	buckets := len(n.words) / wordsPerNear / bpf.NearWays
	return int(t.hash()&uint32(buckets-1)) * bpf.NearWays
}

// vacancy returns where the tuple can be put, as [bpf.PeerEntry] has it: 0 if
// its bucket is full, or not for it.
func (n *near) vacancy(t Tuple) (place uint32) {
	if !n.takes(t) {
		return 0
	}
	for at, way := n.home(t), 0; way < bpf.NearWays; at, way = at+1, way+1 {
		if uint32(n.words.load(at*wordsPerNear+1)) == 0 {
			return uint32(at + 1)
		}
	}
	return 0
}

// install puts a tuple into its vacancy. The word with the ports comes last: a
// keepalive meets no entry or all of it.
func (n *near) install(place uint32, t Tuple, flags uint32) {
	at := int(place-1) * wordsPerNear
	addresses, ports := nearWords(t)
	n.words.store(at+2, 0)
	n.words.store(at+3, 0)
	n.words.store(at, addresses)
	n.words.store(at+1, n.spilled(at+1)|uint64(flags)<<flagsShift|ports)
}

// nearWords are a tuple as an entry has it: word 0, and the low half of word 1.
func nearWords(t Tuple) (addresses, ports uint64) {
	local, peer := t.Local.Addr().Unmap().As4(), t.Peer.Addr().Unmap().As4()
	return uint64(binary.NativeEndian.Uint32(local[:]))<<32 | uint64(binary.NativeEndian.Uint32(peer[:])),
		uint64(t.Local.Port())<<16 | uint64(t.Peer.Port())
}

func (n *near) remove(place uint32) {
	at := int(place-1)*wordsPerNear + 1
	n.words.store(at, n.spilled(at))
}

// spilled is the count in word at, which is 0 in all but a bucket's first.
func (n *near) spilled(at int) uint64 { return n.words.load(at) >> spilledShift << spilledShift }

func (n *near) addFlags(place, flags uint32) {
	at := int(place-1)*wordsPerNear + 1
	n.words.store(at, n.words.load(at)|uint64(flags)<<flagsShift)
}

// spill counts a tuple that finds no room, and one that had found none when it
// goes: while there is any, XDP looks further.
func (n *near) spill(t Tuple, by int64) {
	if !n.takes(t) {
		return
	}
	at := n.home(t)*wordsPerNear + 1
	n.words.store(at, n.words.load(at)+uint64(by)<<spilledShift)
}

func (n *near) get(place uint32) bpf.Mapping {
	at := int(place-1) * wordsPerNear
	ports, ticks, counts := n.words.load(at+1), n.words.load(at+2), n.words.load(at+3)
	return bpf.Mapping{
		Flags:         uint32(ports>>flagsShift) & (1<<bpf.NearSpilledShift - 1),
		KeepaliveTick: uint32(ticks), AnswerTick: uint32(ticks >> 32),
		Keepalives: uint32(counts), Answers: uint32(counts >> 32),
	}
}

// clear forgets every tuple, and every one that had no room.
func (n *near) clear() error {
	if !n.writable {
		return fmt.Errorf("%s: %w", bpf.MapNear, ErrReadOnly)
	}
	for at := 1; at < len(n.words); at += wordsPerNear {
		if n.words.load(at) != 0 {
			n.words.store(at, 0)
		}
	}
	return nil
}

// close unmaps; no other method may run any more.
func (n *near) close() error {
	w := n.words
	n.words = nil
	return w.unmap()
}
