// Package pcap reads captures: the classic format and pcapng, in either byte
// order. It yields frames as they were captured and knows nothing of what is
// in them.
package pcap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// LinkType says what a frame begins with; the numbers are the LINKTYPE_ ones
// of tcpdump.org.
type LinkType uint16

// The link types that carry IP and are in common use.
const (
	Null     LinkType = 0   // BSD loopback: 4 bytes of address family, host order
	Ethernet LinkType = 1   //
	RawBSD   LinkType = 12  // IP; the number that some systems wrote for Raw
	RawOpen  LinkType = 14  // IP; the same, OpenBSD
	Raw      LinkType = 101 // IP, either version
	Loop     LinkType = 108 // OpenBSD loopback: 4 bytes of address family, network order
	Cooked   LinkType = 113 // Linux "any": 16 bytes
	IPv4     LinkType = 228
	IPv6     LinkType = 229
	Cooked2  LinkType = 276 // Linux "any", version 2: 20 bytes
)

// Frame is one captured frame.
type Frame struct {
	Number   int // the first is 1
	Time     time.Time
	LinkType LinkType
	Data     []byte // what was captured; the reader's until the next frame
	Length   int    // what was on the wire, at least len(Data)
}

// maxFrame is the longest that is taken for a frame rather than for damage:
// twice what capture tools take at most.
const maxFrame = 1 << 19

// ErrFormat is in the error chain of what is no capture, or a damaged one.
var ErrFormat = errors.New("not a capture that can be read")

// MagicError is the beginning of a file that is in neither format.
type MagicError [4]byte

func (e MagicError) Error() string { return fmt.Sprintf("%v: it begins with % x", ErrFormat, e[:]) }
func (e MagicError) Unwrap() error { return ErrFormat }

// format is one of the two file formats, past its header.
type format interface {
	next(f *Frame) error // io.EOF at a clean end
}

// Reader reads the frames of one capture.
type Reader struct {
	format format
	frames int
}

// NewReader reads the header of a capture and finds out which format it has.
func NewReader(r io.Reader) (*Reader, error) {
	in := &input{r: bufio.NewReaderSize(r, 1<<16)}
	magic, err := in.r.Peek(len(MagicError{}))
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, len(magic))
	}
	if err != nil {
		return nil, err
	}
	var f format
	if binary.LittleEndian.Uint32(magic) == blockSection {
		f, err = newNextGeneration(in)
	} else {
		f, err = newClassic(in, MagicError(magic))
	}
	if err != nil {
		return nil, err
	}
	return &Reader{format: f}, nil
}

// Next returns the next frame, [io.EOF] after the last. After another error
// there is no way on: the place of the next frame is lost.
func (r *Reader) Next() (Frame, error) {
	f := Frame{Number: r.frames + 1}
	err := r.format.next(&f)
	if errors.Is(err, io.EOF) {
		return Frame{}, io.EOF
	}
	if err != nil {
		return Frame{}, fmt.Errorf("frame %d: %w", f.Number, err)
	}
	r.frames++
	f.Length = max(f.Length, len(f.Data))
	return f, nil
}

// wireLength is what a file says of a frame's length on the wire. Nothing is
// read by it, so no value is damage: files of fuzzers have any.
func wireLength(n uint32) int { return int(min(n, math.MaxInt32)) }

// input is what both formats read from.
type input struct {
	r      *bufio.Reader
	order  binary.ByteOrder
	buffer []byte // of the present frame or block
}

// take returns the next n bytes, valid until the next take. A file that ends
// within them is damaged, one that ends before them is at its end.
func (in *input) take(n int) ([]byte, error) {
	if cap(in.buffer) < n {
		in.buffer = make([]byte, n)
	}
	b := in.buffer[:n]
	_, err := io.ReadFull(in.r, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%w: the file ends in the middle", ErrFormat)
	}
	return b, err
}

// more is take for what must be there.
func (in *input) more(n int) ([]byte, error) {
	b, err := in.take(n)
	if errors.Is(err, io.EOF) && n > 0 {
		return nil, fmt.Errorf("%w: the file ends in the middle", ErrFormat)
	}
	return b, err
}
