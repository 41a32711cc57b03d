package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
)

// Listener accepts those who have a right to be heard.
type Listener struct {
	*net.UnixListener
	Log      *slog.Logger // nothing is logged by default
	access   access
	gate     gate
	shortAt  time.Time     // when it was last told that descriptors are short
	refusing chan struct{} // holds one for each who is being told why not
	refused  sync.WaitGroup
}

// Listen makes the socket, replacing one that a killed daemon has left: the
// instance's lock, which the caller holds, says that none is running. Of c only
// the groups count.
func Listen(path string, c config.Control) (*Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s exists and is no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := bind(path)
	if err != nil {
		return nil, err
	}
	if err := open(path, c); err != nil {
		l.Close()
		return nil, err
	}
	return &Listener{UnixListener: l, Log: slog.New(slog.DiscardHandler), access: newAccess(c), gate: gate{users: map[uint32]int{}},
		refusing: make(chan struct{}, maxRefused)}, nil
}

// bind makes a socket that nobody else can connect to: its file has the mode
// that the descriptor had before.
func bind(path string) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if outer := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); outer != nil {
			return outer
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// open lets the groups connect. A file has one group, so for two it is open to
// all, and who somebody is decides.
func open(path string, c config.Control) error {
	group, mode := c.Group, os.FileMode(0o660)
	switch {
	case c.Group == nil && c.ReadGroup == nil:
		return nil // as it was made
	case c.Group == nil:
		group = c.ReadGroup
	case c.ReadGroup != nil:
		mode = 0o666
	}
	if err := os.Lchown(path, -1, int(group.ID)); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// conn is a connection of somebody who may at least read.
type conn struct {
	net.Conn
	may     right
	trusted bool
	leave   func()
}

func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// acceptPause is how long nobody is accepted for want of descriptors until it is
// tried again.
const acceptPause = 200 * time.Millisecond

// shortAgain is how long it is not told again that they are short, though somebody
// is accepted now and then.
const shortAgain = time.Minute

// Accept waits for the next who may be heard, and turns the others away. Where
// there are no descriptors, or no memory for one, it waits for some.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if short(err) {
			if l.shortAt.IsZero() || time.Since(l.shortAt) >= shortAgain {
				l.Log.Warn("nobody is heard at the control socket until descriptors are free", "error", err)
				l.shortAt = time.Now()
			}
			time.Sleep(acceptPause)
			continue
		}
		if err != nil {
			return nil, err
		}
		if in := l.admit(c); in != nil {
			return in, nil
		}
	}
}

// short tells that the host has no room for another connection: that passes. See
// accept(2).
func short(err error) bool {
	return slices.ContainsFunc([]error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS}, func(of error) bool { return errors.Is(err, of) })
}

// admit is nil for one who is turned away.
func (l *Listener) admit(c *net.UnixConn) net.Conn {
	who, err := callerOf(c)
	if err != nil {
		c.Close()
		return nil
	}
	may, trusted := l.access.of(who), l.access.trusts(who)
	if may == nothing {
		l.refuse(c, http.StatusForbidden, l.access.denial())
		return nil
	}
	leave, refusal := l.gate.enter(who.uid, trusted)
	if refusal != "" {
		l.refuse(c, http.StatusServiceUnavailable, refusal)
		return nil
	}
	return &conn{c, may, trusted, leave}
}

// refuseLimit is how long one who is turned away has to ask and to listen.
const refuseLimit = time.Second

// refuse closes the connection, and says why if there is time for it.
func (l *Listener) refuse(c *net.UnixConn, code int, why string) {
	select {
	case l.refusing <- struct{}{}:
	default:
		c.Close()
		return
	}
	l.refused.Go(func() { // ends with refuseLimit
		tellOff(c, code, why)
		<-l.refusing
	})
}

// tellOff answers what was asked, unread: a client takes no answer before it
// has asked.
func tellOff(c *net.UnixConn, code int, why string) {
	defer c.Close()
	if c.SetDeadline(time.Now().Add(refuseLimit)) != nil {
		return
	}
	if _, err := c.Read(make([]byte, maxHeader)); err != nil {
		return
	}
	body := encode(failure{why})
	a := http.Response{StatusCode: code, ProtoMajor: 1, ProtoMinor: 1, Close: true,
		Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body))}
	_ = a.Write(c) // an error is a client that has gone
}
