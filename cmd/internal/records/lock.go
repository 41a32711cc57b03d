package records

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Lockable says why so many bytes cannot be kept out of swap, or is nil. It
// asks the kernel, which counts what is mapped to be locked, touched or not.
func Lockable(size int64) error {
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|unix.MAP_LOCKED)
	switch {
	case err == nil:
		return unix.Munmap(b)
	case err != unix.EAGAIN && err != unix.EPERM:
		return err
	}
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) // which cannot fail
	return fmt.Errorf("the limit of locked memory is %d kB (ulimit -l, LimitMEMLOCK=), and they take up to %d kB", limit.Cur>>10, size>>10)
}

// lock keeps a part of the file out of swap, as far as the limit goes: see
// Lockable.
func (s *Store) lock(b []byte) {
	if !s.swappable {
		s.swappable = unix.Mlock(b) != nil
	}
}
