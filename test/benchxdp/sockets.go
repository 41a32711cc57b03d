package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	udpEncap         = 100 // linux/udp.h: UDP_ENCAP
	udpEncapESPinUDP = 2   // UDP_ENCAP_ESPINUDP

	// batch is what a reader takes at once, of what has come before it wakes.
	batch       = 64
	readerBurst = 2048
	// readerBuffer holds a burst of frames, each in a page of its own.
	readerBuffer = 64 << 20
)

// encapSocket is what an IKE daemon opens for kernel ESP: the kernel drops
// keepalives itself (RFC 3948 §4). It needs no ESP in the kernel, only XFRM.
type encapSocket struct{ fd int }

// errNoEncap tells a kernel without XFRM.
var errNoEncap = errors.New("this kernel refuses UDP_ENCAP of ESP in UDP")

func newEncapSocket() (*encapSocket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &encapSocket{fd}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, udpEncap, udpEncapESPinUDP); err != nil {
		return nil, errors.Join(errNoEncap, err, s.Close())
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: gatewayAddr.As4(), Port: nattPort}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *encapSocket) Close() error { return unix.Close(s.fd) }

// empty wants that nothing got as far as a reader.
func (s *encapSocket) empty(int) error {
	var b [1]byte
	n, _, err := unix.Recvfrom(s.fd, b[:], 0)
	if !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("the encapsulation left %d bytes to its reader, %v", n, err)
	}
	return nil
}

// readers are two ways to read keepalives with Go from one socket.
type readers struct {
	conn     *net.UDPConn
	packets  *ipv4.PacketConn
	messages []ipv4.Message
}

func newReaders() (*readers, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(readerAddr, nattPort)))
	if err != nil {
		return nil, err
	}
	r := &readers{conn: conn, packets: ipv4.NewPacketConn(conn), messages: make([]ipv4.Message, batch)}
	for i := range r.messages {
		r.messages[i].Buffers = [][]byte{make([]byte, 2048)}
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		e := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, readerBuffer)
		})
		err = errors.Join(err, e)
	}
	return r, err
}

// patience ends a read that waits for a frame which got lost.
const patience = 5 * time.Second

// batches reads n keepalives, up to a batch a call.
func (r *readers) batches(n int) error {
	if err := r.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for n > 0 {
		got, err := r.packets.ReadBatch(r.messages[:min(n, batch)], 0)
		if err != nil {
			return err
		}
		for _, m := range r.messages[:got] {
			if err := isKeepalive(m.Buffers[0][:m.N]); err != nil {
				return err
			}
		}
		n -= got
	}
	return nil
}

// singles reads n keepalives, one a call.
func (r *readers) singles(n int) error {
	if err := r.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	buffer := r.messages[0].Buffers[0]
	for ; n > 0; n-- {
		got, _, err := r.conn.ReadFromUDPAddrPort(buffer)
		if err == nil {
			err = isKeepalive(buffer[:got])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func isKeepalive(b []byte) error {
	if len(b) != 1 || b[0] != 0xff {
		return fmt.Errorf("% x is no keepalive", b)
	}
	return nil
}
