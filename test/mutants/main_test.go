package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module makes a module of one package in a directory of its own, and goes there.
func module(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	files["go.mod"] = "module example.org/m\n\ngo 1.24\n"
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	code = `package p

// Sum adds up to n, but for nothing below one.
func Sum(n int) (sum int) {
	if n < 1 {
		return 0
	}
	for n != 0 {
		sum += n
		n--
	}
	note()
	note()
	return sum
}

func note() {}

func never() int {
	panic("never")
}
`
	tests = `package p

import "testing"

var begun bool

func TestSum(t *testing.T) {
	begun = true
	if Sum(3) != 6 || Sum(-1) != 0 {
		t.Fail()
	}
}

// By itself this fails always, so it says nothing.
func TestSumOfOne(t *testing.T) {
	if !begun || Sum(1) != 1 {
		t.Fail()
	}
}
`
	equivalent = "p/p.go Sum: `note()` -> dropped #1\n\tit does nothing\n" +
		"p/p.go Sum: `sum += n` -> dropped\n\tit does something\n"
)

// TestWhole runs it over a package where a change of each fate is; and where the
// tests fail without one, none is tried.
func TestWhole(t *testing.T) {
	dir := t.TempDir()
	module(t, map[string]string{"p/p.go": code, "p/p_test.go": tests, equivalentFile: equivalent})
	tr, err := load([]string{"./..."})
	if err != nil {
		t.Fatal(err)
	}
	if err := tryAll(context.Background(), tr, tr.packages, dir, 2); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err = tr.report(&out, tr.packages)
	const want = "p/p.go:13:2 Sum: `note()` -> dropped #2\n" +
		"p: 9 killed (3 of them by the clock), 1 alive, 1 equivalent; 1 do not compile\np: 1 of 11 live, 9.1 %\n"
	if out.String() != want {
		t.Errorf("printed:\n%swant:\n%s", out.String(), want)
	}
	const wrong = equivalentFile + ": the tests do fail for p/p.go Sum: `sum += n` -> dropped\n" +
		"p: 9.1 % of the changes live, at most 4 may"
	if err == nil || err.Error() != wrong {
		t.Errorf("error:\n%v\nwant:\n%s", err, wrong)
	}
	if got := tr.tested["p/p.go"]; got.total != 11 || got.alive != 1 {
		t.Errorf("noted: %+v", got)
	}

	b := &bench{base: &bench{root: tr.root, pkg: "p", dir: filepath.Join(dir, "base"), allowed: asLongAsItTakes}}
	for _, test := range []string{"TestSum", "TestSumOfOne"} {
		if err := b.learn(context.Background(), test); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(b.likely, likely{"TestSum"}) {
		t.Errorf("%v are run first", b.likely)
	}

	if err := os.WriteFile("p/p_test.go", []byte(strings.Replace(tests, "6", "7", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	err = tryAll(context.Background(), tr, tr.packages, dir, 2)
	if err == nil || !strings.HasPrefix(err.Error(), "p: the tests fail as it is: --- FAIL: TestSum") {
		t.Errorf("error %v", err)
	}
}
