package loadtest

import (
	"context"
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
	// Each handshake waits twice for a key exchange, for which the engine has
	// one queue: before its first message, and when that is answered. What the
	// queue has no room for is lost, so no more than these are let in; the
	// others wait outside, their answers in the socket.
	mostCalling   = 256
	mostComputing = 512
	// computeLimit is for answers whose key exchange comes to nothing.
	computeLimit = time.Second
)

// stage is how far a handshake has come on the wire.
type stage uint8

const (
	called    stage = iota // its first message has left
	computing              // the answer is being worked on
	proving                // IKE_AUTH has left
)

// wire is the sockets of all peers, and what is seen on them.
type wire struct {
	gateway   netip.Addr
	ike, natt *udp.Socket
	calling   chan struct{} // one of each handshake whose first message has not left
	computing chan struct{} // one of each at that stage
	answered  chan struct{} // closed when the gateway has sent anything
	once      sync.Once

	mu     sync.Mutex
	stages map[uint64]stage // by the initiator's SPI
	called time.Time        // when a first message has left last
	failed error            // of the last packet that could not be sent
}

func openWire(ctx context.Context, gateway netip.Addr) (*wire, error) {
	w := &wire{gateway: gateway, calling: make(chan struct{}, mostCalling), computing: make(chan struct{}, mostComputing),
		answered: make(chan struct{}), stages: map[uint64]stage{}}
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
			w.admit(heard)
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
	h, ok := headerOf(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed = err
	}
	was, known := w.stages[h.initiator]
	switch {
	case !ok:
	case !known && h.first():
		w.stages[h.initiator], w.called = called, time.Now()
		release(w.calling)
	case was == computing && h.exchange == ikeAuth:
		w.stages[h.initiator] = proving
		release(w.computing)
	case was == computing && h.first(): // the answer was of no use
		w.stages[h.initiator] = called
		release(w.computing)
	}
}

// admit waits until there is room for the key exchanges that answers lead to.
func (w *wire) admit(answers []ike.Packet) {
	for _, p := range answers {
		if h, ok := headerOf(p.Data); ok && h.agrees() && w.compute(h.initiator) {
			select {
			case w.computing <- struct{}{}:
			case <-time.After(computeLimit):
			}
		}
	}
}

// compute reports whether the answer to a first message leads to a key
// exchange: the first one does.
func (w *wire) compute(spi uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if st, known := w.stages[spi]; !known || st != called {
		return false
	}
	w.stages[spi] = computing
	return true
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

// leave makes room for a handshake where one has ended: perhaps before its first
// message.
func (w *wire) leave() { release(w.calling) }

// release gives a place back, unless all are free.
func release(places chan struct{}) {
	select {
	case <-places:
	default:
	}
}

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
