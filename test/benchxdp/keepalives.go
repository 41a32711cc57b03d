package main

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// keepaliveMutator writes each keepalive anew, from any of the members.
func (p *population) keepaliveMutator(frame []byte) mutator {
	constants := template(frame)
	constants[benchVarMembers] = uint32(p.members)
	return mutator{program: benchProgMutateKeepalive, constants: constants, frame: frame}
}

// keepaliveRow is a program that takes keepalives, behind its mutator.
type keepaliveRow struct {
	name string
	head *ebpf.Program
	way
}

// The rows of keepaliveRows. Floors come first.
const (
	dropFloor = iota
	txFloor
	absorbed
	answered
)

// keepaliveRows load a floor and the product for both verdicts. Every keepalive
// comes in a tick of its own, as it would.
func (b *bench) keepaliveRows(p *population) (rows []keepaliveRow, err error) {
	m := p.keepaliveMutator(keepalive(gatewayAddr))
	add := func(name string, program *ebpf.Program, w way) error {
		w.mutated = true
		head, err := b.before(m, program)
		rows = append(rows, keepaliveRow{name, head, w})
		return err
	}
	for _, floor := range []struct {
		program string
		verdict bpf.Verdict
	}{
		dropFloor: {benchProgFloorDrop, bpf.VerdictDrop},
		txFloor:   {benchProgFloorTx, bpf.VerdictTX},
	} {
		program, err := b.program(floor.program, nil, nil)
		if err == nil {
			err = add(fmt.Sprintf("mutator, bare %v (floor)", floor.verdict), program, way{verdict: floor.verdict})
		}
		if err != nil {
			return nil, err
		}
	}
	for _, reason := range []bpf.Reason{bpf.ReasonKeepaliveAbsorbed, bpf.ReasonKeepaliveAnswered} {
		product, err := b.product(p, variant{newTicks: true, absorb: reason == bpf.ReasonKeepaliveAbsorbed})
		if err == nil {
			err = add(fmt.Sprintf("ikepulse, %v", reason), product.XDP, way{product: product, reason: reason, verdict: reason.Verdict()})
		}
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// addKeepalives adds the four arms, each measured as run says.
func (s *section) addKeepalives(rows []keepaliveRow, run func(keepaliveRow) func() (float64, error)) (arms []*arm) {
	for i, row := range rows {
		var floor *arm
		if i >= absorbed {
			floor = arms[i-absorbed]
		}
		arms = append(arms, s.add(row.name, floor, run(row)))
	}
	return arms
}

// keepalives adds the sections of one population: in memory, and on the link.
func (b *bench) keepalives(p *population) error {
	rows, err := b.keepaliveRows(p)
	if err != nil {
		return err
	}
	b.section(fmt.Sprintf("Keepalives in memory, tuples at random: %s", p), p.members == 1).
		addKeepalives(rows, func(row keepaliveRow) func() (float64, error) {
			return b.trial(row.head, keepalive(gatewayAddr), row.way)
		})

	s := b.section(fmt.Sprintf("Keepalives on a link, all CPU time, tuples at random: %s", p), p.members == 1)
	s.rival = "kernel"
	arms := s.addKeepalives(rows, b.live)
	kernel, err := b.addSockets(s, p, arms[dropFloor])
	if err != nil {
		return err
	}
	arms[absorbed].rival, arms[answered].rival = kernel, kernel
	b.aimKeepalives(p, arms, kernel)
	b.savings = append(b.savings, saving{p, kernel, arms[absorbed], arms[answered]})
	return nil
}

// live returns the measurement of a row on the link.
func (b *bench) live(row keepaliveRow) func() (float64, error) {
	l := &live{
		rig: b.rig, site: b.site, way: row.way,
		program: row.head, frame: keepalive(gatewayAddr), frames: b.liveFrames, burst: b.liveFrames,
	}
	switch {
	case row.reason == bpf.ReasonKeepaliveAnswered:
		l.arrived = b.turned
	case row.verdict == bpf.VerdictTX:
		l.arrived = b.sunk
	}
	return l.run
}

// addSockets adds what takes keepalives that XDP passes: the kernel for its own
// ESP, which is returned, and readers in Go.
func (b *bench) addSockets(s *section, p *population, floor *arm) (kernel *arm, err error) {
	passes, err := b.program(benchProgFloorPass, nil, nil)
	if err != nil {
		return nil, err
	}
	frames := b.liveFrames / 4 // they take long
	add := func(name string, to netip.Addr, burst int, drain func(int) error) (*arm, error) {
		frame := keepalive(to)
		head, err := b.before(p.keepaliveMutator(frame), passes)
		l := &live{
			rig: b.rig, site: b.site, way: way{mutated: true, verdict: bpf.VerdictPass},
			program: head, frame: frame, frames: frames, burst: burst,
			drain: drain, arrived: datagrams,
		}
		return s.add(name, floor, l.run), err
	}
	if b.encap != nil {
		if kernel, err = add("kernel, UDP_ENCAP drops it", gatewayAddr, frames, b.encap.empty); err != nil {
			return nil, err
		}
	}
	if _, err = add("Go socket, ReadBatch of 64", readerAddr, readerBurst, b.readers.batches); err != nil {
		return nil, err
	}
	_, err = add("Go socket, a read each", readerAddr, readerBurst, b.readers.singles)
	return kernel, err
}
