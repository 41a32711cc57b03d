package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	captureBuffer = 8 << 20 // bytes the kernel may queue for a capture
	captureFrame  = 1 << 16 // the longest frame, GRO included
)

// Capture records the frames of one interface, both directions.
type Capture struct {
	iface string
	file  *os.File
	keep  func(Frame) bool
	done  chan struct{} // closed when the reader has ended
	stop  func() error  // what Stop does, once

	mu     sync.Mutex
	frames []Frame
	err    error
}

// Capture begins to record at once what passes the interface and keep accepts;
// a nil keep accepts all. keep runs in the capture's goroutine, and must not
// hold on to the frame's data.
//
// What a native XDP program takes or sends back is not seen at its own
// interface, but at the other end of the link.
func (n *Namespace) Capture(iface string, keep func(Frame) bool) (*Capture, error) {
	c := &Capture{iface: iface, keep: keep, done: make(chan struct{})}
	c.stop = sync.OnceValue(c.end)
	fd, err := n.packetSocket(iface)
	if err != nil {
		return nil, fmt.Errorf("capture on %s in namespace %s: %w", iface, n.name, err)
	}
	// Non-blocking, so that the runtime's poller waits, and Stop can end that.
	c.file = os.NewFile(uintptr(fd), "capture "+iface)
	go c.read() // ends when stop has set a deadline, or the socket fails
	return c, n.lab.own(c.stop)
}

func (n *Namespace) packetSocket(iface string) (fd int, err error) {
	fd = -1
	err = n.Do(func() error {
		link, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		// Protocol 0 hears nothing: no frame of another interface slips in
		// before the bind.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		err = errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: wireOrder(unix.ETH_P_ALL), Ifindex: link.Index}))
		if err != nil {
			unix.Close(fd)
		}
		return err
	})
	return fd, err
}

// wireOrder returns v as its bytes lie in network order.
func wireOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// read is the capture's goroutine.
func (c *Capture) read() {
	defer close(c.done)
	raw, err := c.file.SyscallConn()
	if err == nil {
		data, control := make([]byte, captureFrame), make([]byte, 128)
		for err == nil {
			var received error
			err = raw.Read(func(fd uintptr) bool {
				received = c.receive(int(fd), data, control)
				return received != unix.EAGAIN
			})
			err = errors.Join(err, received)
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
	}
}

// receive takes one frame from the socket.
func (c *Capture) receive(fd int, data, control []byte) error {
	n, oob, _, from, err := unix.Recvmsg(fd, data, control, 0)
	if err == unix.EINTR || err == unix.ENETDOWN { // the link went down: not the end of it
		return nil
	}
	if err != nil {
		return err
	}
	f := Frame{Time: stamp(control[:oob]), Data: data[:n]}
	if sa, ok := from.(*unix.SockaddrLinklayer); ok {
		f.Outgoing = sa.Pkttype == unix.PACKET_OUTGOING
	}
	if c.keep != nil && !c.keep(f) {
		return nil
	}
	f.Data = slices.Clone(f.Data)
	c.mu.Lock()
	c.frames = append(c.frames, f)
	c.mu.Unlock()
	return nil
}

// stamp reads the kernel's receive time: a struct timespec of two words.
func stamp(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Time{}
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(
				int64(binary.NativeEndian.Uint64(m.Data)),
				int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Time{}
}

// Frames returns what was recorded so far.
func (c *Capture) Frames() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.frames)
}

// Stop ends the capture and returns all frames that passed before the call.
// The error says so when the kernel had to drop some.
func (c *Capture) Stop() ([]Frame, error) {
	err := c.stop()
	return c.Frames(), err
}

// end stops the reader, then takes what it left in the socket's queue.
func (c *Capture) end() error {
	if err := c.file.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	<-c.done
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	var drained, counted error
	var stats *unix.TpacketStats
	err = raw.Control(func(fd uintptr) {
		data, control := make([]byte, captureFrame), make([]byte, 128)
		for drained == nil {
			drained = c.receive(int(fd), data, control)
		}
		stats, counted = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	})
	if !errors.Is(drained, syscall.EAGAIN) {
		err = errors.Join(err, drained)
	}
	if stats != nil && stats.Drops > 0 {
		err = errors.Join(err, fmt.Errorf("capture on %s: the kernel dropped %d frames", c.iface, stats.Drops))
	}
	return errors.Join(err, counted, c.err, c.file.Close())
}
