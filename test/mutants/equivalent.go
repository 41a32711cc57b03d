package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// entry is a mutant of equivalent.txt: its name, and below it, indented, why it
// changes no behaviour.
type entry struct{ name, reason string }

// file is the one that it changes.
func (e entry) file() string {
	file, _, _ := strings.Cut(e.name, " ")
	return file
}

func readEquivalent(name string) ([]entry, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := parseEquivalent(string(text))
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return entries, err
}

func parseEquivalent(text string) (entries []entry, err error) {
	for line := range strings.Lines(text) {
		said := strings.TrimSpace(line)
		last := len(entries) - 1
		switch {
		case said == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
			if last < 0 {
				return nil, fmt.Errorf("a reason without a change: %s", said)
			}
			entries[last].reason = strings.TrimSpace(entries[last].reason + " " + said)
		default:
			entries = append(entries, entry{name: said})
		}
	}
	for i, e := range entries {
		if e.reason == "" {
			return nil, fmt.Errorf("no reason is given for %s", e.name)
		}
		if slices.ContainsFunc(entries[:i], func(o entry) bool { return o.name == e.name }) {
			return nil, fmt.Errorf("twice: %s", e.name)
		}
	}
	return entries, nil
}

// isEquivalent reports whether a mutant is listed.
func (t *tree) isEquivalent(m *mutant) bool {
	return slices.ContainsFunc(t.equivalent, func(e entry) bool { return e.name == m.name() })
}

// entriesOf are the names of what is listed for a file.
func (t *tree) entriesOf(file string) (names []byte) {
	for _, e := range t.equivalent {
		if e.file() == file {
			names = append(names, e.name+"\n"...)
		}
	}
	return names
}

// stale are the entries that no mutant matches that is alive: of files that are
// no more in their package, and of those that were run.
func (t *tree) stale(work []*pkg) (out []string) {
	ran := map[string]*mutant{}
	for _, p := range work {
		for _, f := range p.files {
			for _, m := range f.mutants {
				ran[m.name()] = m
			}
		}
	}
	for _, e := range t.equivalent {
		m, known := ran[e.name]
		switch {
		case known && m.state != alive:
			out = append(out, "the tests do fail for "+e.name)
		case !known && (find(work, e.file()) != nil || t.isGone(e.file())):
			out = append(out, "nothing is changed so: "+e.name)
		}
	}
	return out
}

// isGone reports whether a file that an entry names is none of its package.
func (t *tree) isGone(name string) bool {
	return slices.ContainsFunc(t.packages, func(p *pkg) bool { return p.dir == dirOf(name) }) && find(t.packages, name) == nil
}

func find(packages []*pkg, name string) *file {
	for _, p := range packages {
		for _, f := range p.files {
			if f.name == name {
				return f
			}
		}
	}
	return nil
}
