package records

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestWiped: the file holds what the records of today hold, and nothing of those
// before.
func TestWiped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	s, _ := open(t, path, 100)
	put := func(spi uint64, record string) {
		t.Helper()
		if err := s.Put(spi, []byte(record), 0); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when string, present bool, what string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(what)) != present {
			t.Errorf("%s: %q in the file: %v", when, what, !present)
		}
	}
	long := string(make([]byte, 1000)) + "canary one" // the first size's slot holds it
	put(7, long)
	put(8, "canary two")
	want("stored", true, "canary one")
	put(7, "shorter")
	want("a shorter record", false, "canary one")
	put(7, "canary six"+string(make([]byte, 1500)))
	put(7, "canary ten"+string(make([]byte, 3000)))
	want("moved to a larger slot", false, "canary six")
	want("moved to a larger slot", true, "canary ten")
	for _, spi := range []uint64{7, 8} {
		if err := s.Delete(spi); err != nil {
			t.Fatal(err)
		}
	}
	want("deleted", false, "canary")
	put(9, "canary nine")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want("a killed daemon's", true, "canary nine")
	open(t, path, 100)
	want("taken over", false, "canary")
}
