package main

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
)

// population is a number of SPIs, and as many tuples, with the maps that know
// them all: the product's, sized as the loader sizes them, and its rivals'.
type population struct {
	members  int
	steady   *ebpf.Map // hot, all stamped in the one tick there is
	moving   *ebpf.Map // hot, for arms with a new tick each frame
	others   map[string]*ebpf.Map
	limit    *ebpf.Map
	mappings *ebpf.Map
	hash     *ebpf.Map

	products map[variant]*product
}

// hot returns the product's hot entries for a variant.
func (p *population) hot(v variant) *ebpf.Map {
	if v.newTicks {
		return p.moving
	}
	return p.steady
}

// steadyTick is the tick of all time when the shift leaves nothing of jiffies.
const steadyTick = 1

// spiOf is pick.h's: members lie all over the slots, none in another's.
func (p *population) spiOf(member uint32) uint32 {
	slot := member * 0x9e3779b1 & p.slotMask()
	tag := member*0x85ebca6b>>maps.SlotBits | 1
	return tag<<maps.SlotBits | slot
}

func (p *population) slotMask() uint32 { return uint32(maps.Entries(p.members) - 1) }

// uniform and zipf are the mutators' constants for this population.
func (p *population) uniform() settings {
	return settings{benchVarMembers: uint32(p.members), benchVarSlotMask: p.slotMask()}
}

func (p *population) zipf() settings {
	const fraction = 27 // pick.h: ZIPF_FRACTION
	s := p.uniform()
	s[benchVarZipf] = uint32(1)
	s[benchVarZipfSpan] = uint32(math.Log2(float64(p.members)) * (1 << fraction))
	return s
}

// populate makes and fills the maps.
func (r *rig) populate(members int) (*population, error) {
	p := &population{members: members, others: make(map[string]*ebpf.Map), products: make(map[variant]*product)}
	spec, err := maps.Spec(members)
	if err != nil {
		return nil, err
	}
	own, err := loadBench()
	if err != nil {
		return nil, err
	}
	if ours, limit := spec.Maps[bpf.MapHot].ValueSize, own.Maps[benchMapLimit].ValueSize; ours != limit {
		return nil, fmt.Errorf("the product has %d bytes an SPI, the limit arm %d: it must follow", ours, limit)
	}
	own.Maps[benchMapLimit].MaxEntries = uint32(maps.Entries(members))
	// As many as the product's tables have room for: short chains.
	own.Maps[benchMapTextbook].MaxEntries = uint32(maps.Entries(members))
	own.Maps[benchMapMappings].MaxEntries = uint32(maps.Entries(members))
	if ours, limit := spec.Maps[bpf.MapNear].ValueSize, own.Maps[benchMapMappings].ValueSize*uint32(bpf.NearWays); ours != limit {
		return nil, fmt.Errorf("the product has buckets of %d bytes, the limit arm of %d: it must follow", ours, limit)
	}
	made := map[**ebpf.Map]*ebpf.MapSpec{
		&p.steady: spec.Maps[bpf.MapHot], &p.moving: spec.Maps[bpf.MapHot],
		&p.limit: own.Maps[benchMapLimit], &p.hash: own.Maps[benchMapTextbook],
		&p.mappings: own.Maps[benchMapMappings],
	}
	for place, spec := range made {
		if *place, err = r.newMap(spec); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{bpf.MapSAs, bpf.MapPeers, bpf.MapNear, bpf.MapLocals} {
		if p.others[name], err = r.newMap(spec.Maps[name]); err != nil {
			return nil, err
		}
	}
	return p, p.fill()
}

func (r *rig) newMap(spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("%s of %d: %w", spec.Name, spec.MaxEntries, err)
	}
	r.own(m)
	return m, nil
}

func (p *population) fill() error {
	slots := make([]uint32, p.members)
	steady := make([]bpf.HotEntry, p.members)
	limit := make([]benchLimitEntry, p.members)
	hashKeys := make([]benchTextbookKey, p.members)
	peerKeys := make([]bpf.PeerKey, p.members)
	peers := make([]bpf.PeerEntry, p.members)
	near := newBuckets(p.members)
	one := tuple(gatewayAddr, 0)
	dst := binary.NativeEndian.Uint32(gatewayAddr.AsSlice())
	for i := range slots {
		spi := p.spiOf(uint32(i))
		slots[i] = spi & bpf.SlotField
		steady[i] = bpf.HotEntry{Spi: spi, Seen: steadyTick, TupleHash: one.Hash()}
		limit[i] = benchLimitEntry{Spi: spi}
		hashKeys[i] = benchTextbookKey{Spi: spi, Dst: dst}
		peerKeys[i] = tuple(gatewayAddr, uint32(i))
		peers[i] = near.add(peerKeys[i])
	}
	local := bpf.LocalKey{Address: gatewayAddr.As16()}
	if err := p.others[bpf.MapLocals].Put(local, uint32(0)); err != nil {
		return err
	}
	for _, batch := range []struct {
		to           *ebpf.Map
		keys, values any
	}{
		{p.steady, slots, steady},
		{p.moving, slots, steady},
		{p.limit, slots, limit},
		{p.hash, hashKeys, make([]benchTextbookEntry, p.members)},
		{p.others[bpf.MapPeers], peerKeys, peers},
		{p.others[bpf.MapNear], near.numbers(), near},
	} {
		if _, err := batch.to.BatchUpdate(batch.keys, batch.values, nil); err != nil {
			return fmt.Errorf("filling %v: %w", batch.to, err)
		}
	}
	return nil
}

// buckets are the product's, filled as it fills them.
type buckets []bpf.NearBucket

func newBuckets(members int) buckets {
	return make(buckets, max(maps.Entries(members)/bpf.NearWays, 1))
}

func (b buckets) numbers() []uint32 {
	all := make([]uint32, len(b))
	for i := range all {
		all[i] = uint32(i)
	}
	return all
}

// add puts a natted peer's tuple into its bucket, and returns what peers has
// of it.
func (b buckets) add(key bpf.PeerKey) bpf.PeerEntry {
	mapping := bpf.Mapping{Flags: bpf.PeerNATted}
	index := key.Hash() & uint32(len(b)-1)
	for way := range b[index].Entries {
		e := &b[index].Entries[way]
		if e.LocalPort != 0 {
			continue
		}
		e.Peer, e.Local = binary.NativeEndian.Uint32(key.Peer[12:]), binary.NativeEndian.Uint32(key.Local[12:])
		e.PeerPort, e.LocalPort = key.PeerPort, key.LocalPort
		e.Mapping.Flags |= bpf.PeerNATted
		return bpf.PeerEntry{Owners: 1, Place: index*uint32(bpf.NearWays) + uint32(way) + 1}
	}
	b[index].Entries[0].Mapping.Flags += 1 << bpf.NearSpilledShift
	return bpf.PeerEntry{Owners: 1, Mapping: mapping}
}

func (p *population) String() string {
	switch {
	case p.members == 1:
		return "1 (hot)"
	case p.members%1_000_000 == 0:
		return fmt.Sprintf("%dM", p.members/1_000_000)
	case p.members%1000 == 0:
		return fmt.Sprintf("%dk", p.members/1000)
	}
	return fmt.Sprint(p.members)
}
