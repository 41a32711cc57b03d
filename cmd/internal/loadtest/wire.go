package loadtest

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/ike/udp"
)

const (
	// socketBuffer holds an answer to each of some 40,000 peers.
	socketBuffer = 64 << 20
	// mostCalling handshakes wait at once for their first message; the others
	// have not begun. All at once in the engine's one queue would have their
	// set-up times measure this process: with 20,000 the median was 5.0 s
	// instead of 0.6 s, and all were up after 7.7 s instead of 5.6 s. With
	// 40,000 those that the loops refused asked again so often that it took
	// 300 s instead of 9.9 s.
	mostCalling = 256
)

// wire is the sockets of all peers, and what is seen on them.
type wire struct {
	gateway   netip.Addr
	ike, natt *udp.Socket
	calling   chan struct{} // one of each handshake whose first message has not left
	answered  chan struct{} // closed when the gateway has sent anything
	once      sync.Once

	mu     sync.Mutex
	begun  map[uint64]bool // the initiators' SPIs of first messages that have left, or could not
	called time.Time       // when the last of them did
	failed error           // of the last packet that could not be sent
}

func openWire(ctx context.Context, gateway netip.Addr) (*wire, error) {
	w := &wire{gateway: gateway, calling: make(chan struct{}, mostCalling), answered: make(chan struct{}), begun: map[uint64]bool{}}
	open := func(port uint16) (*udp.Socket, error) {
		return udp.ListenAny(ctx, udp.AnyConfig{IPv6: gateway.Is6(), Port: port, NATT: port == nattPort, Buffer: socketBuffer})
	}
	var err error
	if w.ike, err = open(ikePort); err != nil {
		return nil, err
	}
	if w.natt, err = open(nattPort); err != nil {
		return nil, errors.Join(err, w.ike.Close())
	}
	return w, nil
}

func (w *wire) close() error { return errors.Join(w.ike.Close(), w.natt.Close()) }

// serve reads until close. Only the gateway is listened to, and only to its IKE.
func (w *wire) serve(deliver func(ike, esp []ike.Packet)) {
	take := func(all, _ []ike.Packet) {
		heard := all[:0]
		for _, p := range all {
			if p.Remote.Addr() == w.gateway {
				heard = append(heard, p)
			}
		}
		if len(heard) > 0 {
			w.once.Do(func() { close(w.answered) })
			deliver(heard, nil)
		}
	}
	var readers sync.WaitGroup
	for _, s := range []*udp.Socket{w.ike, w.natt} {
		readers.Go(func() { _ = s.Serve(context.Background(), take) }) // ends with the socket
	}
	readers.Wait()
}

// Send is ike.Sender's.
func (w *wire) Send(p ike.Packet) error {
	s := w.ike
	if p.Local.Port() == nattPort {
		s = w.natt
	}
	err := s.Send(p)
	w.sent(p.Data, err)
	return err
}

// sent takes note of a message that has left, or could not.
func (w *wire) sent(b []byte, err error) {
	spi, first := firstMessage(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed = err
	}
	if first && !w.begun[spi] {
		w.begun[spi], w.called = true, time.Now()
		w.leave()
	}
}

// firstMessage reports whether a message begins a handshake, or begins it again
// with a cookie or another group, and of which initiator's SPI. RFC 7296 §3.1
func firstMessage(b []byte) (spi uint64, ok bool) {
	const (
		atResponder = 8
		atExchange  = 18
		length      = 28
		saInit      = 34
	)
	if len(b) < length || b[atExchange] != saInit || binary.BigEndian.Uint64(b[atResponder:]) != 0 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}

// enter waits until another handshake may begin; false if ctx ends before.
func (w *wire) enter(ctx context.Context) bool {
	select {
	case w.calling <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// leave gives a handshake's place to another: its first message has left, or
// never will.
func (w *wire) leave() { <-w.calling }

// lastCall is when a first message has left last.
func (w *wire) lastCall() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.called
}

// failure is why the last packet that could not be sent could not; nil if all
// could.
func (w *wire) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}
