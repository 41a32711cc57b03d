package main

import (
	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// arm is one thing to measure, and what to compare it with: arms of the same
// section, so of the same frames and rounds.
type arm struct {
	name  string
	floor *arm                           // the same harness around a program that does nothing; nil for a floor
	limit *arm                           // the least that can be done for the frame, or nil
	rival *arm                           // another way to do it, or nil
	run   func() (ns float64, err error) // one measurement
	ns    []float64                      // one a round
}

// section is a table. Hot says that all its frames hit the same cache lines.
type section struct {
	title string
	hot   bool
	rival string // what rivals are called here
	arms  []*arm
}

func (s *section) add(name string, floor *arm, run func() (float64, error)) *arm {
	a := &arm{name: name, floor: floor, run: run}
	s.arms = append(s.arms, a)
	return a
}

// arm returns the arm of that name, nil if it is yet to come.
func (s *section) arm(name string) *arm {
	for _, a := range s.arms {
		if a.name == name {
			return a
		}
	}
	return nil
}

// trial returns the measurement of a program alone.
func (b *bench) trial(program *ebpf.Program, frame []byte, w way) func() (float64, error) {
	t := &trial{rig: b.rig, way: w, program: program, frame: frame, repeat: b.repeat}
	return t.run
}

// mutated returns the measurement of a program behind a mutator.
func (b *bench) mutated(m mutator, program *ebpf.Program, w way) (func() (float64, error), error) {
	head, err := b.before(m, program)
	w.mutated = true
	return b.trial(head, m.frame, w), err
}

// constant adds the section of frames that are all the same and touch nothing
// that is kept for an SPI, and of one tuple's keepalive in the same light.
func (b *bench) constant(p *population) error {
	s := b.section("The same frame each time, in memory", true)
	pass, err := b.program(benchProgFloorPass, nil, nil)
	if err != nil {
		return err
	}
	drop, err := b.program(benchProgFloorDrop, nil, nil)
	if err != nil {
		return err
	}
	passed := s.add("bare pass (floor)", nil, b.trial(pass, tcp(), way{verdict: bpf.VerdictPass}))
	dropped := s.add("bare drop (floor)", nil, b.trial(drop, tcp(), way{verdict: bpf.VerdictDrop}))
	for _, row := range []struct {
		name string
		variant
		frame  []byte
		reason bpf.Reason
		floor  *arm
	}{
		{"ikepulse, non-IPsec (TCP)", variant{}, tcp(), bpf.ReasonNotIPsec, passed},
		{"ikepulse, IKE on 500", variant{}, ike(ikePort), bpf.ReasonIKE500, passed},
		{"ikepulse, IKE on 4500", variant{}, ike(nattPort), bpf.ReasonIKENATT, passed},
		{"ikepulse, keepalive_absorbed", variant{absorb: true}, keepalive(gatewayAddr), bpf.ReasonKeepaliveAbsorbed, dropped},
	} {
		product, err := b.product(p, row.variant)
		if err != nil {
			return err
		}
		w := way{product: product, reason: row.reason, verdict: row.reason.Verdict()}
		s.add(row.name, row.floor, b.trial(product.XDP, row.frame, w))
	}
	b.aim(aim{what: "a keepalive absorbed in memory, one tuple", of: s.arms[len(s.arms)-1], to: dropped, bound: aimFloor})
	return nil
}
