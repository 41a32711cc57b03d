package main

import "github.com/ikepulse/ikepulse/test/measure"

// keepaliveInterval is how often a peer behind a NAT sends one, in seconds
// (RFC 3948 §4; strongSwan's default too).
const keepaliveInterval = 20

// saving is what a keepalive costs the kernel, and here.
type saving struct {
	population         *population
	kernel             *arm // nil where it cannot be measured
	absorbed, answered *arm
}

// breakEven is where the tracker's tax on ESP equals what it saves.
type breakEven struct {
	SPIs   int    `json:"spis"`
	Spread string `json:"spread"`
	Ticks  string `json:"ticks"`
	// Tax is what an ESP packet costs more than a program that passes it.
	Tax float64 `json:"tax_ns"`
	// Absorbed and Answered are what a keepalive costs less than in the kernel.
	Absorbed float64 `json:"absorbed_saves_ns"`
	Answered float64 `json:"answered_saves_ns"`
	// Packets are as many of ESP as a keepalive pays for; PPS is the rate of ESP
	// when each SPI's peer sends keepalives. Below 0 there is nothing saved.
	AbsorbedPackets float64 `json:"absorbed_packets"`
	AnsweredPackets float64 `json:"answered_packets"`
	AbsorbedRate    float64 `json:"absorbed_pps"`
	AnsweredRate    float64 `json:"answered_pps"`
}

// breakEvens join each section of ESP with the keepalives of its population.
func (b *bench) breakEvens() (out []breakEven) {
	for _, esp := range b.taxes {
		for _, s := range b.savings {
			if s.kernel == nil || s.population != esp.population || esp.hot {
				continue
			}
			out = append(out, s.against(esp, armOneTick, "one tick"), s.against(esp, armNewTicks, "new ticks"))
		}
	}
	return out
}

// against takes an arm of ESP. Savings and tax are those of each round.
func (s saving) against(esp *espSection, name, ticks string) breakEven {
	taxed := esp.arm(name)
	paid := func(ns ...float64) float64 { return (ns[0] - ns[1]) / (ns[2] - ns[3]) }
	perSecond := float64(s.population.members) / keepaliveInterval
	absorbed := measure.Median(perRound(paid, s.kernel, s.absorbed, taxed, taxed.floor))
	answered := measure.Median(perRound(paid, s.kernel, s.answered, taxed, taxed.floor))
	return breakEven{
		SPIs: s.population.members, Spread: esp.spread.name, Ticks: ticks,
		Tax:             measure.Median(perRound(difference, taxed, taxed.floor)),
		Absorbed:        measure.Median(perRound(difference, s.kernel, s.absorbed)),
		Answered:        measure.Median(perRound(difference, s.kernel, s.answered)),
		AbsorbedPackets: absorbed, AnsweredPackets: answered,
		AbsorbedRate: absorbed * perSecond, AnsweredRate: answered * perSecond,
	}
}
