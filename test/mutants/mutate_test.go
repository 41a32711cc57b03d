package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// mutantsOf are those of the body of a function that gives back an int and a bool.
func mutantsOf(t *testing.T, body string) (source string, all []*mutant) {
	t.Helper()
	source = "package p\n\nfunc f() (int, bool) {\n" + body + "\n}\n"
	all, err := mutate("p/p.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return source, all
}

func TestMutants(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"an if", "if ok { return 1, x }", []string{
			"`ok` -> `false`", "`ok` -> `true`", "`x` -> `false`", "`x` -> `true`"}},
		{"the part before its condition", "if i++; ok {}", []string{"`i++` -> dropped", "`ok` -> `false`", "`ok` -> `true`"}},
		{"what is defined stays", "if x := y; x {}", []string{"`x` -> `false`", "`x` -> `true`"}},
		{"a comparison", "if a < b {}", []string{
			"`a < b` -> `false`", "`a < b` -> `true`", "`a < b` -> `a >= b`", "`a < b` -> `a <= b`"}},
		{"each is turned and shifted", "x := a <= b; y := a > b; z := a >= b", []string{
			"`a <= b` -> `false`", "`a <= b` -> `true`", "`a <= b` -> `a > b`", "`a <= b` -> `a < b`",
			"`a > b` -> `false`", "`a > b` -> `true`", "`a > b` -> `a <= b`", "`a > b` -> `a >= b`",
			"`a >= b` -> `false`", "`a >= b` -> `true`", "`a >= b` -> `a < b`", "`a >= b` -> `a > b`"}},
		{"equality has no order", "use := a == b || c != d", []string{
			"`a == b || c != d` -> `false`", "`a == b || c != d` -> `true`",
			"`a == b` -> `false`", "`a == b` -> `a != b`", "`c != d` -> `false`", "`c != d` -> `c == d`"}},
		{"operands, not what the whole does", "if a && (b || c) {}", []string{
			"`a && (b || c)` -> `false`", "`a && (b || c)` -> `true`", "`a` -> `true`",
			"`b || c` -> `true`", "`b` -> `false`", "`c` -> `false`"}},
		{"a negation, once", "for !done {}", []string{"`!done` -> `false`", "`!done` -> `true`"}},
		{"a negated whole", "x = !(a && b)", []string{
			"`x = !(a && b)` -> dropped", "`!(a && b)` -> `false`", "`!(a && b)` -> `true`", "`a` -> `true`", "`b` -> `true`"}},
		{"a loop", "for i = 0; ok; i += 2 {}", []string{
			"`i = 0` -> `_ = 0`", "`ok` -> `false`", "`ok` -> `true`", "`i += 2` -> `_ = 2`"}},
		{"the call of a loop", "for ; ; next() {}", []string{"`next()` -> dropped"}},
		{"a switch without a tag", "switch { case a, b: default: f() }", []string{
			"`a` -> `false`", "`a` -> `true`", "`b` -> `false`", "`b` -> `true`", "`f()` -> dropped"}},
		{"a switch with one", "switch x { case a: }", nil},
		{"assignments", "x = y; x += y; x = g(y); _ = y; z := y; *p, _ = y, 2", []string{
			"`x = y` -> dropped", "`x += y` -> dropped", "`x = g(y)` -> `_ = g(y)`", "`*p, _ = y, 2` -> `_, _ = y, 2`"}},
		{"of several, each", "a, b[i] = b, a", []string{
			"`a, b[i] = b, a` -> `_, b[i] = b, a`", "`a, b[i] = b, a` -> `a, _ = b, a`"}},
		{"calls", "f(a); go f(b); defer f(c); d <- 1; e--", []string{
			"`f(a)` -> dropped", "`go f(b)` -> dropped", "`defer f(c)` -> dropped", "`d <- 1` -> dropped", "`e--` -> dropped"}},
		{"those that look the same", "f()\nf()", []string{"`f()` -> dropped #1", "`f()` -> dropped #2"}},
		{"a bool constant", "return 7, true", []string{"`true` -> `false`"}},
		{"of a function within", "f(func() bool { return x }, func() int { return 1 })", []string{
			"`f(func() bool { return x }, func() int { return 1 })` -> dropped", "`x` -> `false`", "`x` -> `true`"}},
		{"several results of one call", "return g()", nil},
	} {
		_, all := mutantsOf(t, c.body)
		var got []string
		for _, m := range all {
			got = append(got, strings.TrimPrefix(m.name(), "p/p.go f: "))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

// What takes the place of the source, and that what stood there is still used.
func TestApply(t *testing.T) {
	for _, c := range []struct {
		body, name string
		want       string
	}{
		{"if a && b { f() }", "`a` -> `true`", "if (true || (a)) && b { f() }"},
		{"if a < b { f() }", "`a < b` -> `false`", "if (false && (a < b)) { f() }"},
		{"if a < b { f() }", "`a < b` -> `a <= b`", "if a <= b { f() }"},
		{"x = y", "`x = y` -> dropped", "if false { x = y }"},
		{"x = g()", "`x = g()` -> `_ = g()`", "_ = g(); if false { x = g() }"},
		{"for i = 0; ; i++ { }", "`i++` -> dropped", "for i = 0; ;  { }"},
		{"return 7, true", "`true` -> `false`", "return 7, false"},
	} {
		source, all := mutantsOf(t, c.body)
		i := slices.IndexFunc(all, func(m *mutant) bool { return m.name() == "p/p.go f: "+c.name })
		if i < 0 {
			t.Errorf("%s: no %s", c.body, c.name)
			continue
		}
		if got, want := string(all[i].apply([]byte(source))), strings.Replace(source, c.body, c.want, 1); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
	}
}

// TestOwnSource: every mutant of this program is Go, has a name of its own, and
// is not what stood there.
func TestOwnSource(t *testing.T) {
	tr, err := load([]string{"."})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range tr.packages[0].files {
		for _, m := range f.mutants {
			changed := m.apply(f.source)
			if _, err := parser.ParseFile(token.NewFileSet(), f.name, changed, 0); err != nil {
				t.Errorf("%v: %v", m, err)
			}
			if names[m.name()] || string(changed) == string(f.source) {
				t.Errorf("%v is no change, or has another's name", m)
			}
			names[m.name()] = true
		}
	}
	if len(names) < 100 {
		t.Errorf("%d mutants are few", len(names))
	}
}

func TestNames(t *testing.T) {
	source := "package p\n\nfunc (t *T[K]) m() {\n\tf(\n\t\t`" + strings.Repeat("x", 200) + "`,\n\t)\n}\n\nvar v = func() { g() }\n"
	all, err := mutate("p/p.go", []byte(source))
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	if got, want := all[0].String(), "p/p.go:4:2 T.m: `f( `"+strings.Repeat("x", 96)+"…` -> dropped"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := fmt.Sprint(all[1]), "p/p.go:9:18 v: `g()` -> dropped"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestGeneratedFilesAreLeftAlone(t *testing.T) {
	all, err := mutate("p.go", []byte("// Code generated by hand. DO NOT EDIT.\n\npackage p\n\nfunc f() { g() }\n"))
	if err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}
