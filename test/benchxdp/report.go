package main

import (
	"fmt"

	"github.com/ikepulse/ikepulse/test/measure"
)

// report is a run's outcome; its JSON is the bench's other form.
type report struct {
	Valid     bool            `json:"valid"`
	Invalid   []string        `json:"invalid,omitempty"`
	Notes     []string        `json:"notes,omitempty"`
	Machine   machine         `json:"machine"`
	Rounds    int             `json:"rounds"`
	Sections  []sectionReport `json:"sections"`
	Aims      []aimReport     `json:"aims"`
	BreakEven []breakEven     `json:"break_even,omitempty"`
}

type sectionReport struct {
	Title string      `json:"title"`
	Hot   bool        `json:"hot"`
	Arms  []armReport `json:"arms"`
	rival string
}

type armReport struct {
	Name   string          `json:"name"`
	NS     measure.Summary `json:"ns"`
	Rounds []float64       `json:"rounds_ns"`

	// An arm has no other comparison than beside that with its floor.
	Floor *comparison `json:"floor,omitempty"`
	Limit *comparison `json:"limit,omitempty"`
	Rival *comparison `json:"rival,omitempty"`
}

// comparison is with another arm; medians over the rounds. The ratio with a
// rival is the rival's to the arm, others are the arm's.
type comparison struct {
	With  string  `json:"with"`
	NS    float64 `json:"with_ns"`
	Ratio float64 `json:"ratio"`
	Net   float64 `json:"net_ratio,omitempty"` // of what is above the floor
	Added float64 `json:"added_ns,omitempty"`  // by the arm to its floor
}

type aimReport struct {
	What  string  `json:"what"`
	Bound string  `json:"bound"`
	Met   bool    `json:"met"`
	Ratio float64 `json:"ratio"`
	Net   float64 `json:"net_ratio,omitempty"`
	Of    float64 `json:"of_ns"`
	To    float64 `json:"to_ns"`
	Floor float64 `json:"floor_ns"`
	Held  int     `json:"rounds_held"`
}

func (b *bench) report() report {
	r := report{
		Invalid: b.invalid(), Notes: b.notes, Machine: b.machine,
		Rounds: len(b.sections[0].arms[0].ns), BreakEven: b.breakEvens(),
	}
	r.Valid = len(r.Invalid) == 0
	for _, s := range b.sections {
		section := sectionReport{Title: s.title, Hot: s.hot, rival: s.rival}
		for _, a := range s.arms {
			section.Arms = append(section.Arms, a.report())
		}
		r.Sections = append(r.Sections, section)
	}
	for _, a := range b.aims {
		r.Aims = append(r.Aims, a.report())
	}
	return r
}

func (a *arm) report() armReport {
	r := armReport{Name: a.name, NS: measure.Summarize(a.ns), Rounds: a.ns}
	if a.floor == nil {
		return r
	}
	r.Floor = &comparison{
		With: a.floor.name, NS: measure.Median(a.floor.ns),
		Ratio: measure.Median(perRound(quotient, a, a.floor)), Added: measure.Median(perRound(difference, a, a.floor)),
	}
	if a.limit != nil {
		r.Limit = compare(a.limit, a, a.limit, a.floor)
	}
	if a.rival != nil {
		r.Rival = compare(a.rival, a.rival, a, a.floor)
	}
	return r
}

// compare is with an arm, by the ratio of two.
func compare(with, of, to, floor *arm) *comparison {
	return &comparison{
		With: with.name, NS: measure.Median(with.ns),
		Ratio: measure.Median(perRound(quotient, of, to)), Net: measure.Median(perRound(netQuotient, of, to, floor)),
	}
}

func (a aim) report() aimReport {
	floor := a.to.floor
	if floor == nil {
		floor = a.to
	}
	ratios := perRound(quotient, a.of, a.to)
	r := aimReport{
		What: a.what, Bound: fmt.Sprintf("at most %gx", a.bound), Ratio: measure.Median(ratios), Met: a.holds(measure.Median(ratios)),
		Of: measure.Median(a.of.ns), To: measure.Median(a.to.ns), Floor: measure.Median(floor.ns),
	}
	if a.atLeast {
		r.Bound = fmt.Sprintf("at least %gx", a.bound)
	}
	if a.to != floor {
		r.Net = measure.Median(perRound(netQuotient, a.of, a.to, floor))
	}
	for _, ratio := range ratios {
		if a.holds(ratio) {
			r.Held++
		}
	}
	return r
}
