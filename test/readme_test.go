package test

import (
	"os"
	"strings"
	"testing"
)

// TestREADME: what the README shows is what the product prints and reads, by
// the files that the tests of those hold.
func TestREADME(t *testing.T) {
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(b)
	for _, file := range []string{
		"../cmd/internal/config/testdata/sample.yaml",
		"../cmd/ikepulse/testdata/status-healthy.golden",
		"../cmd/ikepulse/testdata/sas-proof.golden",
		"../cmd/ikepulse/testdata/replay.golden",
		"../cmd/ikepulse/testdata/loadtest.golden",
	} {
		shown, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(readme, "\n"+strings.TrimSpace(string(shown))+"\n") {
			t.Errorf("the README does not show %s as it is", file)
		}
	}
	if n := strings.Count(readme, "\n"); n > 250 {
		t.Errorf("the README has %d lines, at most 250 are allowed", n)
	}
	for _, command := range []string{"make demo", "make test", "(bpf/README.md)"} {
		if !strings.Contains(readme, command) {
			t.Errorf("the README does not name %s", command)
		}
	}
}
