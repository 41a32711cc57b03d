// Package maps gives the BPF maps a shape: typed views of what XDP and the
// daemon share, the mapped hot entries that are read without a system call,
// the clock that turns ticks into time, and the allocator of inbound SPIs,
// since their low bits are the index of the maps.
//
// Who writes what is in bpf/abi.h. Nothing here starts a goroutine.
package maps

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// Handles are the kernel's objects behind a Set. The tags let
// [ebpf.CollectionSpec.LoadAndAssign] fill them.
type Handles struct {
	Hot    *ebpf.Map     `ebpf:"ikepulse_hot"`
	SAs    *ebpf.Map     `ebpf:"ikepulse_sas"`
	Peers  *ebpf.Map     `ebpf:"ikepulse_peers"`
	Near   *ebpf.Map     `ebpf:"ikepulse_near"`
	Follow *ebpf.Map     `ebpf:"ikepulse_follow"`
	Locals *ebpf.Map     `ebpf:"ikepulse_locals"`
	Stats  *ebpf.Map     `ebpf:"ikepulse_stats"`
	Budget *ebpf.Map     `ebpf:"ikepulse_budget"`
	Events *ebpf.Map     `ebpf:"ikepulse_events"`
	Meta   *ebpf.Map     `ebpf:"ikepulse_meta"`
	Clock  *ebpf.Program `ebpf:"ikepulse_clock"`
}

// Maps returns the maps by name.
func (h *Handles) Maps() map[string]*ebpf.Map {
	byName := make(map[string]*ebpf.Map)
	for name, m := range h.maps() {
		byName[name] = *m
	}
	return byName
}

// maps returns the places of the maps by name.
func (h *Handles) maps() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		bpf.MapHot: &h.Hot, bpf.MapSAs: &h.SAs, bpf.MapPeers: &h.Peers,
		bpf.MapNear: &h.Near, bpf.MapFollow: &h.Follow,
		bpf.MapLocals: &h.Locals, bpf.MapStats: &h.Stats,
		bpf.MapBudget: &h.Budget, bpf.MapEvents: &h.Events, bpf.MapMeta: &h.Meta,
	}
}

// Pin pins every map and the clock program in dir, under its own name.
func (h *Handles) Pin(dir string) error {
	for name, m := range h.maps() {
		if err := (*m).Pin(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("pinning %s: %w", name, err)
		}
	}
	if err := h.Clock.Pin(filepath.Join(dir, bpf.ProgClock)); err != nil {
		return fmt.Errorf("pinning %s: %w", bpf.ProgClock, err)
	}
	return nil
}

// Close closes what is there.
func (h *Handles) Close() error {
	err := h.Clock.Close()
	for _, m := range h.maps() {
		err = errors.Join(err, (*m).Close())
	}
	return err
}

// LoadPinned opens what [Handles.Pin] left in dir; readOnly for everybody but
// the one who tracks. It checks nothing: see [Differences].
func LoadPinned(dir string, readOnly bool) (Handles, error) {
	var h Handles
	err := func() (err error) {
		for name, m := range h.maps() {
			// A read-only descriptor cannot be mapped shared, not even to
			// read: these are guarded by their mappings instead.
			mapped := name == bpf.MapHot || name == bpf.MapNear
			opts := &ebpf.LoadPinOptions{ReadOnly: readOnly && !mapped}
			if *m, err = ebpf.LoadPinnedMap(filepath.Join(dir, name), opts); err != nil {
				return fmt.Errorf("opening the pin of %s: %w", name, err)
			}
		}
		h.Clock, err = ebpf.LoadPinnedProgram(filepath.Join(dir, bpf.ProgClock), nil)
		if err != nil {
			return fmt.Errorf("opening the pin of %s: %w", bpf.ProgClock, err)
		}
		return nil
	}()
	if err != nil {
		return Handles{}, errors.Join(err, h.Close())
	}
	return h, nil
}

// Set is one instance's maps. Its views say who may use them from where.
type Set struct {
	Ledger
	SAs    *SAs
	Peers  *Peers
	Locals *Locals
	Stats  *Stats
	Meta   Meta // as it was when the set was opened

	handles Handles
}

// Open returns the views of maps that were just loaded or taken over; their
// meta is written. They belong to the set from then on, on an error still to
// the caller.
func Open(h Handles) (*Set, error) { return open(h, true) }

// Settings are those of now: another process may have attached the program with
// others over the same maps.
func (s *Set) Settings() (Meta, error) { return ReadMeta(s.handles.Meta) }

// OpenPinned returns views of the maps pinned in dir that cannot change them:
// Track and the like fail, Evidence and all that lists work. Maps of another
// layout are refused, not misread. An error wraps [os.ErrNotExist] when there
// are none.
func OpenPinned(dir string) (*Set, error) {
	h, err := LoadPinned(dir, true)
	if err != nil {
		return nil, err
	}
	s, err := openChecked(h)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), h.Close())
	}
	return s, nil
}

func openChecked(h Handles) (*Set, error) {
	meta, err := ReadMeta(h.Meta)
	if err != nil {
		return nil, err
	}
	spec, err := SpecFor(meta)
	if err != nil {
		return nil, err
	}
	if differ := Differences(spec, h); len(differ) > 0 {
		return nil, fmt.Errorf("made by another version: %s", strings.Join(differ, "; "))
	}
	return open(h, false)
}

func open(h Handles, writable bool) (*Set, error) {
	meta, err := ReadMeta(h.Meta)
	if err != nil {
		return nil, err
	}
	clock, err := ResumeClock(h.Clock, meta.Jiffy, meta.TickShift)
	if err != nil {
		return nil, err
	}
	hot, err := newHot(h.Hot, writable)
	if err != nil {
		return nil, err
	}
	near, err := newNear(h.Near, writable)
	if err != nil {
		return nil, errors.Join(err, hot.Close())
	}
	var more *beyond
	if writable && !meta.Follow {
		more = newBeyond(meta.Capacity)
	}
	return &Set{
		Ledger: Ledger{Hot: hot, Clock: clock, beyond: more},
		SAs:    &SAs{h.SAs}, Peers: &Peers{m: h.Peers, near: near}, Locals: &Locals{h.Locals},
		Stats: &Stats{h.Stats}, Meta: meta, handles: h,
	}, nil
}

// Close unmaps and closes everything; no view may be used any more.
func (s *Set) Close() error {
	return errors.Join(s.Hot.Close(), s.Peers.near.close(), s.handles.Close())
}
