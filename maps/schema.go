package maps

import (
	"fmt"
	stdmaps "maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// Spec returns the specification of program and maps with every map sized for
// so many tunnels of our own.
func Spec(capacity int) (*ebpf.CollectionSpec, error) {
	spec, err := bpf.Load()
	if err != nil {
		return nil, err
	}
	entries := uint32(Entries(capacity))
	for _, name := range []string{bpf.MapHot, bpf.MapSAs, bpf.MapPeers} {
		spec.Maps[name].MaxEntries = entries
	}
	spec.Maps[bpf.MapNear].MaxEntries = max(entries/uint32(bpf.NearWays), 1)
	spec.Maps[bpf.MapFollow].MaxEntries = 1
	return spec, nil
}

// SpecFor is Spec for what m says, which may be to follow another daemon.
func SpecFor(m Meta) (*ebpf.CollectionSpec, error) {
	spec, err := Spec(m.Capacity)
	if err == nil && m.Follow {
		spec.Maps[bpf.MapFollow].MaxEntries = uint32(Entries(m.Capacity))
	}
	return spec, err
}

// Differences says in what the maps are not what spec asks for, a sentence
// each, in the order of their names: type, sizes and flags. Maps that differ
// in any of these must not be read.
func Differences(spec *ebpf.CollectionSpec, h Handles) (all []string) {
	byName := h.maps()
	for _, name := range slices.Sorted(stdmaps.Keys(byName)) {
		want, have := spec.Maps[name], *byName[name]
		differ := func(what string, have, want any) {
			if have != want {
				all = append(all, fmt.Sprintf("%s has %s %v, not %v", name, what, have, want))
			}
		}
		differ("type", have.Type(), want.Type)
		differ("key size", have.KeySize(), want.KeySize)
		differ("value size", have.ValueSize(), want.ValueSize)
		differ("max entries", have.MaxEntries(), want.MaxEntries)
		differ("flags", have.Flags(), want.Flags)
	}
	return all
}
