package loadtest

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/ikepulse/ikepulse/ike"
)

// message is one of a handshake.
func message(exchange byte, initiator, responder uint64) []byte {
	b := make([]byte, 28)
	binary.BigEndian.PutUint64(b, initiator)
	binary.BigEndian.PutUint64(b[8:], responder)
	b[18] = exchange
	return b
}

// TestPlaces: a handshake has a place until its first message has left, and one
// while its answer is worked on; whatever is sent again takes and gives none.
func TestPlaces(t *testing.T) {
	w, err := openWire(t.Context(), netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.close() })
	answer := func(b []byte) { w.admit([]ike.Packet{{Data: b}}) }
	for range 2 {
		w.enter(t.Context())
	}
	for n, c := range []struct {
		do                 func()
		calling, computing int
	}{
		{func() { w.sent(message(saInit, 1, 0), nil) }, 1, 0},
		{func() { w.sent(message(saInit, 1, 0), nil) }, 1, 0}, // again
		{func() { answer(message(saInit, 1, 0)) }, 1, 0},      // wants a cookie
		{func() { answer(message(saInit, 9, 7)) }, 1, 0},      // nobody's
		{func() { answer(message(saInit, 1, 7)) }, 1, 1},
		{func() { answer(message(saInit, 1, 7)) }, 1, 1},      // again
		{func() { w.sent(message(saInit, 1, 0), nil) }, 1, 0}, // that was nothing
		{func() { answer(message(saInit, 1, 8)) }, 1, 1},
		{func() { w.sent(message(ikeAuth, 1, 8), nil) }, 1, 0},
		{func() { w.sent(message(ikeAuth, 1, 8), nil) }, 1, 0}, // again
		{func() { answer(message(ikeAuth, 1, 8)) }, 1, 0},
		{func() { w.sent(message(saInit, 2, 0), errBroken) }, 0, 0},
		{func() { w.leave() }, 0, 0},
		{func() { w.sent([]byte{0xff}, nil) }, 0, 0},
	} {
		c.do()
		if len(w.calling) != c.calling || len(w.computing) != c.computing {
			t.Errorf("step %d: %d places of calls and %d of answers, want %d and %d",
				n, len(w.calling), len(w.computing), c.calling, c.computing)
		}
	}
	if !errors.Is(w.failure(), errBroken) {
		t.Errorf("why nothing was sent: %v", w.failure())
	}
}

var errBroken = errors.New("broken")
