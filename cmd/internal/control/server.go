// Package control is the daemon's control socket: HTTP with JSON over a unix
// socket. Root and one group may act, another group may only read; who somebody
// is the kernel says, and not the file's mode.
package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of a request.
const (
	maxBody   = 4096 // the longest is a name
	maxHeader = 8 << 10
)

// API is what the socket offers. What the functions return is encoded as JSON.
type API struct {
	Status func(context.Context) (any, error)
	Peers  func(context.Context) (any, error)
	SAs    func(context.Context) (any, error)
	// Events calls started when no event will be missed any more, then emit for
	// each event, until the context ends or either fails.
	Events func(ctx context.Context, started func() error, emit func(any) error) error
	// The acts take a connection's name or a peer, and return how many SAs
	// they were applied to.
	Initiate  func(ctx context.Context, name string) (int, error)
	Terminate func(ctx context.Context, name string) (int, error)
	Probe     func(ctx context.Context, name string) (int, error)
	// Detach takes an interface's name, and returns 1 if it was waiting for XDP.
	Detach func(ctx context.Context, name string) (int, error)
}

// Act is the body of a POST.
type Act struct {
	Name string `json:"name"`
}

// Done is the answer to one.
type Done struct {
	Applied int `json:"applied"`
}

// failure is the body of every answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

// server answers requests.
type server struct {
	API
	access access
	stall  time.Duration // a reader who takes nothing for so long is dropped
	header time.Duration // for a request's header
	whole  time.Duration // for all of a request
	// lists holds one for each answer under way to a user whom root does not
	// trust: it may be hundreds of megabytes, and is held until it is read.
	lists chan struct{}
}

// maxLists is how many of them there may be.
const maxLists = 4

func newServer(api API, a access) *server {
	return &server{API: api, access: a, stall: 10 * time.Second, header: 5 * time.Second, whole: 10 * time.Second,
		lists: make(chan struct{}, maxLists)}
}

// Serve answers on l until ctx ends; then it closes l, which removes the
// socket, and waits a moment for answers under way.
func Serve(ctx context.Context, l *Listener, api API) error {
	return newServer(api, l.access).serve(ctx, l)
}

func (s *server) serve(ctx context.Context, l *Listener) error {
	h := &http.Server{
		Handler:           s.handler(),
		ErrorLog:          slog.NewLogLogger(l.Log.Handler(), slog.LevelError),
		ReadHeaderTimeout: s.header,
		ReadTimeout:       s.whole,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	h.SetKeepAlivesEnabled(false) // so that limits of connections are those of requests
	// Ends when ctx does, or when Serve has failed and cancels it.
	ctx, cancel := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		grace, done := context.WithTimeout(context.Background(), time.Second)
		defer done()
		if h.Shutdown(grace) != nil {
			h.Close()
		}
	}()
	err := h.Serve(l)
	cancel()
	<-stopped
	l.refused.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// connKey is where a request's context has its *conn.
type connKey struct{}

func connOf(r *http.Request) *conn { return r.Context().Value(connKey{}).(*conn) }
