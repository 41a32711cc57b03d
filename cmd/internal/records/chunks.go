package records

import (
	"fmt"
	"math/bits"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// bytes are those of a slot.
func (s *Store) bytes(p place) []byte {
	size := sizes[s.chunks[p.chunk].size]
	from := s.offset(p.chunk) + p.slot*size
	return s.mem[from : from+size : from+size]
}

func (s *Store) offset(i int) int { return s.table + i*chunk }

// free takes a free slot of a size.
func (s *Store) free(size int) (place, error) {
	if len(s.room[size]) == 0 {
		if err := s.grow(size); err != nil {
			return place{}, err
		}
	}
	i := s.room[size][len(s.room[size])-1]
	c := &s.chunks[i]
	if c.used == 0 {
		s.empty[size] = false
	}
	slot := bits.TrailingZeros64(^c.used)
	c.used |= 1 << slot
	if c.used == all(size) {
		s.leaveRoom(i)
	}
	return place{i, slot}, nil
}

// all are the bits of a chunk of which every slot is in use.
func all(size int) uint64 { return 1<<(chunk/sizes[size]) - 1 }

// grow makes a chunk one of that size. It is allocated first: a store to what
// the file system has no room for ends the process.
func (s *Store) grow(size int) error {
	i := s.spare[len(s.spare)-1] // there is one: see layOut
	at := s.offset(i)
	s.short[size] = s.allocate(at, chunk)
	if err := s.short[size]; err != nil {
		return err
	}
	s.lock(s.mem[at : at+chunk])
	s.spare = s.spare[:len(s.spare)-1]
	s.chunks[i] = state{size: size}
	s.enterRoom(i)
	s.empty[size] = true
	s.mem[len(magic)+i] = byte(size) + 1
	return nil
}

// putBack wipes a slot and makes it free. A second chunk with nothing in it
// goes back to the file system; one is kept for who comes next.
func (s *Store) putBack(p place) {
	clear(s.bytes(p))
	c := &s.chunks[p.chunk]
	if c.used == all(c.size) {
		s.enterRoom(p.chunk)
	}
	c.used &^= 1 << p.slot
	switch {
	case c.used != 0:
	case !s.empty[c.size]:
		s.empty[c.size] = true
	case unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(s.offset(p.chunk)), chunk) == nil:
		s.mem[len(magic)+p.chunk] = 0
		s.leaveRoom(p.chunk)
		s.spare = append(s.spare, p.chunk)
	}
}

func (s *Store) enterRoom(i int) {
	room := &s.room[s.chunks[i].size]
	s.chunks[i].at = len(*room)
	*room = append(*room, i)
}

func (s *Store) leaveRoom(i int) {
	room := &s.room[s.chunks[i].size]
	last := (*room)[len(*room)-1]
	(*room)[s.chunks[i].at] = last
	s.chunks[last].at = s.chunks[i].at
	*room = (*room)[:len(*room)-1]
}

// allocate makes the file system keep room for a part of the file.
func (s *Store) allocate(at, size int) error {
	for {
		err := unix.Fallocate(int(s.file.Fd()), 0, int64(at), int64(size))
		switch {
		case err == unix.EINTR: // by a signal of the runtime's; nothing is done
			continue
		case err == unix.ENOSPC:
			fs := mountOf(s.file.Name())
			return fmt.Errorf("%w: %s is full, and the records of the SAs are there: free some of it, or give it more (mount -o remount,size=... %s)", err, fs, fs)
		case err != nil:
			return fmt.Errorf("allocate %d bytes of %s: %w", size, s.file.Name(), err)
		}
		return nil
	}
}

// mountOf is where the file system of a file is mounted.
func mountOf(path string) string {
	var here unix.Stat_t
	if err := unix.Stat(path, &here); err != nil {
		return filepath.Dir(path)
	}
	for up := path; ; path = up {
		up = filepath.Dir(path)
		var st unix.Stat_t
		if up == path || unix.Stat(up, &st) != nil || st.Dev != here.Dev {
			return path
		}
	}
}
