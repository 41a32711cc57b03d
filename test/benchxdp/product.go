package main

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
)

// variant is one way to load the product's program.
type variant struct {
	newTicks bool // each frame in a tick of its own, instead of all in one
	account  bool
	absorb   bool // keepalives, instead of answering them
}

// product is the product's program as it ships, loaded but not attached; only
// with newTicks its clock is another.
type product struct {
	XDP   *ebpf.Program `ebpf:"ikepulse_xdp"`
	Stats *ebpf.Map     `ebpf:"ikepulse_stats"`
}

// product returns a variant with the maps of a population, the same each time.
func (r *rig) product(p *population, v variant) (*product, error) {
	if p.products[v] == nil {
		loaded, err := r.loadProduct(p, v)
		if err != nil {
			return nil, fmt.Errorf("the product's program: %w", err)
		}
		p.products[v] = loaded
	}
	return p.products[v], nil
}

func (r *rig) loadProduct(p *population, v variant) (*product, error) {
	spec, err := maps.Spec(p.members)
	if err != nil {
		return nil, err
	}
	for name, value := range v.settings(p) {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("setting %s: %w", name, err)
		}
	}
	xdp := spec.Programs[bpf.ProgXDP]
	xdp.Flags = r.flags
	replace := map[string]*ebpf.Map{bpf.MapHot: p.hot(v)}
	if v.newTicks {
		if xdp.Instructions, err = tickFrom(xdp.Instructions, r.state); err != nil {
			return nil, err
		}
	}
	for name, m := range p.others {
		replace[name] = m
	}
	var loaded product
	if err := spec.LoadAndAssign(&loaded, &ebpf.CollectionOptions{MapReplacements: replace}); err != nil {
		return nil, err
	}
	r.own(loaded.XDP)
	r.own(loaded.Stats)
	return &loaded, nil
}

// settings let every keepalive of a natted peer be answered once a tick.
func (v variant) settings(p *population) settings {
	s := settings{
		bpf.VarSlotMask: p.slotMask(), bpf.VarNATTPort: uint16(nattPort), bpf.VarTickShift: uint32(63),
		bpf.VarAnswerInterval: uint32(0), bpf.VarAnswerBudget: uint32(math.MaxUint32),
	}
	if v.newTicks {
		s[bpf.VarTickShift] = uint32(0)
	}
	if v.account {
		s[bpf.VarAccountEveryPacket] = uint32(1)
	}
	if v.absorb {
		s[bpf.VarKeepaliveMode] = bpf.KeepaliveAbsorb
	}
	return s
}

// counters are frames by reason, over all CPUs.
func (p *product) counters() (all [bpf.ReasonCount]uint64, err error) {
	var perCPU []bpf.Counters
	if err := p.Stats.Lookup(uint32(0), &perCPU); err != nil {
		return all, err
	}
	for reason := range bpf.ReasonCount {
		for _, counters := range perCPU {
			all[reason] += counters.Of(reason)
		}
	}
	return all, nil
}
