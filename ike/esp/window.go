package esp

// Bounds of a replay window, in packets. RFC 4303 §3.4.3 wants at least 32 and
// prefers 64.
const (
	minWindow = 64
	maxWindow = 1024
)

// window is the anti-replay window of one SA, over whole sequence numbers of
// 64 bits; without ESN the upper half is always 0. Bit n%len of the ring is
// packet n; the ring is a word longer than the window, so that whole words are
// cleared when the window enters them. RFC 4303 §3.4.3, RFC 6479
type window struct {
	size uint64
	top  uint64   // the highest number authenticated, 0 before the first
	ring []uint64 // a power of two long
}

// newWindow takes a size from 64 to 1024, and the nearest of those for others.
func newWindow(size int) window {
	size = min(max(size, minWindow), maxWindow)
	words := 2
	for words*64 < size+64 {
		words *= 2
	}
	return window{size: uint64(size), ring: make([]uint64, words)}
}

// extend finds the whole number from the half that a packet carries: the one
// that lies in the window or after it. RFC 4303 appendix A2.2
func (w *window) extend(low uint32) (seq uint64, ok bool) {
	const subspace = 1 << 32
	topHigh, topLow := w.top&^(subspace-1), w.top%subspace
	bottom := uint32(topLow - w.size + 1)
	seq = topHigh + uint64(low)
	switch inOne := topLow >= w.size-1; {
	case inOne && low < bottom:
		return seq + subspace, seq+subspace > seq // past the last subspace there is none
	case !inOne && low >= bottom:
		return seq - subspace, topHigh > 0
	}
	return seq, true
}

// fresh reports whether seq may be taken. It changes nothing, for the packet
// is not authenticated yet. The number 0 is never sent. RFC 4303 §3.3.3
func (w *window) fresh(seq uint64) bool {
	switch {
	case seq == 0:
		return false
	case seq > w.top:
		return true
	case w.top-seq >= w.size:
		return false
	}
	word, bit := w.at(seq)
	return *word&bit == 0
}

// advance marks seq, which was fresh and is authenticated.
func (w *window) advance(seq uint64) {
	if seq > w.top {
		entered := min(seq/64-w.top/64, uint64(len(w.ring)))
		for i := range entered {
			word, _ := w.at(seq - 64*i)
			*word = 0
		}
		w.top = seq
	}
	word, bit := w.at(seq)
	*word |= bit
}

func (w *window) at(seq uint64) (word *uint64, bit uint64) {
	return &w.ring[seq/64&uint64(len(w.ring)-1)], 1 << (seq % 64)
}
