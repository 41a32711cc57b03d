package config

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Pos is a place in a configuration file. Lines and columns count from 1,
// columns in characters. Line 0 means the file as a whole.
type Pos struct {
	File         string // as the operator would name it: relative to where path was
	Line, Column int
}

func (p Pos) String() string {
	if p.Line == 0 {
		return printable(p.File)
	}
	return printable(p.File) + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column)
}

// MarshalText gives the place as a message has it.
func (p Pos) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Problem is one thing wrong with a configuration, in an operator's words.
type Problem struct {
	Pos  Pos
	Key  string // where it is about one: the path of keys, below a connection relative to it
	Text string
}

func (p Problem) String() string {
	if p.Key == "" {
		return p.Pos.String() + ": " + p.Text
	}
	return p.Pos.String() + ": " + p.Key + ": " + p.Text
}

// Problems are in the order of the files read, then of their lines.
type Problems []Problem

// Error gives a line for each problem, and then their number.
func (ps Problems) Error() string {
	var b strings.Builder
	for _, p := range ps {
		b.WriteString(p.String())
		b.WriteByte('\n')
	}
	noun := "problems"
	if len(ps) == 1 {
		noun = "problem"
	}
	fmt.Fprintf(&b, "%d %s; nothing was changed", len(ps), noun)
	return b.String()
}

// maxShown keeps a message on one screen, whatever the file holds.
const maxShown = 140

// quoted shows text from a file so that it cannot pass for ours.
func quoted(s string) string {
	return strconv.Quote(shortened(s))
}

// printable shows a name as it is where that is harmless.
func printable(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) || r == utf8.RuneError }) {
		return quoted(s)
	}
	return s
}

func shortened(s string) string {
	if len(s) <= maxShown {
		return s
	}
	cut := maxShown
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
