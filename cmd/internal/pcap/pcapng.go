package pcap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"
)

// Block types of pcapng (draft-ietf-opsawg-pcapng section 4). A section's is
// the same in either byte order.
const (
	blockInterface = 1
	blockPacket    = 2 // obsolete, still met
	blockSimple    = 3
	blockEnhanced  = 6
	blockSection   = 0x0a0d0d0a

	byteOrderMagic = 0x1a2b3c4d

	blockHeader  = 8                   // type and length
	blockTrailer = 4                   // the length again
	maxBlock     = maxFrame + 64*1<<10 // with its options
)

// The options of an interface that matter.
const (
	optionEnd        = 0
	optionResolution = 9
)

// origin is an interface that frames were captured at.
type origin struct {
	linkType LinkType
	snap     uint32 // 0: no limit
	second   uint64 // in units of its times
}

// nextGeneration is pcapng: sections, each with interfaces and frames.
type nextGeneration struct {
	*input
	origins []origin
}

func newNextGeneration(in *input) (format, error) {
	n := &nextGeneration{input: in}
	_, _, err := n.block()
	return n, err
}

func (n *nextGeneration) next(f *Frame) error {
	for {
		kind, body, err := n.block()
		if err != nil {
			return err
		}
		switch kind {
		case blockInterface:
			err = n.addOrigin(body)
		case blockEnhanced:
			return n.enhanced(f, body)
		case blockPacket:
			return n.packet(f, body)
		case blockSimple:
			return n.simple(f, body)
		}
		if err != nil {
			return err
		}
	}
}

// block reads the next block and returns what is in it. That of a section sets
// the byte order, and forgets the interfaces of the section before.
func (n *nextGeneration) block() (kind uint32, body []byte, err error) {
	header, err := n.take(blockHeader)
	if err != nil {
		return 0, nil, err
	}
	if binary.LittleEndian.Uint32(header) == blockSection {
		return n.section(header)
	}
	kind = n.order.Uint32(header)
	length := n.order.Uint32(header[4:])
	switch kind {
	case blockInterface, blockPacket, blockSimple, blockEnhanced:
		body, err = n.body(length)
	default:
		err = n.skip(length, blockHeader)
	}
	return kind, body, err
}

// section reads the rest of a section's block, of which nothing matters.
func (n *nextGeneration) section(header []byte) (uint32, []byte, error) {
	length := [4]byte(header[4:])
	magic, err := n.more(4)
	if err != nil {
		return 0, nil, err
	}
	switch {
	case binary.LittleEndian.Uint32(magic) == byteOrderMagic:
		n.order = binary.LittleEndian
	case binary.BigEndian.Uint32(magic) == byteOrderMagic:
		n.order = binary.BigEndian
	default:
		return 0, nil, fmt.Errorf("%w: a byte order of % x", ErrFormat, magic)
	}
	n.origins = nil
	return blockSection, nil, n.skip(n.order.Uint32(length[:]), blockHeader+4)
}

// body reads what follows the header of a block of that length.
func (n *nextGeneration) body(length uint32) ([]byte, error) {
	rest, err := restOf(length, blockHeader, maxBlock)
	if err != nil {
		return nil, err
	}
	b, err := n.more(rest)
	if err != nil {
		return nil, err
	}
	return b[:rest-blockTrailer], n.trailer(b[rest-blockTrailer:], length)
}

// skip reads over the same of a block of which nothing matters, as the names or
// the TLS secrets that Wireshark puts beside frames, however long it is.
func (n *nextGeneration) skip(length uint32, already int) error {
	rest, err := restOf(length, already, math.MaxInt32)
	if err != nil {
		return err
	}
	if _, err := n.r.Discard(rest - blockTrailer); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	trailer, err := n.more(blockTrailer)
	if err != nil {
		return err
	}
	return n.trailer(trailer, length)
}

// restOf is how much of a block there is to read.
func restOf(length uint32, already, most int) (int, error) {
	rest := int64(length) - int64(already)
	if length%4 != 0 || rest < blockTrailer || int64(length) > int64(most) {
		return 0, fmt.Errorf("%w: a block of %d bytes", ErrFormat, length)
	}
	return int(rest), nil
}

func (n *nextGeneration) trailer(b []byte, length uint32) error {
	if end := n.order.Uint32(b); end != length {
		return fmt.Errorf("%w: a block begins with a length of %d and ends with %d", ErrFormat, length, end)
	}
	return nil
}

func (n *nextGeneration) addOrigin(body []byte) error {
	if len(body) < 8 {
		return fmt.Errorf("%w: an interface of %d bytes", ErrFormat, len(body))
	}
	o := origin{linkType: LinkType(n.order.Uint16(body)), snap: n.order.Uint32(body[4:]), second: 1e6}
	for options := body[8:]; len(options) >= 4; {
		code, size := n.order.Uint16(options), int(n.order.Uint16(options[2:]))
		if code == optionEnd || 4+size > len(options) {
			break
		}
		if code == optionResolution && size == 1 {
			o.second = resolution(options[4])
		}
		options = options[min(4+(size+3)/4*4, len(options)):]
	}
	n.origins = append(n.origins, o)
	return nil
}

// resolution returns how many units of time a second has: a power of ten, or
// with the highest bit set of two. What no clock has counts as seconds.
func resolution(b byte) uint64 {
	base, exponent := uint64(10), b
	if b&0x80 != 0 {
		base, exponent = 2, b&0x7f
	}
	second := uint64(1)
	for range exponent {
		if second > math.MaxUint64/base {
			return 1
		}
		second *= base
	}
	return second
}

// at returns the time that is so many units after 1970.
func (o origin) at(units uint64) time.Time {
	high, low := bits.Mul64(units%o.second, 1e9)
	nanoseconds, _ := bits.Div64(high, low, o.second)
	return time.Unix(int64(units/o.second), int64(nanoseconds)).UTC()
}

// origin returns an interface of this section.
func (n *nextGeneration) origin(i int) (origin, error) {
	if i >= len(n.origins) {
		return origin{}, fmt.Errorf("%w: interface %d of %d", ErrFormat, i, len(n.origins))
	}
	return n.origins[i], nil
}

const packetHeader = 20 // interface, time, both lengths

func (n *nextGeneration) enhanced(f *Frame, body []byte) error {
	if len(body) < packetHeader {
		return fmt.Errorf("%w: a packet block of %d bytes", ErrFormat, len(body))
	}
	return n.fill(f, n.order.Uint32(body), body)
}

// packet differs in the width of the interface's number.
func (n *nextGeneration) packet(f *Frame, body []byte) error {
	if len(body) < packetHeader {
		return fmt.Errorf("%w: a packet block of %d bytes", ErrFormat, len(body))
	}
	return n.fill(f, uint32(n.order.Uint16(body)), body)
}

func (n *nextGeneration) fill(f *Frame, at uint32, body []byte) error {
	o, err := n.origin(int(at))
	if err != nil {
		return err
	}
	units := uint64(n.order.Uint32(body[4:]))<<32 | uint64(n.order.Uint32(body[8:]))
	captured, length := n.order.Uint32(body[12:]), n.order.Uint32(body[16:])
	if int64(captured) > int64(len(body)-packetHeader) {
		return fmt.Errorf("%w: a frame of %d bytes, %d of them captured, in a block of %d", ErrFormat, length, captured, len(body))
	}
	f.Time = o.at(units)
	f.LinkType = o.linkType
	f.Length = wireLength(length)
	f.Data = body[packetHeader : packetHeader+captured]
	return nil
}

// simple is of the first interface, and has no time. What was captured is not
// said: it is the whole frame, or as much as the interface takes.
func (n *nextGeneration) simple(f *Frame, body []byte) error {
	if len(body) < 4 {
		return fmt.Errorf("%w: a packet block of %d bytes", ErrFormat, len(body))
	}
	o, err := n.origin(0)
	if err != nil {
		return err
	}
	length := n.order.Uint32(body)
	captured := length
	if o.snap != 0 {
		captured = min(captured, o.snap)
	}
	if int64(captured) > int64(len(body)-4) {
		return fmt.Errorf("%w: a frame of %d bytes in a block of %d", ErrFormat, length, len(body))
	}
	f.LinkType = o.linkType
	f.Length = wireLength(length)
	f.Data = body[4 : 4+captured]
	return nil
}
