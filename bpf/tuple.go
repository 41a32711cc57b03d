package bpf

import "encoding/binary"

// Hash is the value of HotEntry.TupleHash for this tuple, never 0. It follows
// hash.h step for step. Two tuples that differ in one address word or in the
// ports only never collide.
func (k *ikepulsePeerKey) Hash() uint32 {
	hash := hashSeed
	for _, address := range [2][]byte{k.Local[:12], k.Peer[:12]} {
		for ; len(address) > 0; address = address[4:] {
			hash = hashWord(hash, binary.NativeEndian.Uint32(address))
		}
	}
	hash = hashWord(hash, binary.NativeEndian.Uint32(k.Local[12:]))
	hash = hashWord(hash, binary.NativeEndian.Uint32(k.Peer[12:]))
	hash = hashWord(hash, uint32(k.LocalPort)<<16|uint32(k.PeerPort))
	return max(hash, 1)
}

const hashSeed uint32 = 0x85ebca6b

func hashWord(hash, word uint32) uint32 {
	hash = (hash ^ word) * 0x9e3779b1
	return hash ^ hash>>15
}
