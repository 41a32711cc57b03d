// Package control is the daemon's control socket: HTTP with JSON over a unix
// socket, open to root and to one group. Reading is GET, acting is POST.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

// maxBody bounds a request: the longest is a name.
const maxBody = 4096

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

// Listen makes the socket, replacing one that a killed daemon has left: the
// instance's lock, which the caller holds, says that none is running. group is
// a name or a number, or empty for the caller's own.
func Listen(path, group string) (net.Listener, error) {
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
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := open(path, group); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// open lets the group in.
func open(path, group string) error {
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(g.Gid)
		if err != nil {
			return err
		}
		if err := os.Chown(path, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, 0o660)
}

// Serve answers on l until ctx ends; then it closes l, which removes the
// socket, and waits a moment for answers under way.
func Serve(ctx context.Context, l net.Listener, api API) error {
	s := &http.Server{
		Handler:           api.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		MaxHeaderBytes:    8 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	// Ends when ctx does, or when Serve has failed and cancels it.
	ctx, cancel := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		grace, done := context.WithTimeout(context.Background(), time.Second)
		defer done()
		if s.Shutdown(grace) != nil {
			s.Close()
		}
	}()
	err := s.Serve(l)
	cancel()
	<-stopped
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (api API) handler() http.Handler {
	mux := http.NewServeMux()
	for path, read := range map[string]func(context.Context) (any, error){
		"/v1/status": api.Status, "/v1/peers": api.Peers, "/v1/sas": api.SAs,
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := read(r.Context())
			answer(w, v, err)
		})
	}
	for path, act := range map[string]func(context.Context, string) (int, error){
		"/v1/initiate": api.Initiate, "/v1/terminate": api.Terminate, "/v1/probe": api.Probe,
		"/v1/detach": api.Detach,
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			var body Act
			d := json.NewDecoder(io.LimitReader(r.Body, maxBody))
			d.DisallowUnknownFields()
			if err := d.Decode(&body); err != nil || body.Name == "" {
				write(w, http.StatusBadRequest, failure{`the body must be {"name": "..."}`})
				return
			}
			n, err := act(r.Context(), body.Name)
			answer(w, Done{n}, err)
		})
	}
	mux.HandleFunc("GET /v1/events", api.events)
	return mux
}

// events writes a line for each event, at once.
func (api API) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	_ = flush.SetReadDeadline(time.Time{})
	enc := json.NewEncoder(w)
	// An error is a client that has gone.
	_ = api.Events(r.Context(), flush.Flush, func(e any) error {
		return errors.Join(enc.Encode(e), flush.Flush())
	})
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		write(w, http.StatusUnprocessableEntity, failure{err.Error()})
		return
	}
	write(w, http.StatusOK, v)
}

func write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // an error is a client that has gone
}
