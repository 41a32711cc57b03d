package main

import (
	"slices"
	"strings"
	"testing"
)

func TestParseEquivalent(t *testing.T) {
	entries, err := parseEquivalent("# what lives\n\na/b.go f: `x` -> `true`\n\tbecause\n\tof this\n\na/c.go g: `h()` -> dropped #2\n  because of that\n")
	want := []entry{{"a/b.go f: `x` -> `true`", "because of this"}, {"a/c.go g: `h()` -> dropped #2", "because of that"}}
	if err != nil || !slices.Equal(entries, want) {
		t.Errorf("%q, %v", entries, err)
	}
	if got := want[1].file(); got != "a/c.go" {
		t.Errorf("the file is %q", got)
	}
	for _, c := range []struct{ text, want string }{
		{"a/b.go f: `x` -> `true`\na/c.go f: `x` -> `true`\n\twhy\n", "no reason is given for a/b.go f:"},
		{"a/b.go f: `x` -> `true`\n", "no reason"},
		{"\twhy\n", "a reason without a change: why"},
		{"a f: `x` -> `true`\n\twhy\na f: `x` -> `true`\n\twhy\n", "twice: a f:"},
	} {
		if _, err := parseEquivalent(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.text, err, c.want)
		}
	}
}

// TestStale: an entry must be of a change that was tried and lives; what was not
// run, and is still there, is left for another time.
func TestStale(t *testing.T) {
	gone := func(name string) entry { return entry{name, "why"} }
	source := "package p\n\nfunc f() { g() }\n"
	read := func(name string) *file {
		all, err := mutate(name, []byte(source))
		if err != nil {
			t.Fatal(err)
		}
		return &file{name: name, mutants: all}
	}
	one, two := read("a/one.go"), read("a/two.go")
	tr := &tree{packages: []*pkg{{dir: "a", files: []*file{one, two}}}}
	for _, c := range []struct {
		name  string
		entry entry
		state state
		want  string
	}{
		{"lives", gone("a/one.go f: `g()` -> dropped"), alive, ""},
		{"killed", gone("a/one.go f: `g()` -> dropped"), killed, "the tests do fail for a/one.go f: `g()` -> dropped"},
		{"by the clock", gone("a/one.go f: `g()` -> dropped"), late, "the tests do fail for a/one.go f: `g()` -> dropped"},
		{"does not compile", gone("a/one.go f: `g()` -> dropped"), broken, "the tests do fail for a/one.go f: `g()` -> dropped"},
		{"no such change", gone("a/one.go f: `h()` -> dropped"), alive, "nothing is changed so: a/one.go f: `h()` -> dropped"},
		{"of a file that was not run", gone("a/two.go f: `h()` -> dropped"), alive, ""},
		{"of a file that is no more", gone("a/three.go f: `h()` -> dropped"), alive, "nothing is changed so: a/three.go f: `h()` -> dropped"},
		{"of another package", gone("b/one.go f: `h()` -> dropped"), alive, ""},
	} {
		tr.equivalent, one.mutants[0].state = []entry{c.entry}, c.state
		if got := strings.Join(tr.stale([]*pkg{{dir: "a", files: []*file{one}}}), "\n"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
