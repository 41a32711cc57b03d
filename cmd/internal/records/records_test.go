package records

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func open(t *testing.T, path string, capacity int) (*Store, int) {
	t.Helper()
	s, left, err := Open(path, capacity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, left
}

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	s, left := open(t, path, 2)
	if left != 0 {
		t.Fatalf("a new file has %d records", left)
	}
	record := bytes.Repeat([]byte("k3y"), 700)
	for range 3 { // again and again in one slot
		if err := s.Put(7, record, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put(8, record[:5], 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(9, record, 0); !errors.Is(err, ErrFull) {
		t.Fatalf("a third record of two: %v", err)
	}
	if err := s.Put(7, make([]byte, 4096), 0); err != nil {
		t.Fatalf("the largest record of an SA: %v", err)
	}
	if err := s.Put(7, make([]byte, 4097), 0); err == nil {
		t.Fatal("a record larger than any slot was taken")
	}
	if err := s.Delete(8); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(9, record[:6], 0); err != nil {
		t.Fatalf("a deleted record's slot is not free: %v", err)
	}
}

// TestLeftBehind: what a killed daemon has left is counted, and is gone after
// that, in the file too.
func TestLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	s, _ := open(t, path, 1000)
	for spi := range uint64(5) {
		if err := s.Put(spi+1, []byte("canary in the mine"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(3); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, left := open(t, path, 10); left != 4 {
		t.Errorf("%d records are left of 4", left)
	}
	b, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(b), "canary") {
		t.Errorf("the file still holds an old record (%v)", err)
	}
}

func TestOneDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	open(t, path, 10)
	if _, _, err := Open(path, 10); err == nil || !strings.Contains(err.Error(), "is running") {
		t.Errorf("a second daemon: %v", err)
	}
}

func TestMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, path, 1)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
