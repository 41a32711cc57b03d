package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	const pkg = `"Package":"github.com/ikepulse/ikepulse/ike/esp"`
	pass := `{"Action":"pass",` + pkg + `,"Test":"TestA"}` + "\n"
	for _, c := range []struct{ name, in, want string }{
		{"enough", pass + pass, ""},
		{"too few", pass, "ike: 1 tests passed, at least 2 must"},
		{"none", "", "ike: 0 tests passed, at least 2 must"},
		{"a failure", pass + pass + `{"Action":"fail",` + pkg + `,"Test":"TestB"}` + "\n", "failed"},
		{"a package that does not build", pass + pass + `{"Action":"fail",` + pkg + `}` + "\n", "failed: ike/esp"},
		{"a skip", pass + pass + `{"Action":"skip",` + pkg + `,"Test":"TestB"}` + "\n", "1 tests were skipped"},
	} {
		var out strings.Builder
		err := newTally(&out).run(strings.NewReader(c.in), []group{{"ike", 2}}, true)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if c.name == "a skip" && newTally(&out).run(strings.NewReader(c.in), nil, false) != nil {
			t.Error("a skip fails where not everything is required")
		}
		if !strings.Contains(out.String(), "passed, ") {
			t.Errorf("%s: no closing line: %q", c.name, out.String())
		}
	}
}

// Of a test that passes only what is asked for is shown.
func TestTelling(t *testing.T) {
	const pkg = `"Package":"github.com/ikepulse/ikepulse/bpf","Test":"TestA"`
	var out strings.Builder
	in := newTally(&out)
	in.telling = regexp.MustCompile("verifier: ")
	err := in.run(strings.NewReader(`{"Action":"output",`+pkg+`,"Output":"  verifier: 30 insns\n"}
{"Action":"output",`+pkg+`,"Output":"  of no interest\n"}
{"Action":"pass",`+pkg+`}
`), nil, true)
	if got := out.String(); err != nil || !strings.HasPrefix(got, "  verifier: 30 insns\n\n1 passed") {
		t.Errorf("%v: %q", err, got)
	}
}

// A skip is accepted if another kernel runs the test: of a package that is tested
// there, for want of that alone, and not by a test that only speaks of it.
func TestElsewhere(t *testing.T) {
	for _, c := range []struct {
		pkg, said string
		accepted  bool
	}{
		{"bpf", "    tables_test.go:27: needs iter (load program: operation not permitted)", true},
		{"loader", "        main_test.go:9: needs iter (no, really)", true},
		{"loader/ethtool", "    a_test.go:27: needs iter (operation not permitted)", false},
		{"bpf", "    tables_test.go:27: needs iter, root (operation not permitted; effective uid is 1)", false},
		{"bpf", "    tables_test.go:27: needs root, iter (effective uid is 1; operation not permitted)", false},
		{"bpf", "    tables_test.go:27: needs cases (no file: needs iter (x))", false},
		{"bpf", "    tables_test.go:27: too slow here", false},
		{"bpf", "", false},
	} {
		of := `"Package":"` + module + c.pkg + `","Test":"TestA"`
		in := `{"Action":"output",` + of + `,"Output":"` + c.said + `\n"}` + "\n" + `{"Action":"skip",` + of + "}\n"
		var out strings.Builder
		tally := newTally(&out)
		tally.elsewhere = readElsewhere("iter:bpf,loader")
		err := tally.run(strings.NewReader(in), nil, true)
		if (err == nil) != c.accepted {
			t.Errorf("%s, %q: %v", c.pkg, c.said, err)
		}
		told := strings.Contains(out.String(), "1 skipped, of which 1 need nothing but iter: make test-vm runs them\n")
		if !strings.Contains(out.String(), c.said) || told != c.accepted {
			t.Errorf("%s, %q: shown as %q", c.pkg, c.said, out.String())
		}
		if err := newTally(&out).run(strings.NewReader(in), nil, true); err == nil {
			t.Errorf("%s, %q: accepted though nothing runs elsewhere", c.pkg, c.said)
		}
	}
}
