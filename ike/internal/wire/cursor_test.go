package wire

import (
	"errors"
	"reflect"
	"testing"
)

func TestCursorReadsInOrder(t *testing.T) {
	c := newCursor([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17})
	if v := c.u8(); v != 1 {
		t.Errorf("u8 = %#x", v)
	}
	if v := c.u16(); v != 0x0203 {
		t.Errorf("u16 = %#x", v)
	}
	if v := c.u32(); v != 0x04050607 {
		t.Errorf("u32 = %#x", v)
	}
	if v := c.u64(); v != 0x08090a0b0c0d0e0f {
		t.Errorf("u64 = %#x", v)
	}
	if v := c.rest(); !reflect.DeepEqual(v, []byte{16, 17}) {
		t.Errorf("rest = %v", v)
	}
	c.end()
	if !c.ok() {
		t.Error(c.run.err)
	}
}

// Whatever reads past the end fails, at the byte where it began, and what
// follows reads nothing.
func TestCursorEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		read func(c *cursor)
	}{
		{"u8", func(c *cursor) { c.take(2); c.u8() }},
		{"u16", func(c *cursor) { c.take(2); c.u16() }},
		{"u32", func(c *cursor) { c.take(2); c.u32() }},
		{"u64", func(c *cursor) { c.take(2); c.u64() }},
		{"take", func(c *cursor) { c.take(2); c.take(1) }},
		{"take of less than nothing", func(c *cursor) { c.take(2); c.take(-1) }},
		{"bytes", func(c *cursor) { c.take(2); c.bytes(1) }},
		{"skip", func(c *cursor) { c.take(2); c.skip(1) }},
		{"sub", func(c *cursor) { c.take(2); c.sub(1) }},
		{"inside sub", func(c *cursor) { c.take(1); s := c.sub(1); s.take(1); s.u8() }},
		{"end", func(c *cursor) { c.take(1); s := c.sub(1); s.off++; s.end() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Room behind the end, as in a receive buffer, is not to be read.
			c := newCursor(make([]byte, 2, 64))
			c.run.payload = TypeKE
			tt.read(&c)
			var syntax *SyntaxError
			if !errors.As(c.run.err, &syntax) {
				t.Fatalf("error %v", c.run.err)
			}
			if syntax.Payload != TypeKE || syntax.Offset != 2 {
				t.Errorf("fails in %s at %d", syntax.Payload, syntax.Offset)
			}
			c.b = []byte{1, 2, 3, 4, 5, 6, 7, 8}
			if c.left() != 0 || c.u8() != 0 || c.u16() != 0 || c.u32() != 0 || c.u64() != 0 || c.rest() != nil {
				t.Error("reads on after a failure")
			}
		})
	}
}

func TestCursorKeepsFirstFailure(t *testing.T) {
	c := newCursor([]byte{1})
	c.fail("first")
	first := c.run.err
	c.fail("second")
	c.take(5)
	if c.run.err != first {
		t.Errorf("first failure replaced by %v", c.run.err)
	}
}

// A view must not let a later append write into the bytes behind it.
func TestCursorViewIsCapped(t *testing.T) {
	b := []byte{1, 2, 3}
	c := newCursor(b)
	_ = append(c.take(1), 9)
	if b[1] != 2 {
		t.Error("append to a view wrote into the input")
	}
}

func TestSyntaxErrorText(t *testing.T) {
	for want, err := range map[string]error{
		"IKE message: too short at byte 3":             &SyntaxError{NoNext, 3, "too short"},
		"IKE TSi payload: too short at byte 30":        &SyntaxError{TypeTSi, 30, "too short"},
		"IKE version 1.0, only 2 is spoken":            &VersionError{0x10},
		"IKE payload type 200 is critical and unknown": &CriticalError{200},
	} {
		if err.Error() != want {
			t.Errorf("got  %q\nwant %q", err, want)
		}
	}
}
