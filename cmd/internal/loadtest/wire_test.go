package loadtest

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/ike"
)

// message is one of a handshake. RFC 7296 §3.1
func message(exchange byte, initiator, responder uint64) []byte {
	b := make([]byte, 28)
	binary.BigEndian.PutUint64(b, initiator)
	binary.BigEndian.PutUint64(b[8:], responder)
	b[18] = exchange
	return b
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w, err := openWire(t.Context(), netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.close() })
	return w
}

// TestFirstMessages: a handshake has a place until its first message has left;
// whatever is sent again gives none, and moves no time.
func TestFirstMessages(t *testing.T) {
	const saInit, ikeAuth = 34, 35
	w := newWire(t)
	for range 3 {
		w.enter(t.Context())
	}
	for n, c := range []struct {
		message []byte
		err     error
		calling int
		later   bool // than all before
	}{
		{message(saInit, 1, 0), nil, 2, true},
		{message(saInit, 1, 0), nil, 2, false}, // again, or with a cookie
		{message(ikeAuth, 1, 7), nil, 2, false},
		{message(ikeAuth, 8, 0), nil, 2, false},
		{message(saInit, 9, 7), nil, 2, false}, // an answer
		{message(saInit, 3, 0)[:27], nil, 2, false},
		{nil, nil, 2, false},
		{message(saInit, 2, 0), errBroken, 1, true},
		{message(saInit, 2, 0), nil, 1, false},
	} {
		before := w.lastCall()
		w.sent(c.message, c.err)
		if len(w.calling) != c.calling || w.lastCall().After(before) != c.later {
			t.Errorf("step %d: %d places, the last call %v after the one before", n, len(w.calling), w.lastCall().Sub(before))
		}
	}
	if w.leave(); len(w.calling) != 0 {
		t.Error("who leaves keeps his place")
	}
	if !errors.Is(w.failure(), errBroken) {
		t.Errorf("why nothing was sent: %v", w.failure())
	}
}

var errBroken = errors.New("broken")

// TestServe: nobody but the gateway is heard.
func TestServe(t *testing.T) {
	w := newWire(t)
	listen := func(address string) *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(address)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	gateway, other := listen("127.0.0.1"), listen("127.0.0.2")
	heard := make(chan string, 9)
	go w.serve(func(all, _ []ike.Packet) { // ends with the wire
		for _, p := range all {
			heard <- string(p.Data)
		}
	})
	out := ike.Packet{Local: netip.MustParseAddrPort("127.0.0.3:500"), Remote: gateway.LocalAddr().(*net.UDPAddr).AddrPort(), Data: make([]byte, 28)}
	if err := w.Send(out); err != nil {
		t.Fatal(err)
	}
	_, peer, err := gateway.ReadFromUDPAddrPort(make([]byte, 99))
	if err != nil || peer.Addr() != out.Local.Addr() {
		t.Fatalf("from %v: %v", peer, err)
	}
	send := func(from *net.UDPConn, text string) {
		if _, err := from.WriteToUDPAddrPort([]byte(text+strings.Repeat(".", 28)), peer); err != nil {
			t.Fatal(err)
		}
	}
	// There is one queue on the way: what is heard second came second.
	send(other, "another")
	send(gateway, "gateway")
	<-w.answered
	if got := <-heard; !strings.HasPrefix(got, "gateway") {
		t.Errorf("heard: %s", got)
	}
}
