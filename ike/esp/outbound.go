package esp

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Outbound is the sending half of a Child SA. It belongs to one goroutine: a
// sequence number sent twice would be an IV used twice.
type Outbound struct {
	spi           uint32
	cipher        *suite.ESP
	local, remote []wire.Selector
	next, last    uint64 // next is past last, or 0, when there is none left
}

// NewOutbound makes the sending half: an inner source must lie in local, the
// destination in remote. firstSeq is the first sequence number to use; who
// keeps SAs over a restart reserves them in steps and starts at the mark. The
// keys must be those derived for c, and are copied.
func NewOutbound(spi uint32, c suite.Choice, encr, integ *suite.Key, local, remote []wire.Selector, firstSeq uint64) *Outbound {
	o := &Outbound{
		spi: spi, cipher: c.NewESP(encr, integ), local: local, remote: remote,
		next: max(firstSeq, 1), last: math.MaxUint32, // 0 is never sent. RFC 4303 §3.3.3
	}
	if c.ESN == wire.ESNYes {
		o.last = math.MaxUint64
	}
	return o
}

// Wipe overwrites the keys. Nothing can be sealed any more.
func (o *Outbound) Wipe() { o.cipher.Wipe() }

// Next is the sequence number that the next packet gets.
func (o *Outbound) Next() uint64 { return o.next }

// Seal appends the ESP packet for inner to dst, which must not overlap it; with
// room for the packet there it allocates nothing.
func (o *Outbound) Seal(dst, inner []byte) ([]byte, error) {
	f, ok := parse(inner)
	if !ok {
		return nil, ErrMalformed
	}
	if !f.within(o.local, o.remote) {
		return nil, ErrSelector
	}
	if o.next == 0 || o.next > o.last {
		return nil, ErrSequence
	}
	start := len(dst)
	dst = o.layOut(dst, inner[:f.length], f.next)
	o.cipher.Seal(dst[start:], o.next)
	o.next++
	return dst, nil
}

// layOut appends a packet that lacks only its IV, encryption and ICV.
// RFC 4303 §2
func (o *Outbound) layOut(dst, inner []byte, next byte) []byte {
	align := o.cipher.Align()
	pad := (align - (len(inner)+trailerLen)%align) % align
	head := headLen + o.cipher.IVLen()
	size := head + len(inner) + pad + trailerLen + o.cipher.ICVLen()
	start := len(dst)
	dst = slices.Grow(dst, size)[:start+size]
	p := dst[start:]
	binary.BigEndian.PutUint32(p, o.spi)
	binary.BigEndian.PutUint32(p[4:], uint32(o.next))
	trailer := p[head+copy(p[head:], inner):]
	for i := range pad {
		trailer[i] = byte(i + 1)
	}
	trailer[pad], trailer[pad+1] = byte(pad), next
	return dst
}
