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
