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

// The rows of keepaliveRows. Floors come first, then the limit.
const (
	dropFloor = iota
	txFloor
	leastDone
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
	least, err := b.program(benchProgLimitKeepalive, settings{benchVarSlotMask: p.slotMask()}, map[string]*ebpf.Map{benchMapMappings: p.mappings})
	if err == nil {
		err = add(armLeastDone, least, way{verdict: bpf.VerdictDrop})
	}
	if err != nil {
		return nil, err
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

const armLeastDone = "parse, load and store of 32 B (limit)"

// addKeepalives adds the arms, each measured as run says.
func (s *section) addKeepalives(rows []keepaliveRow, run func(keepaliveRow) func() (float64, error)) (arms []*arm) {
	for i, row := range rows {
		var floor *arm
		switch i {
		case leastDone, absorbed:
			floor = arms[dropFloor]
		case answered:
			floor = arms[txFloor]
		}
		arms = append(arms, s.add(row.name, floor, run(row)))
	}
	arms[absorbed].limit = arms[leastDone]
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

	s := b.section(fmt.Sprintf("Keepalives on a link, with stack and reader, tuples at random: %s", p), p.members == 1)
	s.rival = "kernel"
	arms := s.addKeepalives(rows, b.live)
	kernel, err := b.addKernel(s, p, arms[dropFloor])
	if err == nil {
		err = b.addReaders(s, p, rows[dropFloor])
	}
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
	l := b.onLink(row)
	switch {
	case row.reason == bpf.ReasonKeepaliveAnswered:
		l.arrived = b.turned
	case row.verdict == bpf.VerdictTX:
		l.arrived = b.sunk
	}
	return l.run
}

func (b *bench) onLink(row keepaliveRow) *live {
	return &live{
		rig: b.rig, site: b.site, way: row.way,
		program: row.head, frame: keepalive(gatewayAddr), frames: b.liveFrames, burst: b.liveFrames,
	}
}

// passed is what takes keepalives that XDP passes to an address.
func (b *bench) passed(p *population, to netip.Addr, drain func(int) error) (*live, error) {
	passes, err := b.program(benchProgFloorPass, nil, nil)
	if err != nil {
		return nil, err
	}
	head, err := b.before(p.keepaliveMutator(keepalive(to)), passes)
	l := b.onLink(keepaliveRow{head: head, way: way{mutated: true, verdict: bpf.VerdictPass}})
	l.frame, l.drain, l.arrived = keepalive(to), drain, datagrams
	return l, err
}

// addKernel adds the kernel's own way with keepalives, for its ESP. It is nil
// where the kernel refuses.
func (b *bench) addKernel(s *section, p *population, floor *arm) (*arm, error) {
	if b.encap == nil {
		return nil, nil
	}
	l, err := b.passed(p, gatewayAddr, b.encap.empty)
	if err != nil {
		return nil, err
	}
	return s.add("kernel, UDP_ENCAP drops it", floor, l.run), nil
}

// addReaders adds readers in Go. What they read has come in a burst, so that
// they never sleep, and their floor has come in such bursts, too: a call that
// sends frames takes half a millisecond to begin and end.
func (b *bench) addReaders(s *section, p *population, dropping keepaliveRow) error {
	frames := b.liveFrames / 8 // they take long
	l := b.onLink(dropping)
	l.burst = readerBurst
	floor := s.add("mutator, bare drop, in bursts (floor)", nil, l.run)
	for _, row := range []struct {
		name  string
		drain func(int) error
	}{
		{"Go socket, ReadBatch of 64", b.readers.batches},
		{"Go socket, a read each", b.readers.singles},
	} {
		l, err := b.passed(p, readerAddr, row.drain)
		if err != nil {
			return err
		}
		l.frames, l.burst = frames, readerBurst
		s.add(row.name, floor, l.run)
	}
	return nil
}
