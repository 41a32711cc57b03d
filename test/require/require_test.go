package require

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// verdict records how a test would have ended.
type verdict struct {
	testing.TB
	skipped, failed string
}

func (v *verdict) Helper() {}

func (v *verdict) Skipf(format string, args ...any) {
	v.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (v *verdict) Fatalf(format string, args ...any) {
	v.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// judged is how a test would have ended after that.
func judged(t *testing.T, test func(testing.TB)) *verdict {
	v := &verdict{TB: t}
	ended := make(chan struct{})
	go func() { // ends with the test
		defer close(ended)
		test(v)
	}()
	<-ended
	return v
}

func withProbe(t *testing.T, word string, err error) {
	probes[word] = func() error { return err }
	t.Cleanup(func() { delete(probes, word) })
}

func TestHave(t *testing.T) {
	withProbe(t, "here", nil)
	withProbe(t, "absent", errors.New("broken"))
	tests := []struct {
		name, promise, word string
		skipped, failed     string
	}{
		{"met", "", "here", "", ""},
		{"met and promised", "here", "here", "", ""},
		{"missing", "", "absent", "needs absent (broken)", ""},
		{"missing, another promised", "here,absentee", "absent", "needs absent (broken)", ""},
		{"missing and promised", "here, absent", "absent", "", "absent is promised"},
		{"unknown word", "", "unheard-of", "", "no probe"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(environment, tt.promise)
			v := judged(t, func(t testing.TB) { Have(t, tt.word) })
			if !strings.HasPrefix(v.skipped, tt.skipped) || (tt.skipped == "") != (v.skipped == "") {
				t.Errorf("skipped %q, want %q", v.skipped, tt.skipped)
			}
			if !strings.Contains(v.failed, tt.failed) || (tt.failed == "") != (v.failed == "") {
				t.Errorf("failed %q, want %q", v.failed, tt.failed)
			}
		})
	}
}

// A promised word fails even when another, not promised, is missing before it.
func TestHavePromisedAfterMissing(t *testing.T) {
	withProbe(t, "absent", errors.New("broken"))
	withProbe(t, "pledged", errors.New("broken too"))
	t.Setenv(environment, "pledged")
	v := judged(t, func(t testing.TB) { Have(t, "absent", "pledged") })
	if v.failed == "" {
		t.Errorf("not failed; skipped %q", v.skipped)
	}
}

// Words come first, whatever the reasons look like.
func TestHaveSeveral(t *testing.T) {
	withProbe(t, "absent", errors.New("broken, absentee (no)"))
	withProbe(t, "gone", errors.New("lost"))
	v := judged(t, func(t testing.TB) { Have(t, "absent", "gone") })
	if want := "needs absent, gone (broken, absentee (no); lost)"; v.skipped != want {
		t.Errorf("skipped %q, want %q", v.skipped, want)
	}
}

// A test that runs with and without is told which, and never skipped.
func TestHas(t *testing.T) {
	withProbe(t, "here", nil)
	withProbe(t, "absent", errors.New("broken"))
	for _, c := range []struct {
		promise, word string
		want          bool
		failed        string
	}{
		{"", "here", true, ""},
		{"here", "here", true, ""},
		{"", "absent", false, ""},
		{"absent", "absent", false, "absent is promised"},
		{"", "unheard-of", false, "no probe"},
	} {
		t.Setenv(environment, c.promise)
		var has bool
		v := judged(t, func(t testing.TB) { has = Has(t, c.word) })
		if has != c.want || v.skipped != "" || !strings.Contains(v.failed, c.failed) || (c.failed == "") != (v.failed == "") {
			t.Errorf("%+v: %v, skipped %q, failed %q", c, has, v.skipped, v.failed)
		}
	}
}

func TestCasesFromEnvironment(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("IKEPULSE_CASES", dir)
	if _, err := casesDir(); err == nil {
		t.Error("a folder without a manifest was taken for the cases")
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Cases(t); got != dir {
		t.Errorf("Cases = %q, want %q", got, dir)
	}
}

// Every word by itself, so that a run shows what the machine lacks, and fails
// where it lacks what was promised.
func TestProbes(t *testing.T) {
	for word := range probes {
		t.Run(word, func(t *testing.T) { Have(t, word) })
	}
}
