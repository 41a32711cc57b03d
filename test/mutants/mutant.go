package main

import (
	"fmt"
	"go/token"
	"strings"
)

// mutant is one change of a file.
type mutant struct {
	file     string // as it is called from the root of the module
	at       token.Position
	function string // with its receiver's type
	old, new string // as they are shown; new is empty for what is dropped
	nth      int    // of those of the function that look the same; 0 if it is the only one

	start, end int // the bytes of the file that text replaces
	text       string
	state      state
}

type state uint8

const (
	alive state = iota
	killed
	late // killed, by its time running out
	broken
)

// name tells a mutant from all others without the number of its line.
func (m *mutant) name() string {
	s := fmt.Sprintf("%s %s: `%s` -> ", m.file, m.function, m.old)
	if m.new == "" {
		s += "dropped"
	} else {
		s += "`" + m.new + "`"
	}
	if m.nth > 0 {
		s += fmt.Sprintf(" #%d", m.nth)
	}
	return s
}

// String is the name with the place.
func (m *mutant) String() string {
	return fmt.Sprintf("%s:%d:%d%s", m.file, m.at.Line, m.at.Column, strings.TrimPrefix(m.name(), m.file))
}

// apply gives the file as the mutant has it.
func (m *mutant) apply(source []byte) []byte {
	out := make([]byte, 0, len(source)+len(m.text))
	out = append(out, source[:m.start]...)
	out = append(out, m.text...)
	return append(out, source[m.end:]...)
}

// number tells apart those that would have the same name.
func number(all []*mutant) {
	same := map[string][]*mutant{}
	for _, m := range all {
		same[m.name()] = append(same[m.name()], m)
	}
	for _, those := range same {
		for i, m := range those {
			if len(those) > 1 {
				m.nth = i + 1
			}
		}
	}
}

// shownLength is how much of the source is shown of a mutant, and is in its name.
const shownLength = 100

// shown is source on one line, cut.
func shown(source string) string {
	s := []rune(strings.Join(strings.Fields(source), " "))
	if len(s) > shownLength {
		return string(s[:shownLength]) + "…"
	}
	return string(s)
}
