package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// fault is a place where a file is not the YAML that we take.
type fault struct {
	line, column int
	text         string
}

func (f fault) at(file string) Pos { return Pos{file, f.line, f.column} }

// firstBadCharacter finds what is not text: YAML itself would also take UTF-16.
func firstBadCharacter(src []byte) (fault, bool) {
	line, start := 1, 0
	for i := 0; i < len(src); {
		r, size := utf8.DecodeRune(src[i:])
		text := ""
		switch {
		case r == utf8.RuneError && size == 1:
			text = fmt.Sprintf("byte 0x%02x is not UTF-8", src[i])
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			text = fmt.Sprintf("control character 0x%02x", r)
		case r == '\n':
			line, start = line+1, i+1
		}
		if text != "" {
			return fault{line, utf8.RuneCount(src[start:i]) + 1, text}, true
		}
		i += size
	}
	return fault{}, false
}

// diagnose finds where the syntax goes wrong. The YAML package tells a line,
// but often that of the surrounding block, and never a column. So the longest
// beginning that is good YAML is looked for: what is wrong is in the line
// behind it.
func diagnose(src []byte, err error) fault {
	ends := lineEnds(src)
	good, found := goodLines(src, ends)
	if !found || good == len(ends) {
		return fault{1, 1, plainWords(err)}
	}
	start := 0
	if good > 0 {
		start = ends[good-1]
	}
	if e := syntaxError(src[:ends[good]]); e != nil {
		err = e
	}
	text := string(bytes.TrimRight(src[start:ends[good]], "\r\n"))
	column, what := explain(text, plainWords(err))
	return fault{good + 1, utf8.RuneCountInString(text[:column]) + 1, what}
}

// lineEnds are the offsets behind each line.
func lineEnds(src []byte) []int {
	var ends []int
	for i, c := range src {
		if c == '\n' || i == len(src)-1 {
			ends = append(ends, i+1)
		}
	}
	return ends
}

// searchLimit bounds how many bytes are parsed in search of a fault's line.
const searchLimit = 64 << 20

// goodLines is how many lines at the beginning of src are good YAML by
// themselves, unless that takes too long to find. It starts where the parser
// gave up, goes back in growing steps to a good beginning, and closes in:
// inside an open quote or bracket no beginning is good, so bisecting the whole
// file would be misled by one that is closed again.
func goodLines(src []byte, ends []int) (lines int, found bool) {
	budget := searchLimit
	good := func(n int) bool {
		if n == 0 {
			return true
		}
		budget -= ends[n-1]
		return budget < 0 || syntaxError(src[:ends[n-1]]) == nil
	}
	bad := linesNeeded(src, len(ends))
	low, step := max(0, bad-1), 1
	for !good(low) {
		bad, low, step = low, max(0, low-step), 2*step
	}
	for bad-low > 1 {
		if middle := (low + bad) / 2; good(middle) {
			low = middle
		} else {
			bad = middle
		}
	}
	return low, budget >= 0
}

// linesNeeded is how many lines the parser reads before it finds a fault.
func linesNeeded(src []byte, all int) int {
	r := &slowReader{src: src}
	dec := yaml.NewDecoder(r)
	for {
		if _, err := nextDocument(dec); err != nil {
			return min(bytes.Count(src[:r.next], []byte("\n"))+1, all)
		}
	}
}

// slowReader hands out one byte at a time, so that its position shows how far
// its reader had to go.
type slowReader struct {
	src  []byte
	next int
}

func (r *slowReader) Read(p []byte) (int, error) {
	if r.next == len(r.src) {
		return 0, io.EOF
	}
	n := copy(p[:1], r.src[r.next:])
	r.next += n
	return n, nil
}

func syntaxError(src []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(src))
	for {
		if _, err := nextDocument(dec); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
