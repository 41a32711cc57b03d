package xfrm

import (
	"cmp"
	"slices"
)

// ChangeKind is what became of a state.
type ChangeKind uint8

const (
	// Added is a new state, with keys.
	Added ChangeKind = iota + 1
	// Updated is one of which something else than its counters changed.
	Updated
	// Removed is one that is gone.
	Removed
	// Moved is a peer heard from elsewhere; the state is as it was. It is told
	// for each packet, unless the daemon asked the kernel for fewer.
	Moved
)

// Change is one fact about one state.
type Change struct {
	Kind    ChangeKind
	SA      SA      // Removed: as it was last; Moved: as it is
	Old     SA      // Updated
	Mapping Mapping // Moved
}

// table is what is known of the kernel's states: ESP and AH, larval ones
// included.
type table struct {
	states map[Key]SA
}

func newTable() *table { return &table{states: make(map[Key]SA)} }

// apply takes one event over. Events that happened before a dump and are read
// after it do no lasting harm: what they undo is done again by a later one.
func (t *table) apply(e event) []Change {
	switch e.kind {
	case eventSet:
		return t.set(e.sa)
	case eventGone:
		return t.remove(e.sa.Key)
	case eventMoved:
		if sa, known := t.states[e.mapping.Key]; known && !sa.Larval {
			return []Change{{Kind: Moved, SA: sa, Mapping: e.mapping}}
		}
	case eventFlush:
		return t.removeAll(func(k Key) bool { return e.proto == 0 || k.Proto == e.proto })
	}
	return nil
}

// replace takes a whole dump over: what it lacks is gone.
func (t *table) replace(all []SA) []Change {
	present := make(map[Key]bool, len(all))
	for _, sa := range all {
		present[sa.Key] = true
	}
	// Removals come first: a slot or an address that one gives back may be
	// what another takes.
	changes := t.removeAll(func(k Key) bool { return !present[k] })
	for _, sa := range all {
		changes = append(changes, t.set(sa)...)
	}
	return changes
}

func (t *table) set(sa SA) []Change {
	if sa.Proto != ESP && sa.Proto != AH {
		return nil
	}
	old, known := t.states[sa.Key]
	t.states[sa.Key] = sa
	switch {
	case sa.Larval:
		// It is nothing yet to whoever looks on; where it takes the place of
		// a whole one, that one is gone.
		return whole(Removed, old, known)
	case !known || old.Larval:
		return []Change{{Kind: Added, SA: sa}}
	case old.same(sa):
		return nil
	}
	return []Change{{Kind: Updated, SA: sa, Old: old}}
}

func (t *table) remove(k Key) []Change {
	old, known := t.states[k]
	delete(t.states, k)
	return whole(Removed, old, known)
}

// removeAll removes in an order of its own, so that the same input always
// gives the same changes.
func (t *table) removeAll(gone func(Key) bool) (changes []Change) {
	var keys []Key
	for k := range t.states {
		if gone(k) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, compareKeys)
	for _, k := range keys {
		changes = append(changes, t.remove(k)...)
	}
	return changes
}

// whole is a change of a state that was known and had keys, else none.
func whole(kind ChangeKind, sa SA, known bool) []Change {
	if !known || sa.Larval {
		return nil
	}
	return []Change{{Kind: kind, SA: sa}}
}

func compareKeys(a, b Key) int {
	return cmp.Or(a.Dst.Compare(b.Dst), cmp.Compare(a.SPI, b.SPI), cmp.Compare(a.Proto, b.Proto))
}
