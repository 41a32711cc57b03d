// Package records keeps the flat records of the SAs in one root-only file on a
// tmpfs, mapped shared: a plain store survives kill -9, and nothing of it
// survives a reboot, which ends the kernel's SAs too. The records hold keys.
//
// Taking tunnels up again after a restart is not there yet; Open tells how many
// records an earlier run has left, and clears them.
package records

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Size is what a record takes of the file: its SPI, its length, its bytes.
const Size = slotSize

const (
	slotSize = 4096
	head     = 16
)

// ErrFull says that every slot is in use.
var ErrFull = errors.New("the record file is full")

// Store is an open record file. Its methods may be called from any goroutine.
type Store struct {
	file *os.File
	mem  []byte

	mu   sync.Mutex
	slot map[uint64]int // by SPI
	free []int          // that have been used
	used int            // slots ever: the next ones are free, too
}

// Open makes or takes over the file, with room for so many SAs. The file is
// sparse: a slot costs memory once it has been used. left is how many records
// an earlier run did not delete.
func Open(path string, capacity int) (s *Store, left int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, 0, fmt.Errorf("%s is in use: a daemon of this instance is running", path)
	}
	left, err = count(f)
	if err != nil {
		return nil, 0, err
	}
	if err := errors.Join(f.Chmod(0o600), f.Truncate(0), f.Truncate(int64(capacity)*slotSize)); err != nil {
		return nil, 0, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, capacity*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, 0, fmt.Errorf("map %s: %w", path, err)
	}
	return &Store{file: f, mem: mem, slot: map[uint64]int{}}, left, nil
}

// count reads the heads of an earlier run's slots. Holes of the sparse file
// read as zeros, which is no record.
func count(f *os.File) (n int, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	var b [head]byte
	for off := int64(0); off+slotSize <= info.Size(); off += slotSize {
		data, err := f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		off = data - data%slotSize
		if _, err := f.ReadAt(b[:], off); err != nil {
			return n, err
		}
		if binary.LittleEndian.Uint32(b[8:]) != 0 {
			n++
		}
	}
	return n, nil
}

// Put stores the record of the SA with that SPI, replacing an earlier one. The
// length is written last and zeroed first, so that a record cut by kill -9 is
// no record; the checksum in it says the rest.
func (s *Store) Put(spi uint64, record []byte) error {
	if len(record) > slotSize-head {
		return fmt.Errorf("a record of %d bytes, at most %d fit", len(record), slotSize-head)
	}
	b, err := s.take(spi)
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(b[8:], 0)
	binary.LittleEndian.PutUint64(b, spi)
	copy(b[head:], record)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(record)))
	return nil
}

func (s *Store) take(spi uint64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.slot[spi]
	if !ok {
		switch n := len(s.free); {
		case n > 0:
			i, s.free = s.free[n-1], s.free[:n-1]
		case s.used < len(s.mem)/slotSize:
			i = s.used
			s.used++
		default:
			return nil, ErrFull
		}
		s.slot[spi] = i
	}
	return s.mem[i*slotSize : (i+1)*slotSize], nil
}

// Delete wipes the record of that SPI, if there is one.
func (s *Store) Delete(spi uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.slot[spi]
	if !ok {
		return nil
	}
	b := s.mem[i*slotSize : (i+1)*slotSize]
	binary.LittleEndian.PutUint32(b[8:], 0)
	clear(b)
	delete(s.slot, spi)
	s.free = append(s.free, i)
	return nil
}

// Close unmaps the file and leaves it with what is in it.
func (s *Store) Close() error {
	return errors.Join(unix.Munmap(s.mem), s.file.Close())
}
