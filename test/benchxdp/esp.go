package main

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// spread is how often which of the members sends.
type spread struct {
	name      string
	constants func(*population) settings
}

var (
	uniform = spread{"uniform", (*population).uniform}
	zipf    = spread{"Zipf, exponent 1", (*population).zipf}
)

// Arms of ESP that others are compared with, or that figures are made of.
const (
	armPass     = "mutator, bare pass (floor)"
	armLimit    = "parse, load of 16 B (limit)"
	armChained  = "parse, load, chained (limit)"
	armTextbook = "hash (SPI, dst), ktime (textbook)"

	armOneTick         = "ikepulse, one tick"
	armNewTicks        = "ikepulse, new ticks"
	armNewTicksChained = "ikepulse, new ticks, chained"
)

// espSection is ESP in UDP, each frame with another SPI.
type espSection struct {
	*section
	bench      *bench
	population *population
	spread     spread
	mutator    mutator
}

func (b *bench) esp(p *population, how spread) error {
	s := &espSection{
		section: b.section(fmt.Sprintf("ESP in UDP, the tracker only, SPIs at random: %s, %s", p, how.name), p.members == 1),
		bench:   b, population: p, spread: how,
		mutator: mutator{program: benchProgMutateEsp, constants: how.constants(p), frame: esp()},
	}
	s.rival = "textbook"
	if err := s.addOthers(); err != nil {
		return err
	}
	if err := s.addProduct(); err != nil {
		return err
	}
	b.aimESP(s)
	b.taxes = append(b.taxes, s)
	return nil
}

// behind adds an arm behind the mutator. The next SPI waits for the last one's
// entry of an array, unless there is none.
func (s *espSection) behind(name string, p *ebpf.Program, entries *ebpf.Map, w way) (*arm, error) {
	m := s.mutator
	if entries != nil {
		m = m.chained(entries)
	}
	run, err := s.bench.mutated(m, p, w)
	return s.add(name, s.arm(armPass), run), err
}

// addOthers adds what is not the product.
func (s *espSection) addOthers() error {
	limit := map[string]*ebpf.Map{benchMapLimit: s.population.limit}
	hash := map[string]*ebpf.Map{benchMapTextbook: s.population.hash}
	for _, row := range []struct {
		name, program string
		maps          map[string]*ebpf.Map
		entries       *ebpf.Map
	}{
		{armPass, benchProgFloorPass, nil, nil},
		{"parse", benchProgParseOnly, nil, nil},
		{armLimit, benchProgLimitLoad, limit, nil},
		{"parse, load and store", benchProgLimitStore, limit, nil},
		{armChained, benchProgLimitLoad, limit, s.population.limit},
		{armTextbook, benchProgTextbookKtime, hash, nil},
		{"hash (SPI, dst), jiffies if new", benchProgTextbookTick, hash, nil},
	} {
		constants := settings{benchVarSlotMask: s.population.slotMask()}
		program, err := s.bench.program(row.program, constants, row.maps)
		if err != nil {
			return err
		}
		if _, err := s.behind(row.name, program, row.entries, way{verdict: bpf.VerdictPass}); err != nil {
			return err
		}
	}
	return nil
}

func (s *espSection) addProduct() error {
	for _, row := range []struct {
		name string
		variant
		chained bool
	}{
		{armOneTick, variant{}, false},
		{armNewTicks, variant{newTicks: true}, false},
		{armNewTicksChained, variant{newTicks: true}, true},
		{"ikepulse, one tick, accounting", variant{account: true}, false},
		{"ikepulse, new ticks, accounting", variant{newTicks: true, account: true}, false},
	} {
		product, err := s.bench.product(s.population, row.variant)
		if err != nil {
			return err
		}
		limit, entries := armLimit, (*ebpf.Map)(nil)
		if row.chained {
			limit, entries = armChained, s.population.hot(row.variant)
		}
		w := way{product: product, reason: bpf.ReasonESPUDPKnown, verdict: bpf.VerdictPass}
		a, err := s.behind(row.name, product.XDP, entries, w)
		if err != nil {
			return err
		}
		a.limit, a.rival = s.arm(limit), s.arm(armTextbook)
	}
	return nil
}
