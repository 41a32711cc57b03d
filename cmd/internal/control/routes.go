package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"
)

// route is one kind of request.
type route struct {
	pattern string
	reads   bool // changes nothing; everything else takes the right to act
	handle  http.HandlerFunc
}

func read(path string, handle http.HandlerFunc) route { return route{"GET " + path, true, handle} }

func act(path string, handle http.HandlerFunc) route { return route{"POST " + path, false, handle} }

// routes are all requests that there are.
func (s *server) routes() []route {
	return []route{
		read("/v1/status", s.tell(s.Status)),
		read("/v1/peers", s.tell(s.Peers)),
		read("/v1/sas", s.tell(s.SAs)),
		read("/v1/events", s.events),
		act("/v1/initiate", s.apply(s.Initiate)),
		act("/v1/terminate", s.apply(s.Terminate)),
		act("/v1/probe", s.apply(s.Probe)),
		act("/v1/detach", s.apply(s.Detach)),
	}
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.HandleFunc(r.pattern, s.guarded(r))
	}
	return mux
}

// guarded is a route's handler for those who may use it.
func (s *server) guarded(r route) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		if !r.reads && connOf(q).may != acting {
			s.write(w, http.StatusForbidden, failure{s.access.readerDenial()})
			return
		}
		r.handle(w, q)
	}
}

// tell answers with what f returns.
func (s *server) tell(f func(context.Context) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !connOf(r).trusted {
			select {
			case s.lists <- struct{}{}:
				defer func() { <-s.lists }()
			case <-r.Context().Done():
				return
			}
		}
		v, err := f(r.Context())
		s.answer(w, v, err)
	}
}

// apply answers with how many f was applied to, which may take its time: some
// wait for a peer.
func (s *server) apply(f func(context.Context, string) (int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := nameIn(http.MaxBytesReader(w, r.Body, maxBody))
		if name == "" {
			s.write(w, http.StatusBadRequest, failure{`the body must be {"name": "..."}`})
			return
		}
		n, err := f(r.Context(), name)
		s.answer(w, Done{n}, err)
	}
}

// nameIn is the name in a whole body, or "" where that is another.
func nameIn(body io.Reader) string {
	b, err := io.ReadAll(body)
	if err != nil {
		return ""
	}
	var a Act
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if d.Decode(&a) != nil {
		return ""
	}
	return a.Name
}

// events writes a line for each event, at once.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	// An error is a client that has gone, or does not read.
	_ = s.Events(r.Context(), flush.Flush, func(e any) error {
		return errors.Join(s.send(w, encode(e)), flush.Flush())
	})
}

func (s *server) answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		s.write(w, http.StatusUnprocessableEntity, failure{err.Error()})
		return
	}
	s.write(w, http.StatusOK, v)
}

func (s *server) write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = s.send(w, encode(v)) // an error is a client that has gone, or does not read
}

// send writes as long as the reader goes on taking something.
func (s *server) send(w http.ResponseWriter, b []byte) error {
	const atOnce = 256 << 10
	extend := http.NewResponseController(w)
	for chunk := range slices.Chunk(b, atOnce) {
		if err := extend.SetWriteDeadline(time.Now().Add(s.stall)); err != nil {
			return err
		}
		if _, err := w.Write(chunk); err != nil {
			return err
		}
	}
	return nil
}

// encode is v as a line of JSON. All that we send can be encoded.
func encode(v any) []byte {
	b, _ := json.Marshal(v)
	return append(b, '\n')
}
