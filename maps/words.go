package maps

// This is the only file with unsafe: it turns a map's mapped memory into
// 64-bit words and reads and writes them whole. Review it as one piece.

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const wordSize = unsafe.Sizeof(uint64(0))

// words is memory that the kernel, other processes and other goroutines write
// at the same time: it is only ever touched through load, store and swap.
type words []uint64

// mapWords maps the memory of an array map made with BPF_F_MMAPABLE. It maps
// the descriptor of the map itself, which may be closed afterwards: the
// mapping holds the map. Mapped memory is aligned to a page.
func mapWords(fd, count int, writable bool) (words, error) {
	prot := unix.PROT_READ
	if writable {
		prot |= unix.PROT_WRITE
	}
	start, err := unix.MmapPtr(fd, 0, nil, uintptr(count)*wordSize, prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes: %w", count*int(wordSize), err)
	}
	return unsafe.Slice((*uint64)(start), count), nil
}

// unmap gives mapped memory back. Nothing may use w any more.
func (w words) unmap() error {
	if len(w) == 0 {
		return nil
	}
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(w)), uintptr(len(w))*wordSize)
}

func (w words) load(i int) uint64         { return atomic.LoadUint64(&w[i]) }
func (w words) store(i int, value uint64) { atomic.StoreUint64(&w[i], value) }

// swap stores value if the word still holds old.
func (w words) swap(i int, old, value uint64) bool {
	return atomic.CompareAndSwapUint64(&w[i], old, value)
}
