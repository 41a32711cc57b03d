package bpf

import (
	"testing"
)

// Every tuple of a full house is known, whichever way of its bucket it has, and
// so are those that found no room.
func TestFullBuckets(t *testing.T) {
	r := load(t)
	var all []frame
	for port := range uint16(40) { // 8 entries in 2 buckets
		all = append(all, fromPort(1000+port))
	}
	for _, f := range all {
		r.local(f).peer(f, peerState{Owners: 1, Flags: PeerNATted})
	}
	for _, f := range all {
		r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
		r.expect(f, ReasonKeepaliveLimited, r.keptAlive(f))
	}
	stranger := fromPort(2000)
	r.expect(stranger, ReasonStrangerDropped, r.strange(stranger))
}

// peers is asked only where a bucket says that some found no room in it: a
// flood of strangers does not pay for its four cache lines.
func TestPeersIsAskedOfSpilledBuckets(t *testing.T) {
	f := keepalive()
	r := load(t).local(f)
	r.put(r.IkepulsePeers, f.tuple(), PeerEntry{Owners: 1, Mapping: Mapping{Flags: PeerNATted}})
	r.expect(f, ReasonStrangerDropped, r.strange(f))

	key := f.tuple()
	index := key.Hash() & (slots/uint32(NearWays) - 1)
	var bucket NearBucket
	bucket.Entries[0].Mapping.Flags = 1 << NearSpilledShift
	r.put(r.IkepulseNear, index, bucket)
	r.expect(f, ReasonKeepaliveAnswered, r.answered(f))
}
