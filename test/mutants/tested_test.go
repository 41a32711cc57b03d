package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestChanged: a file is run again when it has changed, or what decided over it.
func TestChanged(t *testing.T) {
	const other = "package p\n\nfunc Other() { note() }\n"
	write := func(name, text string) func() error {
		return func() error { return os.WriteFile(name, []byte(text), 0o644) }
	}
	for _, c := range []struct {
		name   string
		change func() error
		want   []string
	}{
		{"nothing", func() error { return nil }, nil},
		{"a file", write("p/p.go", code+"\n// more\n"), []string{"p/p.go"}},
		{"a test", write("p/p_test.go", tests+"\n// more\n"), []string{"p/other.go", "p/p.go"}},
		{"a test goes", func() error { return os.Remove("p/p_test.go") }, []string{"p/other.go", "p/p.go"}},
		{"what tests read", write("p/testdata/deep/a", "b"), []string{"p/other.go", "p/p.go"}},
		{"a new file", write("p/new.go", "package p\n\nfunc New() { note() }\n"), []string{"p/new.go"}},
		{"what is no test's", write("p/notes.txt", "more"), nil},
		{"what is equivalent", write(equivalentFile, equivalent+"p/other.go Other: `note()` -> dropped\n\twhy\n"), []string{"p/other.go"}},
		{"a reason", write(equivalentFile, strings.Replace(equivalent, "it does nothing", "no", 1)), nil},
		{"another package", write("q/q.go", "package q\n\nfunc Q() { print() }\n"), []string{"q/q.go"}},
	} {
		module(t, map[string]string{"p/p.go": code, "p/other.go": other, "p/p_test.go": tests,
			"p/testdata/deep/a": "a", "q/empty.go": "package q\n", equivalentFile: equivalent})
		tr, err := load([]string{"./..."})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range tr.packages[0].files {
			tr.tested[f.name] = record{hash: f.hash, total: 9, alive: 1}
		}
		if err := tr.writeTested(); err != nil {
			t.Fatal(err)
		}
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		if tr, err = load([]string{"./..."}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range tr.hasChanged() {
			for _, f := range p.files {
				got = append(got, f.name)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v are run, want %v", c.name, got, c.want)
		}
	}
}

// TestRemembered: what was not run counts as it was found last, and what is no
// more does not.
func TestRemembered(t *testing.T) {
	all, err := mutate("p/new.go", []byte("package p\n\nfunc f() { g() }\n"))
	if err != nil {
		t.Fatal(err)
	}
	fresh, old := &file{name: "p/new.go", hash: "3", mutants: all}, &file{name: "p/old.go"}
	for _, c := range []struct {
		alive int
		wrong string
	}{{3, ""}, {4, "p: 5.0 % of the changes live, at most 4 may"}} {
		t.Chdir(t.TempDir())
		tr := &tree{root: ".", packages: []*pkg{{dir: "p", files: []*file{fresh, old}}}, tested: map[string]record{
			"p/old.go": {"1", 99, c.alive}, "p/gone.go": {"2", 1, 1}, "q/q.go": {"4", 7, 1}}}
		var out strings.Builder
		err := tr.report(&out, []*pkg{{dir: "p", files: []*file{fresh}}})
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || err.Error() != c.wrong) {
			t.Errorf("%d: %v, want %q", c.alive, err, c.wrong)
		}
		if err := os.MkdirAll("test/mutants", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := tr.writeTested(); err != nil {
			t.Fatal(err)
		}
		again, err := readTested(testedFile)
		if err != nil || len(again) != 3 || again["p/new.go"] != (record{"3", 1, 1}) || again["p/old.go"].alive != c.alive || again["q/q.go"].total != 7 {
			t.Errorf("%v, %v", again, err)
		}
	}
}

// TestNothingChanged takes no time, and says so.
func TestNothingChanged(t *testing.T) {
	module(t, map[string]string{"p/p.go": "package p\n", equivalentFile: ""})
	if err := run(context.Background(), config{changed: true, write: true}, []string{"./p"}); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(testedFile); err != nil || string(text) != testedHead {
		t.Errorf("%q, %v", text, err)
	}
}
