package xfrm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// messageSize is more than the kernel puts into one datagram of a dump (32 KiB)
// or of an event.
const messageSize = 64 << 10

// errOverrun says that the kernel dropped events, because they were not read
// as fast as they came.
var errOverrun = errors.New("events were lost")

// socket is a netlink socket of XFRM. The library's own copies each message to
// the heap, keys included; this one reads all of them into one buffer, which is
// wiped after each. It is for one goroutine, but for Close and wake.
type socket struct {
	file *os.File
	conn syscall.RawConn
	buf  []byte
	seq  uint32
}

// newSocket opens a socket in the network namespace of the calling thread,
// where it stays. groups is a mask of the multicast groups to hear.
func newSocket(groups uint32) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_XFRM)
	if err != nil {
		return nil, fmt.Errorf("XFRM netlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("XFRM netlink: %w", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "xfrm netlink"), buf: make([]byte, messageSize)}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}

func (s *socket) Close() error { return s.file.Close() }

// room lets the kernel keep so many bytes of unread events, if it may.
func (s *socket) room(bytes int) error {
	return s.control(func(fd int) error {
		// Beyond the machine's limit with CAP_NET_ADMIN, else up to it.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) == nil {
			return nil
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	})
}

func (s *socket) control(f func(fd int) error) error {
	var err error
	return errors.Join(s.conn.Control(func(fd uintptr) { err = f(int(fd)) }), err)
}

// wake makes reads that wait, or will, end with os.ErrDeadlineExceeded.
func (s *socket) wake() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) } // it fails when closed: awake

// header is struct nlmsghdr.
type header struct {
	Kind, Flags uint16
	Seq         uint32
}

const sizeofHeader = 16

// read waits for a datagram and calls f for each of its messages, whose body
// is only there during the call. errOverrun if the kernel dropped some before.
func (s *socket) read(f func(h header, body []byte) error) error {
	var n int
	var from unix.Sockaddr
	var err error
	readErr := s.conn.Read(func(fd uintptr) (done bool) {
		n, from, err = unix.Recvfrom(int(fd), s.buf, unix.MSG_TRUNC)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	if readErr != nil {
		return readErr
	}
	defer func() { clear(s.buf[:max(0, min(n, len(s.buf)))]) }()
	return s.deliver(n, from, err, f)
}

// drain drops what is waiting to be read.
func (s *socket) drain() error {
	defer clear(s.buf)
	for {
		var err error
		if controlErr := s.control(func(fd int) error {
			_, _, err = unix.Recvfrom(fd, s.buf, 0)
			return nil
		}); controlErr != nil {
			return controlErr
		}
		switch err {
		case nil, unix.ENOBUFS, unix.EINTR:
		case unix.EAGAIN:
			return nil
		default:
			return fmt.Errorf("XFRM netlink: %w", err)
		}
	}
}

func (s *socket) deliver(n int, from unix.Sockaddr, err error, f func(h header, body []byte) error) error {
	if errors.Is(err, unix.ENOBUFS) {
		return errOverrun
	}
	if err != nil {
		return fmt.Errorf("XFRM netlink: %w", err)
	}
	if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
		return nil // another process may send, too: only the kernel is believed
	}
	if n > len(s.buf) {
		return fmt.Errorf("XFRM netlink: a datagram of %d bytes", n)
	}
	return eachMessage(s.buf[:n], f)
}

// eachMessage calls f for each message of a datagram, up to its first error.
func eachMessage(b []byte, f func(h header, body []byte) error) error {
	for len(b) > 0 {
		if len(b) < sizeofHeader {
			return errShort
		}
		native := binary.NativeEndian
		size := int(native.Uint32(b))
		if size < sizeofHeader || size > len(b) {
			return fmt.Errorf("a message says that it has %d bytes, of %d", size, len(b))
		}
		h := header{Kind: native.Uint16(b[4:]), Flags: native.Uint16(b[6:]), Seq: native.Uint32(b[8:])}
		if err := f(h, b[sizeofHeader:size]); err != nil {
			return err
		}
		b = b[min(len(b), aligned(size)):]
	}
	return nil
}

// request asks the kernel and calls f for each message of the answer.
func (s *socket) request(kind, flags uint16, body []byte, f func(h header, body []byte) error) error {
	s.seq++
	msg := make([]byte, sizeofHeader, sizeofHeader+len(body))
	native := binary.NativeEndian
	native.PutUint32(msg, uint32(sizeofHeader+len(body)))
	native.PutUint16(msg[4:], kind)
	native.PutUint16(msg[6:], flags|unix.NLM_F_REQUEST)
	native.PutUint32(msg[8:], s.seq)
	msg = append(msg, body...)
	if err := s.control(func(fd int) error {
		return unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}); err != nil {
		return fmt.Errorf("XFRM netlink: %w", err)
	}
	return s.answer(flags&unix.NLM_F_DUMP != 0, f)
}

// answer reads until the kernel has said all: one message, or a dump's end.
func (s *socket) answer(dump bool, f func(h header, body []byte) error) error {
	for done := false; !done; {
		err := s.read(func(h header, body []byte) error {
			switch {
			case h.Seq != s.seq || done:
				return nil // of a request that was given up
			case h.Kind == unix.NLMSG_ERROR:
				done = true
				return errorCode(body)
			case h.Kind == unix.NLMSG_DONE:
				done = true
				return nil
			}
			done = !dump
			return f(h, body)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// errorCode reads struct nlmsgerr, of which 0 is an acknowledgement.
func errorCode(body []byte) error {
	if len(body) < 4 {
		return errShort
	}
	if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
		return fmt.Errorf("XFRM netlink: %w", syscall.Errno(-code))
	}
	return nil
}
