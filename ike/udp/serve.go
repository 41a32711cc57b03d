package udp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

const (
	// batchSize is how many datagrams a system call reads at most.
	batchSize = 64
	// maxDatagram is more than UDP can carry, so nothing is ever cut off. A
	// reader's buffers take 4 MB of address space, but memory only as far as
	// datagrams have filled them.
	maxDatagram = 1 << 16
	// errorPause keeps an error that stays from using up a processor.
	errorPause = 10 * time.Millisecond
)

// Deliver takes what one system call has read, IKE messages apart from ESP
// packets, so that IKE can go first. Readers call it at the same time. The
// slices and the bytes of the packets hold until it returns: whoever wants
// them longer copies them. It should not block, since datagrams are lost while
// nobody reads.
type Deliver func(ike, esp []wire.Packet)

// Serve reads datagrams until ctx ends or Close, and returns when all of its
// readers have: with nil because of ctx, with net.ErrClosed because of Close.
// After ctx has ended the sockets are still open for sending.
func (s *Socket) Serve(ctx context.Context, deliver Deliver) error {
	for _, c := range s.conns {
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			return net.ErrClosed
		}
	}
	// Readers return only when their deadline has come or they are closed, so
	// this is through with all deadlines before Serve returns.
	stop := context.AfterFunc(ctx, func() {
		for _, c := range s.conns {
			_ = c.SetReadDeadline(time.Unix(1, 0)) // fails if closed, which stops the reader, too
		}
	})
	defer stop()
	errs := make([]error, len(s.conns))
	var readers sync.WaitGroup
	for i, c := range s.conns {
		readers.Go(func() { // stops when ctx ends or c is closed
			errs[i] = s.read(ctx, c, deliver)
		})
	}
	readers.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// batchReader is what x/net's PacketConns of both families have in common.
type batchReader interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
}

// read is one socket's reader.
func (s *Socket) read(ctx context.Context, c *net.UDPConn, deliver Deliver) error {
	var r batchReader = ipv4.NewPacketConn(c)
	if s.local.Addr().Is6() {
		r = ipv6.NewPacketConn(c)
	}
	b := newBatch(s)
	for {
		n, err := r.ReadBatch(b.messages, 0)
		switch {
		case err == nil:
			b.deliver(n, deliver)
			// Where they share a processor, a flood lets the loops go on.
			runtime.Gosched()
		case errors.Is(err, net.ErrClosed):
			return net.ErrClosed
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		default:
			// An ICMP error about something sent, or the kernel short of
			// memory: neither is a reason to go deaf. RFC 7296 §2.4
			s.count.readErrors.Add(1)
			pause(ctx)
		}
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(errorPause):
	}
}

// batch is the memory of one reader.
type batch struct {
	socket   *Socket
	messages []ipv4.Message
	ike, esp []wire.Packet
}

func newBatch(s *Socket) *batch {
	b := &batch{socket: s, messages: make([]ipv4.Message, batchSize)}
	memory := make([]byte, batchSize*maxDatagram)
	for i := range b.messages {
		b.messages[i].Buffers = [][]byte{memory[i*maxDatagram : (i+1)*maxDatagram]}
		if s.every != nil {
			b.messages[i].OOB = s.every.room()
		}
	}
	return b
}

// deliver sorts the first n messages and hands them on.
func (b *batch) deliver(n int, deliver Deliver) {
	b.ike, b.esp = b.ike[:0], b.esp[:0]
	var keepalives, short uint64
	for i := range b.messages[:n] {
		m := &b.messages[i]
		kind, data := classify(b.socket.natt, m.Buffers[0][:m.N])
		p := wire.Packet{Local: b.socket.localOf(m), Remote: addrPort(m.Addr), NATT: b.socket.natt, Data: data}
		switch kind {
		case kindIKE:
			b.ike = append(b.ike, p)
		case kindESP:
			b.esp = append(b.esp, p)
		case kindKeepalive:
			keepalives++
		case kindShort:
			short++
		}
	}
	c := &b.socket.count
	c.ike.Add(uint64(len(b.ike)))
	c.esp.Add(uint64(len(b.esp)))
	c.keepalives.Add(keepalives)
	c.short.Add(short)
	if len(b.ike)+len(b.esp) > 0 {
		deliver(b.ike, b.esp)
	}
}

// localOf is where a message came to.
func (s *Socket) localOf(m *ipv4.Message) netip.AddrPort {
	if s.every == nil {
		return s.local
	}
	return netip.AddrPortFrom(s.every.destination(m.OOB[:m.NN]), s.local.Port())
}

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
