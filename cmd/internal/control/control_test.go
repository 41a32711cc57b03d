package control

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
)

// answers are an API's that a test can tell.
func answers() API {
	act := func(verb string) func(context.Context, string) (int, error) {
		return func(_ context.Context, name string) (int, error) {
			if name == "nobody" {
				return 0, errors.New("no such peer")
			}
			return len(verb), nil
		}
	}
	read := func(what string) func(context.Context) (any, error) {
		return func(context.Context) (any, error) { return map[string]string{"what": what}, nil }
	}
	return API{Status: read("status"), Peers: read("peers"), SAs: read("sas"),
		Initiate: act("initiate"), Terminate: act("terminate"), Probe: act("probe"), Detach: act("detach"),
		Events: func(ctx context.Context, started func() error, emit func(any) error) error {
			if err := started(); err != nil {
				return err
			}
			for i := range 3 {
				if err := emit(i); err != nil {
					return err
				}
			}
			<-ctx.Done()
			return ctx.Err()
		}}
}

// publicDir is a folder that every user may look into, as t.TempDir is not.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ikepulse-control-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serve starts a socket with an API, open to the groups of c.
func serve(t *testing.T, api API, c config.Control) (*Client, string) {
	t.Helper()
	return serveWith(t, api, c, func(*server) {})
}

// serveWith is serve with a server that change has changed.
func serveWith(t *testing.T, api API, c config.Control, change func(*server)) (*Client, string) {
	t.Helper()
	path := filepath.Join(publicDir(t), "sub", "c.sock")
	l, err := Listen(path, c)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(api, l.access)
	change(s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.serve(ctx, l) }() // ends with cancel
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket is left")
		}
	})
	return NewClient(path), path
}

func TestRequests(t *testing.T) {
	c, _ := serve(t, answers(), config.Control{})
	for _, what := range []string{"status", "peers", "sas"} {
		var got map[string]string
		if err := c.Get(t.Context(), "/v1/"+what, &got); err != nil || got["what"] != what {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	for _, verb := range []string{"initiate", "terminate", "probe", "detach"} {
		if n, err := c.Act(t.Context(), verb, "home"); err != nil || n != len(verb) {
			t.Errorf("%s: %d, %v", verb, n, err)
		}
		if _, err := c.Act(t.Context(), verb, "nobody"); err == nil || err.Error() != "no such peer" {
			t.Errorf("%s of nobody: %v", verb, err)
		}
	}
}

func TestEvents(t *testing.T) {
	c, _ := serve(t, answers(), config.Control{})
	var got []string
	enough := errors.New("enough")
	err := c.Events(t.Context(), func() { got = append(got, "started") }, func(m json.RawMessage) error {
		if got = append(got, string(m)); len(got) == 4 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || strings.Join(got, " ") != "started 0 1 2" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBadRequests(t *testing.T) {
	c, path := serve(t, answers(), config.Control{})
	for _, r := range []struct{ method, path, body string }{
		{"POST", "/v1/terminate", ""},
		{"POST", "/v1/terminate", "{}"},
		{"POST", "/v1/terminate", `{"name": 5}`},
		{"POST", "/v1/terminate", `{"nome": "x"}`},
		{"POST", "/v1/terminate", `{"name": "x"}` + strings.Repeat(" ", 1<<20)},
		{"POST", "/v1/terminate", `{"name": "` + strings.Repeat("x", 1<<20) + `"}`},
		{"GET", "/v1/terminate", ""},
		{"POST", "/v1/status", ""},
		{"GET", "/v1/keys", ""},
	} {
		body, err := c.do(t.Context(), r.method, r.path, []byte(r.body))
		if err == nil {
			body.Close()
			t.Errorf("%s %s %.40q was accepted", r.method, r.path, r.body)
		}
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("\x00\xff garbage\r\n\r\n"))
	buf := make([]byte, 64)
	if n, _ := conn.Read(buf); !strings.Contains(string(buf[:n]), http.StatusText(http.StatusBadRequest)) {
		t.Errorf("garbage: %q", buf[:n])
	}
	long := raw(t, path, "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 2*maxHeader)+"\r\n\r\n")
	if n, _ := long.Read(buf); !strings.Contains(string(buf[:n]), "431 ") {
		t.Errorf("a long header: %q", buf[:n])
	}
	var got map[string]string
	if err := c.Get(t.Context(), "/v1/status", &got); err != nil {
		t.Errorf("after the bad requests: %v", err)
	}
}

func TestNotRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	var v any
	if err := NewClient(path).Get(t.Context(), "/v1/status", &v); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as a killed daemon leaves it
	l.Close()
	if err := NewClient(path).Get(t.Context(), "/v1/status", &v); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a dead socket: %v", err)
	}
	again, err := Listen(path, config.Control{})
	if err != nil {
		t.Fatalf("a dead socket is not replaced: %v", err)
	}
	again.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, config.Control{}); err == nil {
		t.Error("a file was replaced by the socket")
	}
}
