package bpf

import "encoding/binary"

// Hash is the value of HotEntry.TupleHash for this tuple, never 0. It follows
// hash.h step for step; two tuples that differ in the ports alone, or in four
// bytes of an address, have different ones.
func (k *ikepulsePeerKey) Hash() uint32 {
	ports := uint32(k.LocalPort)<<16 | uint32(k.PeerPort)
	return max(hashWord(k.hashAddresses(), ports), 1)
}

// hashAddresses takes last the words that tell IPv4 addresses apart.
func (k *ikepulsePeerKey) hashAddresses() uint32 {
	hash := hashSeed
	for _, part := range [][]byte{k.Local[:12], k.Peer[:12], k.Local[12:], k.Peer[12:]} {
		for ; len(part) > 0; part = part[4:] {
			hash = hashWord(hash, binary.NativeEndian.Uint32(part))
		}
	}
	return hash
}

const hashSeed uint32 = 0x85ebca6b

func hashWord(hash, word uint32) uint32 {
	hash = (hash ^ word) * 0x9e3779b1
	return hash ^ hash>>15
}
