package main

import (
	"errors"
	"fmt"
	"io"
	stdmaps "maps"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
)

// rig holds what the arms of one run share. Nothing of it is pinned or, but for
// the far end of a link in a namespace of its own, attached.
type rig struct {
	state   *ebpf.Map // benchShared
	flags   uint32    // of the product's program, as loaded: tail calls go only to their like
	closers []io.Closer
}

func newRig() (*rig, error) {
	product, err := bpf.Load()
	if err != nil {
		return nil, err
	}
	spec, err := loadBench()
	if err != nil {
		return nil, err
	}
	// As the library makes a program's own.
	spec.Maps[sectionOfState].Flags |= unix.BPF_F_MMAPABLE
	state, err := ebpf.NewMap(spec.Maps[sectionOfState])
	if err != nil {
		return nil, fmt.Errorf("shared state: %w", err)
	}
	return &rig{
		state: state, flags: product.Programs[bpf.ProgXDP].Flags,
		closers: []io.Closer{state},
	}, nil
}

// sectionOfState is where the compiler puts variables that begin as zero.
const sectionOfState = ".bss"

func (r *rig) own(c io.Closer) { r.closers = append(r.closers, c) }

func (r *rig) close() (err error) {
	for i := len(r.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, r.closers[i].Close())
	}
	return err
}

func (r *rig) shared() (s benchShared, err error) {
	return s, r.state.Lookup(uint32(0), &s)
}

// settings are constants of a program, by name.
type settings map[string]any

// load loads one program of the bench, with maps in place of its own.
func (r *rig) load(name string, constants settings, replace map[string]*ebpf.Map) (*ebpf.Collection, error) {
	spec, err := loadBench()
	if err != nil {
		return nil, err
	}
	for constant, value := range constants {
		if err := spec.Variables[constant].Set(value); err != nil {
			return nil, fmt.Errorf("setting %s: %w", constant, err)
		}
	}
	program := spec.Programs[name]
	program.Flags = r.flags
	spec.Programs = map[string]*ebpf.ProgramSpec{name: program}
	all := map[string]*ebpf.Map{sectionOfState: r.state}
	for name, m := range replace {
		all[name] = m
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
	loaded, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: all})
	if err != nil {
		return nil, fmt.Errorf("%s: %+w", name, err)
	}
	r.own(closer(loaded.Close))
	return loaded, nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

// program loads a program that stands for itself.
func (r *rig) program(name string, constants settings, replace map[string]*ebpf.Map) (*ebpf.Program, error) {
	loaded, err := r.load(name, constants, replace)
	if err != nil {
		return nil, err
	}
	return loaded.Programs[name], nil
}

// before puts a mutator in front of a program. The array that says where it
// goes on stays open in the rig: the kernel empties it when nobody has it.
func (r *rig) before(m mutator, program *ebpf.Program) (*ebpf.Program, error) {
	loaded, err := r.load(m.program, m.constants, m.maps)
	if err != nil {
		return nil, err
	}
	if err := loaded.Maps[benchMapNext].Put(uint32(0), program); err != nil {
		return nil, fmt.Errorf("%s before %v: %w", m.program, program, err)
	}
	return loaded.Programs[m.program], nil
}

// mutator makes each frame another one.
type mutator struct {
	program   string
	constants settings
	maps      map[string]*ebpf.Map
	frame     []byte
}

// chained lets the next SPI wait for the last one's entry of an array.
func (m mutator) chained(entries *ebpf.Map) mutator {
	m.maps = map[string]*ebpf.Map{benchMapLimit: entries}
	m.constants = stdmaps.Clone(m.constants)
	m.constants[benchVarChained] = uint32(1)
	return m
}
