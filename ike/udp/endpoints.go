package udp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Endpoints are all sockets of a gateway. A packet goes out by the one that is
// bound to its Local. Methods may be called at the same time, except for Serve.
type Endpoints struct {
	byLocal map[netip.AddrPort]*Socket
}

// NewEndpoints takes sockets of different addresses over.
func NewEndpoints(sockets ...*Socket) *Endpoints {
	e := &Endpoints{byLocal: map[netip.AddrPort]*Socket{}}
	for _, s := range sockets {
		e.byLocal[s.local] = s
	}
	return e
}

// Send is [Socket.Send] of the socket at p.Local.
func (e *Endpoints) Send(p wire.Packet) error {
	s, err := e.at(p.Local)
	if err != nil {
		return err
	}
	return s.Send(p)
}

// SendESP is [Socket.SendESP] of the socket at p.Local.
func (e *Endpoints) SendESP(p wire.Packet) error {
	s, err := e.at(p.Local)
	if err != nil {
		return err
	}
	return s.SendESP(p)
}

// SetAbsent names the local addresses that this host does not have at present:
// nothing is sent from them until they are named no longer. Their sockets stay.
func (e *Endpoints) SetAbsent(absent []netip.Addr) {
	for local, s := range e.byLocal {
		s.absent.Store(slices.Contains(absent, local.Addr()))
	}
}

func (e *Endpoints) at(local netip.AddrPort) (*Socket, error) {
	s, ok := e.byLocal[local]
	if !ok {
		return nil, fmt.Errorf("no socket is bound to %v", local)
	}
	return s, nil
}

// Serve is Serve of all sockets. It returns when all have; if one fails the
// others are stopped.
func (e *Endpoints) Serve(ctx context.Context, deliver Deliver) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var (
		all   sync.WaitGroup
		once  sync.Once
		first error
	)
	for _, s := range e.byLocal {
		all.Go(func() { // stops when ctx ends or s is closed
			if err := s.Serve(ctx, deliver); err != nil {
				once.Do(func() { first = err })
				stop()
			}
		})
	}
	all.Wait()
	return first
}

// Close closes all sockets; see [Socket.Close].
func (e *Endpoints) Close() error {
	var errs []error
	for _, s := range e.byLocal {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Counters reads the counters of each local address.
func (e *Endpoints) Counters() map[netip.AddrPort]Counters {
	all := map[netip.AddrPort]Counters{}
	for local, s := range e.byLocal {
		all[local] = s.Counters()
	}
	return all
}
