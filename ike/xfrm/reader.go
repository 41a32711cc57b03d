package xfrm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrGone says that the kernel has no such state, or no longer.
var ErrGone = errors.New("the kernel has no such state")

// Reader asks the kernel for states. It is for one goroutine.
type Reader struct {
	s *socket
}

// NewReader returns a reader of the calling thread's network namespace; it may
// be used from any thread.
func NewReader() (*Reader, error) {
	s, err := newSocket(0)
	if err != nil {
		return nil, err
	}
	return &Reader{s}, nil
}

// Close makes every other method fail, also one under way.
func (r *Reader) Close() error { return r.s.Close() }

// Read returns a state with its present counters: some 5 µs.
func (r *Reader) Read(key Key, mark Mark) (sa SA, err error) {
	body := appendID(nil, key)
	if mark != (Mark{}) {
		body = appendMark(body, mark)
	}
	err = r.s.request(nl.XFRM_MSG_GETSA, 0, body, func(h header, body []byte) (err error) {
		sa, err = newSA(h, body)
		return err
	})
	if errors.Is(err, unix.ESRCH) {
		err = ErrGone
	}
	if err == nil && sa.Key != key {
		err = fmt.Errorf("the kernel answered with %s", sa.Key)
	}
	if err != nil {
		return SA{}, fmt.Errorf("%s: %w", key, err)
	}
	return sa, nil
}

// All calls f for every state: some 0.4 µs each. States that come or go
// meanwhile may be missed. unread are those that could not be decoded.
func (r *Reader) All(f func(SA)) (unread int, err error) {
	err = r.s.request(nl.XFRM_MSG_GETSA, unix.NLM_F_DUMP, nil, func(h header, body []byte) error {
		sa, err := newSA(h, body)
		if err != nil {
			unread++ // one odd state must not hide the others
			return nil
		}
		f(sa)
		return nil
	})
	return unread, err
}

func newSA(h header, body []byte) (SA, error) {
	if h.Kind != nl.XFRM_MSG_NEWSA {
		return SA{}, fmt.Errorf("the kernel answered with message %d", h.Kind)
	}
	return decodeSA(body)
}

// appendID is decodeID backwards.
func appendID(b []byte, key Key) []byte {
	family, dst := uint16(unix.AF_INET6), key.Dst.As16()
	if key.Dst.Is4() {
		v4 := key.Dst.As4()
		family, dst = unix.AF_INET, [16]byte(append(v4[:], make([]byte, 12)...))
	}
	b = append(b, dst[:]...)
	b = binary.BigEndian.AppendUint32(b, key.SPI)
	b = binary.NativeEndian.AppendUint16(b, family)
	return append(b, key.Proto, 0)
}

func appendMark(b []byte, mark Mark) []byte {
	native := binary.NativeEndian
	b = native.AppendUint16(b, sizeofAttr+8)
	b = native.AppendUint16(b, nl.XFRMA_MARK)
	b = native.AppendUint32(b, mark.Value)
	return native.AppendUint32(b, mark.Mask)
}
