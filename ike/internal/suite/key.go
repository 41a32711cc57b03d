package suite

import (
	"fmt"
	"io"
	"log/slog"
)

// Key is secret key material: flat and pointer-free, so that it can stand in
// the record of an SA. Whoever holds it wipes it; it is handed on by pointer,
// since each copy by value is one that stays behind, on the stack if nowhere
// else, and the arguments of a call stand in the trace of a panic. It redacts itself wherever it is printed, except as an
// unexported field of another type, which fmt prints by reflection: such a
// type must redact itself.
type Key struct {
	n uint8
	b [maxKey]byte
}

// maxKey holds the longest key: 64 bytes of HMAC-SHA2-512, and 4 to spare.
const maxKey = 68

const redacted = "[redacted]"

// Set makes k a copy of b, of at most 68 bytes.
func (k *Key) Set(b []byte) {
	if len(b) > maxKey {
		panic("suite: key too long")
	}
	k.Wipe()
	k.n = uint8(copy(k.b[:], b))
}

// Wipe overwrites the key; k is an empty one then.
func (k *Key) Wipe() { *k = Key{} }

// Bytes is the key itself, a view that lives as long as k does.
func (k *Key) Bytes() []byte { return k.b[:min(k.n, maxKey)] }

func (k Key) String() string               { return redacted }
func (k Key) GoString() string             { return redacted }
func (k Key) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (k Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// Format redacts every verb, %x and %+v too.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }
