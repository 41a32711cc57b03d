package esp

import (
	"encoding/binary"

	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Inbound is the receiving half of a Child SA. It belongs to one goroutine:
// the window and the buffers of the cipher are not locked.
type Inbound struct {
	spi           uint32
	esn           bool
	cipher        *suite.ESP
	window        window
	remote, local []wire.Selector
}

// NewInbound makes the receiving half: an inner source must lie in remote, the
// destination in local. window is 64 to 1024 packets, and begins empty, as it
// does for a new SA. The keys must be those derived for c, and are copied.
func NewInbound(spi uint32, c suite.Choice, encr, integ *suite.Key, remote, local []wire.Selector, window int) *Inbound {
	return &Inbound{
		spi: spi, esn: c.ESN == wire.ESNYes, cipher: c.NewESP(encr, integ),
		window: newWindow(window), remote: remote, local: local,
	}
}

// Wipe overwrites the keys. Nothing can be opened any more.
func (in *Inbound) Wipe() { in.cipher.Wipe() }

// Open appends the packet inside to dst, which must not overlap packet; with
// room for len(packet) there it allocates nothing. ecn is the outer ECN field,
// 0 if the socket does not tell.
//
// authenticated says that the peer sealed the packet and it came for the first
// time. That is evidence of life, also beside an error about what is inside.
func (in *Inbound) Open(dst, packet []byte, ecn uint8) (out []byte, authenticated bool, err error) {
	if len(packet) < headLen || binary.BigEndian.Uint32(packet) != in.spi {
		return nil, false, ErrMalformed
	}
	seq, ok := in.sequence(binary.BigEndian.Uint32(packet[4:]))
	if !ok {
		return nil, false, ErrReplay
	}
	text, err := in.cipher.Open(dst, packet, seq)
	if err != nil {
		return nil, false, ErrICV
	}
	// Only an authenticated packet may move the window. RFC 4303 §3.4.3
	in.window.advance(seq)
	n, err := in.judge(text[len(dst):], ecn&3)
	if err != nil {
		return nil, true, err
	}
	return text[:len(dst)+n], true, nil
}

// sequence is the whole number of a packet, if the window takes it.
func (in *Inbound) sequence(low uint32) (seq uint64, ok bool) {
	seq, ok = uint64(low), true
	if in.esn {
		seq, ok = in.window.extend(low)
	}
	return seq, ok && in.window.fresh(seq)
}

// judge looks at an authenticated plaintext: trailer, inner header, selectors,
// ECN. It returns the length of the inner packet. RFC 4303 §3.4.4.1
func (in *Inbound) judge(text []byte, ecn uint8) (int, error) {
	payload, next, ok := trim(text)
	if !ok {
		return 0, ErrMalformed
	}
	if next == nextDummy {
		return 0, ErrDummy
	}
	f, ok := parse(payload)
	if !ok || f.next != next {
		return 0, ErrMalformed
	}
	// Selectors say nothing of where a source route leads to.
	if f.detour || !f.within(in.remote, in.local) {
		return 0, ErrSelector
	}
	if !applyECN(payload, ecn) {
		return 0, ErrECN
	}
	return f.length, nil
}

// trim cuts the trailer, whose padding must count 1, 2, 3, … RFC 4303 §2.4
func trim(text []byte) (payload []byte, next byte, ok bool) {
	if len(text) < trailerLen {
		return nil, 0, false
	}
	next, text = text[len(text)-1], text[:len(text)-1]
	pad, text := int(text[len(text)-1]), text[:len(text)-1]
	if pad > len(text) {
		return nil, 0, false
	}
	for i, b := range text[len(text)-pad:] {
		if int(b) != i+1 {
			return nil, 0, false
		}
	}
	return text[:len(text)-pad], next, true
}
