// Tally reads the output of go test -json, shows what failed or was skipped,
// counts, and fails if a test failed or if fewer ran than the committed minimum
// says: a group of tests that quietly stopped running is a failure too. With
// -strict, as where everything is required, so is a skip, but for those that
// -elsewhere tells of, which make test-vm is required to run. With -show, lines
// that are worth reading though all is well are shown, too.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() {
	minimum := flag.String("minimum", "", "file of lines: PACKAGE-PREFIX NUMBER")
	strict := flag.Bool("strict", false, "a skipped test is a failure")
	elsewhere := flag.String("elsewhere", "", "but not if it needs only that: `WORD:PACKAGE,PACKAGE`")
	show := flag.String("show", "", "lines that `REGEXP` matches, of tests that pass")
	flag.Parse()
	var groups []group
	var err error
	t := newTally(os.Stdout)
	t.elsewhere = readElsewhere(*elsewhere)
	if *show != "" {
		t.telling, err = regexp.Compile(*show)
	}
	if err == nil && *minimum != "" {
		groups, err = readMinimum(*minimum)
	}
	if err == nil {
		err = t.run(os.Stdin, groups, *strict)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
}

// event is one line of go test -json.
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string
	Elapsed                       float64
}

// group is a part of the tree and how many of its tests must have passed.
type group struct {
	prefix  string
	minimum int
}

func readMinimum(name string) (groups []group, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for n, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		var g group
		if _, err := fmt.Sscan(line, &g.prefix, &g.minimum); err != nil {
			return nil, fmt.Errorf("%s:%d: want PACKAGE-PREFIX NUMBER: %w", name, n+1, err)
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// elsewhere is what other kernels run: tests of packages that lack nothing but
// what a word of test/require names. The zero value is nothing.
type elsewhere struct {
	word     string
	packages []string
}

func readElsewhere(text string) elsewhere {
	word, packages, _ := strings.Cut(text, ":")
	return elsewhere{word, strings.Split(packages, ",")}
}

// needs is what test/require says of a test that it skips.
var needs = regexp.MustCompile(`^ +\w+\.go:\d+: needs ([\w, ]+) \(`)

// runs reports whether a test is run there, by what it said here.
func (e elsewhere) runs(pkg string, output []string) bool {
	return slices.Contains(e.packages, pkg) && slices.ContainsFunc(output, func(line string) bool {
		said := needs.FindStringSubmatch(line)
		return said != nil && said[1] == e.word
	})
}

const module = "github.com/ikepulse/ikepulse/"

// tally is what has been counted so far.
type tally struct {
	out                     io.Writer
	telling                 *regexp.Regexp // nil: none
	elsewhere               elsewhere
	output                  map[string][]string // of tests that run, by package and test
	perPackage              map[string]int
	passed, failed, skipped int
	left                    int      // of the skipped, to elsewhere
	broken                  []string // packages that failed without a failing test
}

func newTally(out io.Writer) *tally {
	return &tally{out: out, output: map[string][]string{}, perPackage: map[string]int{}}
}

func (t *tally) run(in io.Reader, groups []group, strict bool) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(t.out, lines.Text())
			continue
		}
		t.take(e)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return t.verdict(groups, strict)
}

func (t *tally) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		t.output[key] = append(t.output[key], e.Output)
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "pass", "fail", "skip":
		t.end(e, key)
		delete(t.output, key)
	}
}

func (t *tally) end(e event, key string) {
	name := strings.TrimPrefix(e.Package, module)
	if e.Test == "" {
		if e.Action == "fail" {
			t.broken = append(t.broken, name)
			t.show(key)
		}
		fmt.Fprintf(t.out, "%-5s %-28s %4d tests  %.1fs\n", e.Action, name, t.perPackage[name], e.Elapsed)
		return
	}
	switch e.Action {
	case "pass":
		t.passed++
		t.perPackage[name]++
		t.tell(key)
	case "fail":
		t.failed++
		t.show(key)
	case "skip":
		t.skipped++
		if t.elsewhere.runs(name, t.output[key]) {
			t.left++
		}
		t.show(key)
	}
}

func (t *tally) show(key string) {
	for _, line := range t.output[key] {
		fmt.Fprint(t.out, line)
	}
}

// tell shows of a test that passed what is worth reading.
func (t *tally) tell(key string) {
	for _, line := range t.output[key] {
		if t.telling != nil && t.telling.MatchString(line) {
			fmt.Fprint(t.out, line)
		}
	}
}

func (t *tally) verdict(groups []group, strict bool) error {
	fmt.Fprintf(t.out, "\n%d passed, %d failed, %d skipped", t.passed, t.failed, t.skipped)
	if t.left > 0 {
		fmt.Fprintf(t.out, ", of which %d need nothing but %s: make test-vm runs them", t.left, t.elsewhere.word)
	}
	fmt.Fprintln(t.out)
	var short []string
	for _, g := range groups {
		n := 0
		for name, count := range t.perPackage {
			if name == g.prefix || strings.HasPrefix(name, g.prefix+"/") {
				n += count
			}
		}
		if n < g.minimum {
			short = append(short, fmt.Sprintf("%s: %d tests passed, at least %d must", g.prefix, n, g.minimum))
		}
	}
	slices.Sort(t.broken)
	switch {
	case t.failed > 0 || len(t.broken) > 0:
		return fmt.Errorf("failed: %s", strings.Join(t.broken, " "))
	case t.skipped > t.left && strict:
		return fmt.Errorf("%d tests were skipped", t.skipped-t.left)
	case len(short) > 0:
		return fmt.Errorf("too few tests ran:\n  %s", strings.Join(short, "\n  "))
	}
	return nil
}
