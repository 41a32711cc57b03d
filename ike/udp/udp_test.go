package udp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// limit is how long anything that must happen may take.
const limit = 20 * time.Second

var loopbacks = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")}

// listen opens a Socket that is closed when the test ends.
func listen(t *testing.T, c Config) *Socket {
	t.Helper()
	s, err := Listen(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// peer is an ordinary socket on the other side.
func peer(t *testing.T, near netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(near.Addr(), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func sendTo(t *testing.T, from *net.UDPConn, to netip.AddrPort, b []byte) {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort(b, to); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c *net.UDPConn) ([]byte, netip.AddrPort) {
	t.Helper()
	b := make([]byte, 1<<16)
	_ = c.SetReadDeadline(time.Now().Add(limit))
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n], from
}

// sink keeps copies of what is delivered.
type sink struct {
	mu       sync.Mutex
	ike, esp []wire.Packet
	arrived  chan struct{}
}

func newSink() *sink { return &sink{arrived: make(chan struct{}, 1<<16)} }

func (s *sink) deliver(ike, esp []wire.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ike, s.esp = appendCopies(s.ike, ike), appendCopies(s.esp, esp)
	for range len(ike) + len(esp) {
		s.arrived <- struct{}{}
	}
}

func appendCopies(dst, src []wire.Packet) []wire.Packet {
	for _, p := range src {
		p.Data = bytes.Clone(p.Data)
		dst = append(dst, p)
	}
	return dst
}

// wait waits for n more packets.
func (s *sink) wait(t *testing.T, n int) {
	t.Helper()
	timeout := time.After(limit)
	for i := range n {
		select {
		case <-s.arrived:
		case <-timeout:
			t.Fatalf("%d of %d packets arrived", i, n)
		}
	}
}

// serve runs Serve until the returned function is called, which gives its
// result.
func serve(t *testing.T, serve func(context.Context, Deliver) error, d Deliver) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- serve(ctx, d) }() // stops with cancel
	return func() error {
		cancel()
		select {
		case err := <-result:
			return err
		case <-time.After(limit):
			t.Fatal("Serve does not return")
			return nil
		}
	}
}

func TestReceive(t *testing.T) {
	ike, esp := bytesOf("\x01", 300), bytesOf("\x4a\x01\xf3\xc2", 1400)
	marked := func(b []byte) []byte { return append(make([]byte, 4), b...) }
	huge := bytesOf("\x02", 65507-4)
	for _, local := range loopbacks {
		s := listen(t, Config{Local: local, NATT: true, Readers: 1})
		got := newSink()
		stop := serve(t, s.Serve, got.deliver)
		from := peer(t, local)
		for _, b := range [][]byte{marked(ike), esp, {0xff}, {0xff}, {0xfe}, {}, marked(nil), marked(huge), esp[:8]} {
			sendTo(t, from, s.Local(), b)
		}
		got.wait(t, 4)
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		remote := from.LocalAddr().(*net.UDPAddr).AddrPort()
		packet := func(b []byte) wire.Packet { return wire.Packet{Local: s.Local(), Remote: remote, NATT: true, Data: b} }
		same(t, "IKE", got.ike, []wire.Packet{packet(ike), packet(huge)})
		same(t, "ESP", got.esp, []wire.Packet{packet(esp), packet(esp[:8])})
		if want := (Counters{IKE: 2, ESP: 2, Keepalives: 2, Short: 3}); s.Counters() != want {
			t.Errorf("counted %+v, want %+v", s.Counters(), want)
		}
	}
}

func same(t *testing.T, what string, got, want []wire.Packet) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b wire.Packet) bool {
		return a.Local == b.Local && a.Remote == b.Remote && a.NATT == b.NATT && bytes.Equal(a.Data, b.Data)
	}) {
		t.Errorf("%s: got %d packets, want %d; %.300v", what, len(got), len(want), got)
	}
}

func TestIKEPort(t *testing.T) {
	s := listen(t, Config{Local: loopbacks[0]})
	got := newSink()
	stop := serve(t, s.Serve, got.deliver)
	from := peer(t, s.Local())
	ike := bytesOf("\x00\x00\x00\x00\x05", 100)
	sendTo(t, from, s.Local(), []byte{0xff})
	sendTo(t, from, s.Local(), ike)
	got.wait(t, 1)
	_ = stop()
	same(t, "IKE", got.ike, []wire.Packet{{Local: s.Local(), Remote: from.LocalAddr().(*net.UDPAddr).AddrPort(), Data: ike}})
	if want := (Counters{IKE: 1, Short: 1}); s.Counters() != want {
		t.Errorf("counted %+v, want %+v", s.Counters(), want)
	}
}

func TestSend(t *testing.T) {
	ike, esp := bytesOf("\x01", 1200), bytesOf("\x4a\x01\xf3\xc2", 60)
	for _, local := range loopbacks {
		natt := listen(t, Config{Local: local, NATT: true, Readers: 3})
		plain := listen(t, Config{Local: local})
		to := peer(t, local)
		remote := to.LocalAddr().(*net.UDPAddr).AddrPort()
		for _, c := range []struct {
			name string
			from *Socket
			send func(wire.Packet) error
			data []byte
			want []byte
		}{
			{"IKE, marked", natt, natt.Send, ike, append(make([]byte, 4), ike...)},
			{"IKE again, shorter", natt, natt.Send, ike[:30], append(make([]byte, 4), ike[:30]...)},
			{"keepalive", natt, natt.Send, []byte{0xff}, []byte{0xff}},
			{"ESP", natt, natt.SendESP, esp, esp},
			{"IKE port", plain, plain.Send, ike, ike},
		} {
			data := bytes.Clone(c.data)
			if err := c.send(wire.Packet{Local: c.from.Local(), Remote: remote, Data: data}); err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			got, source := receive(t, to)
			if !bytes.Equal(got, c.want) || source != c.from.Local() {
				t.Errorf("%s: %x from %v, want %x from %v", c.name, got, source, c.want, c.from.Local())
			}
			if !bytes.Equal(data, c.data) {
				t.Errorf("%s: what was sent has changed", c.name)
			}
		}
		if err := plain.SendESP(wire.Packet{Remote: remote, Data: esp}); err == nil {
			t.Error("ESP on the IKE port")
		}
		if want := (Counters{Sent: 4}); natt.Counters() != want {
			t.Errorf("counted %+v, want %+v", natt.Counters(), want)
		}
		if want := (Counters{Sent: 1, SendErrors: 1}); plain.Counters() != want {
			t.Errorf("counted %+v, want %+v", plain.Counters(), want)
		}
	}
}

// TestGroup: what many peers send to a group of readers is delivered exactly
// once, while the group sends to all of them, and to each in order.
func TestGroup(t *testing.T) {
	const peers, each = 40, 50
	s := listen(t, Config{Local: loopbacks[0], NATT: true, Readers: 4, Buffer: 4 << 20})
	got := newSink()
	stop := serve(t, s.Serve, got.deliver)
	var wg sync.WaitGroup
	for n := range uint32(peers) {
		c := peer(t, s.Local())
		wg.Go(func() {
			for i := range uint32(each) {
				b := binary.BigEndian.AppendUint32(nil, n+1)
				_, _ = c.WriteToUDPAddrPort(binary.BigEndian.AppendUint32(b, i), s.Local())
				_ = s.SendESP(wire.Packet{Remote: c.LocalAddr().(*net.UDPAddr).AddrPort(), Data: b[:4:4]})
			}
		})
	}
	wg.Wait()
	got.wait(t, peers*each)
	_ = stop()
	next := map[string]uint32{}
	for _, p := range got.esp {
		from := fmt.Sprint(p.Remote, binary.BigEndian.Uint32(p.Data))
		if i := binary.BigEndian.Uint32(p.Data[4:]); i != next[from] {
			t.Fatalf("%s: packet %d, want %d", from, i, next[from])
		}
		next[from]++
	}
	if len(next) != peers {
		t.Errorf("%d sources, want %d", len(next), peers)
	}
	if c := s.Counters(); c.ESP != peers*each || c.Sent != peers*each {
		t.Errorf("counted %+v", c)
	}
}

// TestBatchHolds: the packets of one delivery are all intact at once.
func TestBatchHolds(t *testing.T) {
	s := listen(t, Config{Local: loopbacks[0]})
	from := peer(t, s.Local())
	for n := range 32 { // they wait in the socket and come as one batch
		sendTo(t, from, s.Local(), bytes.Repeat([]byte{byte(n)}, 100+n))
	}
	seen := make(chan int, 32)
	stop := serve(t, s.Serve, func(ike, _ []wire.Packet) {
		for i, p := range ike {
			if len(p.Data) != 100+int(p.Data[0]) || !bytes.Equal(p.Data, bytes.Repeat(p.Data[:1], len(p.Data))) {
				t.Errorf("packet %d of the batch is mixed up: %x", i, p.Data)
			}
		}
		seen <- len(ike)
	})
	if n := <-seen; n != 32 {
		t.Errorf("the first batch has %d packets, want 32", n)
	}
	_ = stop()
}

func TestEndOfServe(t *testing.T) {
	s := listen(t, Config{Local: loopbacks[0], Readers: 2})
	to := peer(t, s.Local())
	packet := wire.Packet{Local: s.Local(), Remote: to.LocalAddr().(*net.UDPAddr).AddrPort(), Data: bytesOf("\x01", 40)}

	for range 3 { // ctx ends Serve, not the socket
		got := newSink()
		stop := serve(t, s.Serve, got.deliver)
		sendTo(t, to, s.Local(), packet.Data)
		got.wait(t, 1)
		if err := stop(); err != nil {
			t.Errorf("Serve ended by ctx: %v", err)
		}
		if err := s.Send(packet); err != nil {
			t.Errorf("Send after Serve: %v", err)
		}
		receive(t, to)
	}

	result := make(chan error, 1)
	got := newSink()
	go func() { result <- s.Serve(context.Background(), got.deliver) }() // stops with Close
	sendTo(t, to, s.Local(), packet.Data)
	got.wait(t, 1)
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	for what, err := range map[string]error{
		"Serve":       <-result,
		"Send":        s.Send(packet),
		"Serve again": s.Serve(t.Context(), got.deliver),
		"Close again": s.Close(),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close: %v, want net.ErrClosed", what, err)
		}
	}
	if s.Counters().SendErrors != 1 {
		t.Errorf("counted %+v", s.Counters())
	}
}

// TestPortUnreachable: the ICMP answers to what nobody wanted stop nothing.
func TestPortUnreachable(t *testing.T) {
	s := listen(t, Config{Local: loopbacks[0]})
	got := newSink()
	stop := serve(t, s.Serve, got.deliver)
	dead := peer(t, s.Local())
	nobody := dead.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = dead.Close()
	alive := peer(t, s.Local())
	for range 10 {
		_ = s.Send(wire.Packet{Remote: nobody, Data: bytesOf("\x01", 40)})
		sendTo(t, alive, s.Local(), bytesOf("\x01", 40))
	}
	got.wait(t, 10)
	if err := stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	for _, local := range []string{"0.0.0.0:0", "[::]:0"} {
		if s, err := Listen(t.Context(), Config{Local: netip.MustParseAddrPort(local)}); err == nil {
			t.Errorf("listens on %v", s.Local())
			_ = s.Close()
		}
	}
	if _, err := Listen(t.Context(), Config{}); err == nil {
		t.Error("listens on nothing")
	}
	s := listen(t, Config{Local: loopbacks[0], Readers: 2})
	if other, err := Listen(t.Context(), Config{Local: s.Local(), Readers: 2}); err == nil {
		t.Errorf("two groups on %v", s.Local())
		_ = other.Close()
	}
}

func TestEndpoints(t *testing.T) {
	ike, natt := listen(t, Config{Local: loopbacks[0]}), listen(t, Config{Local: loopbacks[0], NATT: true})
	v6 := listen(t, Config{Local: loopbacks[1], NATT: true})
	e := NewEndpoints(ike, natt, v6)
	got := newSink()
	result := make(chan error, 1)
	go func() { result <- e.Serve(context.Background(), got.deliver) }() // stops with v6.Close
	for _, c := range []struct {
		from *Socket
		send func(wire.Packet) error
		want string
	}{
		{ike, e.Send, "hello"}, {natt, e.Send, "\x00\x00\x00\x00hello"}, {v6, e.SendESP, "hello"},
	} {
		to := peer(t, c.from.Local())
		if err := c.send(wire.Packet{Local: c.from.Local(), Remote: to.LocalAddr().(*net.UDPAddr).AddrPort(), Data: []byte("hello")}); err != nil {
			t.Error(err)
			continue
		}
		if b, from := receive(t, to); string(b) != c.want || from != c.from.Local() {
			t.Errorf("%q from %v, want %q from %v", b, from, c.want, c.from.Local())
		}
		sendTo(t, to, c.from.Local(), bytesOf("\x00\x00\x00\x00", 32))
	}
	got.wait(t, 3)
	if n := e.Counters()[natt.Local()]; n != (Counters{IKE: 1, Sent: 1}) {
		t.Errorf("counted %+v", n)
	}
	elsewhere := wire.Packet{Local: netip.MustParseAddrPort("127.0.0.9:9"), Remote: ike.Local()}
	if e.Send(elsewhere) == nil || e.SendESP(elsewhere) == nil {
		t.Error("sent from an address that no socket has")
	}
	// One that closes ends Serve of all.
	_ = v6.Close()
	if err := <-result; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	if err := e.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close: %v, want that one was closed", err)
	}
}
