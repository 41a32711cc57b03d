// Package records keeps the flat records of the SAs in one root-only file on a
// tmpfs, mapped shared: a plain store survives kill -9, and nothing of it
// survives a reboot, which ends the kernel's SAs too. The records hold keys.
//
// The file begins with a table, a byte for each chunk of 64 kB behind it: how
// large the chunk's slots are. A chunk is allocated before anything is stored
// in it, so a full tmpfs is an error of Put and not a SIGBUS. An SA keeps its
// slot as long as the record fits, and a larger one until the larger record
// stands: what was stored before a Put that fails is still there after it. The
// first record gets the room that a later one may need, so that on a full tmpfs a
// tunnel that is up can still ask its peer, who would be taken for dead. Of a
// surge a chunk goes back to the tmpfs once nothing is in it, but for one of each
// size.
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

// Size is what the record of an ordinary tunnel takes of the file: some 1,200
// bytes with the messages that are kept for a retransmission, and its head.
const Size = 1280

// sizes are those of slots. The last holds the largest record that there is,
// of 4,096 bytes.
var sizes = [...]int{Size, 2048, 4096 + head}

const (
	// head is a slot's: the SPI, the length of the record, nothing.
	head  = 16
	chunk = 64 << 10
	magic = "ikeprec2" // what the table begins with
)

// ErrFull says that there are as many records as there may be.
var ErrFull = errors.New("the record file is full")

// Store is an open record file. Its methods may be called from any goroutine,
// those for one SPI by one at a time.
type Store struct {
	file     *os.File
	mem      []byte
	table    int // bytes before the first chunk
	capacity int

	mu        sync.Mutex
	swappable bool             // the limit of locked memory is reached
	slot      map[uint64]place // by SPI
	chunks    []state
	spare     []int             // chunks that are nobody's
	room      [len(sizes)][]int // chunks of a size with a free slot
	short     [len(sizes)]error // why the last chunk of a size could not be had
	empty     [len(sizes)]bool  // one of them has nothing in it
}

// place is a slot.
type place struct{ chunk, slot int }

// state is what is known of a chunk.
type state struct {
	size int    // index of sizes
	used uint64 // a bit for each slot
	at   int    // in room, or -1
}

// Open makes or takes over the file, with room for so many SAs. It takes memory
// as the records come. left is how many an earlier run did not delete.
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
	s = &Store{file: f, capacity: capacity, slot: map[uint64]place{}}
	size := s.layOut()
	if err := errors.Join(f.Chmod(0o600), f.Truncate(0), f.Truncate(size)); err != nil {
		return nil, 0, err
	}
	if err := s.allocate(0, s.table); err != nil {
		return nil, 0, err
	}
	if s.mem, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, 0, fmt.Errorf("map %s: %w", path, err)
	}
	s.lock(s.mem[:s.table])
	copy(s.mem, magic)
	return s, left, nil
}

// layOut makes the chunks, and gives the file's size. There are as many as all
// records need when all have been of every size, each leaving its chunks in
// the hands of a few.
func (s *Store) layOut() (size int64) {
	n := 0
	for _, size := range sizes {
		perChunk := chunk / size
		n += (s.capacity + perChunk - 1) / perChunk
	}
	s.chunks = make([]state, n)
	s.table = tableSize(n)
	for i := n - 1; i >= 0; i-- { // the lowest are taken first
		s.spare = append(s.spare, i)
	}
	return int64(s.table) + int64(n)*chunk
}

func tableSize(chunks int) int {
	const page = 4096
	return (len(magic) + chunks + page - 1) &^ (page - 1)
}

// count reads the heads of an earlier run's slots. A file of another version
// holds nothing that is known.
func count(f *os.File) (n int, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	chunks := int(info.Size()-int64(len(magic))) / (chunk + 1)
	if chunks <= 0 {
		return 0, nil
	}
	b := make([]byte, chunk)
	defer clear(b) // it has held keys
	table := make([]byte, tableSize(chunks))
	if _, err := f.ReadAt(table, 0); err != nil || string(table[:len(magic)]) != magic {
		return 0, err
	}
	for i, kind := range table[len(magic):] {
		at := int64(len(table)) + int64(i)*chunk
		if kind == 0 || int(kind) > len(sizes) || at+chunk > info.Size() {
			continue
		}
		if _, err := f.ReadAt(b, at); err != nil {
			return n, err
		}
		n += records(b, sizes[kind-1])
	}
	return n, nil
}

// records counts those of a chunk.
func records(b []byte, size int) (n int) {
	for ; len(b) >= size; b = b[size:] {
		if binary.LittleEndian.Uint32(b[8:]) != 0 {
			n++
		}
	}
	return n
}

// Put stores the record of the SA with that SPI, replacing an earlier one,
// which stays where there is no room for this one. The length is written last
// and zeroed first, so that a record cut by kill -9 is no record, nor are there
// two of an SA; the checksum in it says the rest. The slot of a first record has
// room for so many bytes more, as far as there is a size for that.
func (s *Store) Put(spi uint64, record []byte, room int) error {
	size := sizeFor(len(record))
	if size == len(sizes) {
		return fmt.Errorf("a record of %d bytes, at most %d fit", len(record), sizes[len(sizes)-1]-head)
	}
	before, at, err := s.take(spi, size, sizeFor(len(record)+room))
	if err != nil {
		return err
	}
	b := s.bytes(at)
	setLength(b, 0)
	binary.LittleEndian.PutUint64(b, spi)
	clear(b[head+copy(b[head:], record):]) // of a longer one before
	if before != at {
		setLength(s.bytes(before), 0)
		s.release(before)
	}
	setLength(b, len(record))
	return nil
}

func setLength(b []byte, n int) { binary.LittleEndian.PutUint32(b[8:], uint32(n)) }

// sizeFor is the index of the smallest size that holds a record, or behind them.
func sizeFor(record int) int {
	for i, size := range sizes {
		if record+head <= size {
			return i
		}
	}
	return len(sizes)
}

// take gives the slot that an SA had, and the one for its record: the same, as
// long as it is large enough. roomy is the size for one that may grow.
func (s *Store) take(spi uint64, size, roomy int) (before, at place, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.slot[spi]
	if known && s.chunks[before.chunk].size >= size {
		return before, before, nil
	}
	if !known && len(s.slot) >= s.capacity {
		return place{}, place{}, ErrFull
	}
	at, err = s.free(min(roomy, len(sizes)-1))
	if err != nil {
		return place{}, place{}, err
	}
	s.slot[spi] = at
	if !known {
		before = at
	}
	return before, at, nil
}

// Short says why the records of further SAs cannot be kept, or is nil. It looks
// again where one was refused.
func (s *Store) Short() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for size, why := range s.short {
		if why == nil {
			continue
		}
		if len(s.room[size]) > 0 || len(s.slot) == s.capacity {
			s.short[size] = nil // somebody has gone, or it is not the room that is short
		} else if err := s.grow(size); err != nil {
			return err
		}
	}
	return nil
}

// release wipes a slot and gives it back.
func (s *Store) release(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putBack(p)
}

// Delete wipes the record of that SPI, if there is one.
func (s *Store) Delete(spi uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.slot[spi]
	if !ok {
		return nil
	}
	setLength(s.bytes(p), 0)
	delete(s.slot, spi)
	s.putBack(p)
	return nil
}

// Close unmaps the file and leaves it with what is in it.
func (s *Store) Close() error {
	return errors.Join(unix.Munmap(s.mem), s.file.Close())
}
