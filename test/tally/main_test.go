package main

import (
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
		err := run(strings.NewReader(c.in), &out, []group{{"ike", 2}}, true)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if c.name == "a skip" && run(strings.NewReader(c.in), &out, nil, false) != nil {
			t.Error("a skip fails where not everything is required")
		}
		if !strings.Contains(out.String(), "passed, ") {
			t.Errorf("%s: no closing line: %q", c.name, out.String())
		}
	}
}
