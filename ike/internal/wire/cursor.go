package wire

import (
	"encoding/binary"
	"fmt"
)

// SyntaxError says where a message breaks the format. The peer may be told
// INVALID_SYNTAX, in an authenticated message only. RFC 7296 §2.21
type SyntaxError struct {
	Payload PayloadType // NoNext while in the IKE header
	Offset  int         // from the start of the bytes that were parsed
	Msg     string
}

func (e *SyntaxError) Error() string {
	if e.Payload == NoNext {
		return fmt.Sprintf("IKE message: %s at byte %d", e.Msg, e.Offset)
	}
	return fmt.Sprintf("IKE %s payload: %s at byte %d", e.Payload, e.Msg, e.Offset)
}

// cursor reads a bounded stretch of a message. It is the only code here that
// slices what came from the network, and it checks every length first.
//
// The first failure is kept in the run, which all cursors of one parse share;
// from then on every read gives zero and left() is 0, so that a decoder reads
// field after field and loops over what is left without testing each step.
type cursor struct {
	run *run
	b   []byte // what is left of the stretch
	off int    // where b begins in the whole input
}

// run is one parse: the payload it is at, and why it failed.
type run struct {
	payload PayloadType
	err     error
}

func newCursor(b []byte) cursor { return cursor{run: new(run), b: b} }

func (c *cursor) ok() bool { return c.run.err == nil }

// left is the number of unread bytes, none after a failure.
func (c *cursor) left() int {
	if !c.ok() {
		return 0
	}
	return len(c.b)
}

// fail records the first failure of the run.
func (c *cursor) fail(format string, args ...any) {
	if c.ok() {
		c.run.err = &SyntaxError{c.run.payload, c.off, fmt.Sprintf(format, args...)}
	}
}

// take gives the next n bytes as a view of the input, or nil after a failure.
func (c *cursor) take(n int) []byte {
	if !c.ok() {
		return nil
	}
	if n < 0 || n > len(c.b) {
		c.fail("needs %d bytes, %d are left", n, len(c.b))
		return nil
	}
	v := c.b[:n:n]
	c.b, c.off = c.b[n:], c.off+n
	return v
}

// sub takes the next n bytes as a stretch of its own.
func (c *cursor) sub(n int) cursor {
	off := c.off
	return cursor{run: c.run, b: c.take(n), off: off}
}

// body takes what follows a header of four bytes that ends in the length of the
// whole, header included: a payload, proposal, transform or selector.
func (c *cursor) body() cursor {
	n := int(c.u16())
	if n < genericLen {
		c.fail("length %d, less than its own header", n)
	}
	return c.sub(n - genericLen)
}

// bytes gives a copy of the next n bytes; nil for none.
func (c *cursor) bytes(n int) []byte {
	return append([]byte(nil), c.take(n)...)
}

// rest gives a copy of everything left in the stretch; nil for none.
func (c *cursor) rest() []byte { return c.bytes(c.left()) }

// end fails if the stretch has bytes that no field accounts for.
func (c *cursor) end() {
	if n := c.left(); n > 0 {
		c.fail("%d trailing bytes", n)
	}
}

// skip passes over reserved bytes, which are ignored. RFC 7296 §2.5
func (c *cursor) skip(n int) { c.take(n) }

func (c *cursor) u8() uint8 {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}
