package config

import (
	"fmt"
	"regexp"
	"strings"
)

var lineNumber = regexp.MustCompile(`^(yaml: )?(line \d+: )?`)

// plainWords is the YAML package's complaint without its idea of the line.
func plainWords(err error) string {
	return strings.TrimPrefix(err.Error(), lineNumber.FindString(err.Error()))
}

var (
	tabIndent  = regexp.MustCompile(`^ *\t`)
	indicator  = regexp.MustCompile("(^|[\\s\\[{,])[*&@%`|>!]")
	secondPair = regexp.MustCompile(`: .*?[^\s]: `)
	nested     = regexp.MustCompile(`[^\s\[{,:-][\[{]`)
	escape     = regexp.MustCompile(`\\`)
)

// explain turns the parser's complaint about a line into an operator's words,
// with the offset in the line that they are about.
func explain(line, complaint string) (offset int, text string) {
	indent := len(line) - len(strings.TrimLeft(line, " \t"))
	open, behind := quotesAndBrackets(line)
	has := func(s string) bool { return strings.Contains(complaint, s) }
	switch {
	case tabIndent.MatchString(line) && (has("tab") || has("cannot start")):
		return strings.IndexByte(line, '\t'), "a tab in the indentation; use spaces"
	case has("cannot start any token"), has("alphabetic or numeric"), has("unknown anchor"):
		if m := indicator.FindString(line); m != "" {
			at := indicator.FindStringIndex(line)[1] - 1
			return at, fmt.Sprintf("text that begins with %c must be in quotes", line[at])
		}
	case has("mapping values are not allowed"):
		if m := secondPair.FindStringIndex(line + " "); m != nil {
			return m[1] - 2, `a second ":" in one line; put the text that holds it in quotes`
		}
		return indent, "deeper than the line above, which already has a value"
	case has("could not find expected ':'"):
		return indent, `no ":" behind this key`
	case has("unexpected end of stream") && open >= 0, has("document indicator") && open >= 0:
		return open, "this quote is never closed"
	case has("',' or ") && open >= 0:
		return open, fmt.Sprintf("this %c is never closed, or a comma is missing behind it", line[open])
	case has("',' or ") && nested.MatchString(line):
		return nested.FindStringIndex(line)[1] - 1, "text that holds [ ] { } must be in quotes"
	case has("did not find expected") && behind >= 0:
		return behind, "text behind a closing quote"
	case has("did not find expected key"), has("'-' indicator"):
		return indent, "does not fit the lines above; look at the indentation"
	case has("unknown escape") && escape.MatchString(line):
		return escape.FindStringIndex(line)[0], `\ has a meaning in double quotes; use single quotes`
	}
	return indent, complaint
}

// quotesAndBrackets finds, in one line, the innermost quote or bracket that it
// leaves open, and text that directly follows a closing quote; each −1 if
// there is none.
func quotesAndBrackets(line string) (open, behind int) {
	var brackets []int
	quote, closed := -1, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote >= 0:
			if n := quoteStep(line, i, line[quote]); n > 0 {
				i += n - 1
				continue
			}
			quote, closed = -1, true
		case c == '#' && (i == 0 || line[i-1] == ' '):
			i = len(line)
		case (c == '"' || c == '\'') && beginsValue(line[:i]):
			quote = i
		case (c == '[' || c == '{') && (len(brackets) > 0 || beginsValue(line[:i])):
			brackets = append(brackets, i)
		case (c == ']' || c == '}') && len(brackets) > 0:
			brackets = brackets[:len(brackets)-1]
		case strings.IndexByte(",:]}", c) >= 0:
			closed = false
		case closed && c != ' ' && c != '\t':
			return -1, i
		}
	}
	if quote >= 0 {
		return quote, -1
	}
	if len(brackets) > 0 {
		return brackets[len(brackets)-1], -1
	}
	return -1, -1
}

// quoteStep is the length of what stands at line[i] inside a quote, or 0 where
// the quote ends.
func quoteStep(line string, i int, quote byte) int {
	next := line[min(i+1, len(line)-1)]
	switch {
	case quote == '"' && line[i] == '\\', quote == '\'' && line[i] == '\'' && next == '\'' && i+1 < len(line):
		return 2
	case line[i] == quote:
		return 0
	}
	return 1
}

// beginsValue is true if what follows this part of a line starts a value.
func beginsValue(before string) bool {
	before = strings.TrimRight(before, " \t")
	return before == "" || strings.IndexByte(":,[{-?", before[len(before)-1]) >= 0
}
