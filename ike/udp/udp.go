// Package udp is the gateway's sockets for IKE and for ESP in UDP. RFC 7296
// §2.23, RFC 3948
//
// A [Socket] is one local address and port, held open as a group of
// SO_REUSEPORT sockets with a reader each. The kernel spreads peers over the
// group by a hash of addresses and ports, so what one reader gets may be
// anybody's; who owns it is decided behind the deliver function.
// [Endpoints] sends through the socket that a packet's Local names.
//
// Batches are for receiving: reading 64 datagrams by one system call costs half
// of reading them one by one. Sending gains nothing by it, since each datagram
// goes to another peer and has its own way through the stack (measured: 5.4 µs
// both ways), so Send sends one.
package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Config is how sockets are opened.
type Config struct {
	Local   netip.AddrPort // a specific address; port 0 lets the kernel choose
	NATT    bool           // it is a NAT traversal port: IKE has a marker, and ESP comes too
	Readers int            // sockets of the group; at least 1
	Mark    uint32         // SO_MARK of what is sent, so that rules can tell it; 0 sets none
	Buffer  int            // receive buffer in bytes; 0 leaves it to the kernel
}

// Listen opens a group of sockets. It refuses an address that somebody else
// has open, even if he would share it. One that this host does not have yet is
// none to refuse: see [Endpoints.SetAbsent].
func Listen(ctx context.Context, c Config) (*Socket, error) {
	conns, err := Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return New(conns, c.NATT), nil
}

// Open opens the sockets that [New] takes.
func Open(ctx context.Context, c Config) ([]*net.UDPConn, error) {
	if !c.Local.Addr().IsValid() || c.Local.Addr().IsUnspecified() {
		return nil, fmt.Errorf("listen on %v: replies need a specific address", c.Local)
	}
	if err := unused(ctx, c.Local); err != nil {
		return nil, err
	}
	var conns []*net.UDPConn
	for range max(c.Readers, 1) {
		conn, err := open(ctx, c)
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		conns = append(conns, conn)
		// Where the kernel chose the port, the rest of the group follows.
		c.Local = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	return conns, nil
}

// Socket is one local address and port. Its methods may be called at the same
// time, except for Serve, which runs once at a time.
type Socket struct {
	local  netip.AddrPort
	natt   bool
	conns  []*net.UDPConn
	every  *anyAddress // nil: bound to local
	bypass error
	absent atomic.Bool // the host does not have the address
	count  counters
}

// New makes a Socket of sockets that are bound to the same address, and takes
// them over. It exempts them from the kernel's IPsec policies.
func New(conns []*net.UDPConn, natt bool) *Socket {
	local := conns[0].LocalAddr().(*net.UDPAddr).AddrPort()
	s := &Socket{local: netip.AddrPortFrom(local.Addr().Unmap(), local.Port()), natt: natt, conns: conns}
	for _, c := range conns {
		if err := exempt(c, s.local.Addr()); err != nil {
			s.bypass = fmt.Errorf("exempt %v from IPsec policies: %w", s.local, err)
		}
	}
	return s
}

// Local is the address and port that s is bound to, or of a socket by
// [ListenAny] the unspecified address and the port that packets have.
func (s *Socket) Local() netip.AddrPort { return s.local }

// Bypass is why IPsec policies of this host may hit our own packets, nil if
// they cannot: a policy for everything would swallow what it takes to set up a
// tunnel. A kernel without IPsec has no such policies.
func (s *Socket) Bypass() error { return s.bypass }

// Close closes the sockets: Serve returns, and Send fails, with net.ErrClosed.
// A second Close fails so, too.
func (s *Socket) Close() error { return closeAll(s.conns) }

func closeAll(conns []*net.UDPConn) error {
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Counters are what a Socket has counted since it was made.
type Counters struct {
	IKE, ESP   uint64 // datagrams delivered
	Keepalives uint64 // NAT keepalives, dropped. RFC 3948 §4
	Short      uint64 // dropped because they were neither, for lack of length
	ReadErrors uint64 // ICMP errors and the like; reading went on
	Sent       uint64
	SendErrors uint64
}

type counters struct {
	ike, esp, keepalives, short, readErrors, sent, sendErrors atomic.Uint64
}

// Counters reads the counters.
func (s *Socket) Counters() Counters {
	c := &s.count
	return Counters{c.ike.Load(), c.esp.Load(), c.keepalives.Load(), c.short.Load(), c.readErrors.Load(),
		c.sent.Load(), c.sendErrors.Load()}
}

// Send sends an IKE message, with the non-ESP marker in front of it on a NAT
// traversal port, or a NAT keepalive, which is the single byte 0xFF and has
// none. It does not keep p.Data. RFC 3948 §2.2, §2.3
func (s *Socket) Send(p wire.Packet) error {
	if !s.natt || len(p.Data) == 1 && p.Data[0] == keepalive {
		return s.write(p.Data, p)
	}
	buf := marked.Get().(*[]byte)
	defer marked.Put(buf)
	*buf = append(append((*buf)[:0], marker[:]...), p.Data...)
	return s.write(*buf, p)
}

// marked holds buffers in which a message gets its marker.
var marked = sync.Pool{New: func() any { return new([]byte) }}

// errNoESP is ESP for a port that would take it for IKE.
var errNoESP = errors.New("ESP goes in UDP on a NAT traversal port only")

// errAbsent is a packet from an address that somebody else may have by now:
// IPv6 would let it pass.
var errAbsent = errors.New("this host does not have the address")

// SendESP sends an ESP packet, from its SPI on. It does not keep p.Data.
// RFC 3948 §2.1
func (s *Socket) SendESP(p wire.Packet) error {
	if !s.natt {
		s.count.sendErrors.Add(1)
		return errNoESP
	}
	return s.write(p.Data, p)
}

// write sends a packet's bytes through one socket of the group, the same for a
// peer each time, so that his packets stay in order.
func (s *Socket) write(b []byte, p wire.Packet) (err error) {
	if s.absent.Load() {
		s.count.sendErrors.Add(1)
		return errAbsent
	}
	conn := s.conns[int(p.Remote.Port())%len(s.conns)]
	if s.every == nil {
		_, err = conn.WriteToUDPAddrPort(b, p.Remote)
	} else {
		_, _, err = conn.WriteMsgUDPAddrPort(b, s.every.source(p.Local.Addr()), p.Remote)
	}
	if err != nil {
		s.count.sendErrors.Add(1)
		return err
	}
	s.count.sent.Add(1)
	return nil
}
