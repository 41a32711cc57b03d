package records

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// sealed is a record that says of itself whether it is whole.
func sealed(spi uint64, size int) []byte {
	b := bytes.Repeat([]byte{byte(spi)}, size)
	sum := sha256.Sum256(b[32:])
	copy(b, sum[:])
	return b
}

// stored reads a file as the next daemon finds it: the lengths of the records
// by their SPIs.
func stored(t *testing.T, path string) map[uint64]int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[uint64]int{}
	chunks := (len(b) - len(magic)) / (chunk + 1)
	for i, kind := range b[len(magic) : len(magic)+chunks] {
		if kind == 0 {
			continue
		}
		size := sizes[kind-1]
		for c := b[tableSize(chunks)+i*chunk:][:chunk]; len(c) >= size; c = c[size:] {
			spi, n := binary.LittleEndian.Uint64(c), int(binary.LittleEndian.Uint32(c[8:]))
			if n == 0 {
				continue
			}
			if n > size-head || !bytes.Equal(c[head:head+n], sealed(spi, n)) {
				t.Errorf("a record of SPI %d, %d bytes, passes for whole", spi, n)
			}
			if found[spi] != 0 {
				t.Errorf("two records of SPI %d", spi)
			}
			found[spi] = n
		}
	}
	return found
}

// blocks is what a file takes of its file system.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestAgainstModel puts, grows, shrinks and deletes at random, and wants to
// find in the file exactly what must be there.
func TestAgainstModel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	const capacity = 300
	s, _ := open(t, path, capacity)
	r := rand.New(rand.NewSource(1))
	want := map[uint64]int{}
	for i := range 20_000 {
		spi := uint64(r.Intn(capacity) + 1)
		if r.Intn(3) == 0 {
			if err := s.Delete(spi); err != nil {
				t.Fatal(err)
			}
			delete(want, spi)
			continue
		}
		size := 32 + r.Intn(4096-31)
		if err := s.Put(spi, sealed(spi, size), 0); err != nil {
			t.Fatal(err)
		}
		want[spi] = size
		if i%4000 != 0 {
			continue
		}
		got := stored(t, path)
		for spi, size := range want {
			if got[spi] != size {
				t.Fatalf("SPI %d: %d bytes are stored, want %d", spi, got[spi], size)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d records are stored, want %d", len(got), len(want))
		}
	}
	for spi := range want {
		if err := s.Delete(spi); err != nil {
			t.Fatal(err)
		}
	}
	if n := blocks(t, path); n > int64(s.table+len(sizes)*chunk+chunk/2) {
		t.Errorf("with no record left the file takes %d bytes", n)
	}
}

// TestSlotsFit: an ordinary tunnel takes no more than it needs, and all that
// there can be of the largest have room.
func TestSlotsFit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	const n = 1000
	s, _ := open(t, path, n)
	for spi := range uint64(n) {
		// As a responder's after IKE_AUTH, with its answer, and then a probe.
		if err := errors.Join(s.Put(spi+1, make([]byte, 1135), 96), s.Put(spi+1, make([]byte, 1192), 0)); err != nil {
			t.Fatal(err)
		}
	}
	if got := blocks(t, path); got > n*Size*11/10 {
		t.Errorf("%d tunnels take %d bytes", n, got)
	}
	for spi := range uint64(n) {
		if err := s.Put(spi+1, make([]byte, 4096), 0); err != nil {
			t.Fatal(err)
		}
	}
	// The larger slots stay theirs: what has been needed may be again.
	before := blocks(t, path)
	for spi := range uint64(n) {
		if err := s.Put(spi+1, make([]byte, 900), 0); err != nil {
			t.Fatal(err)
		}
	}
	if after := blocks(t, path); after != before {
		t.Errorf("%d bytes became %d", before, after)
	}
}

// BenchmarkPut stores the record of one tunnel again and again; PutNew those of
// new ones, which the file has to grow for.
func BenchmarkPut(b *testing.B) {
	s := benchStore(b, 1)
	record := make([]byte, 907)
	for b.Loop() {
		if err := s.Put(1, record, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPutNew(b *testing.B) {
	const capacity = 100_000
	s, record, spi := benchStore(b, capacity), make([]byte, 907), uint64(0)
	for b.Loop() {
		if spi++; spi%capacity == 0 {
			b.StopTimer()
			s = benchStore(b, capacity)
			b.StartTimer()
		}
		if err := s.Put(spi, record, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func benchStore(b *testing.B, capacity int) *Store {
	s, _, err := Open(filepath.Join("/dev/shm", filepath.Base(b.TempDir())+"-records"), capacity)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		s.Close()
		os.Remove(s.file.Name())
	})
	return s
}
