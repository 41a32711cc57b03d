package control

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
)

// generous is how long a test waits for what must come.
const generous = 30 * time.Second

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(generous); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// unhurried is a server that drops nobody for being slow.
func unhurried(s *server) { s.header, s.whole, s.stall = time.Hour, time.Hour, time.Hour }

func reader(uid uint32) syscall.Credential { return syscall.Credential{Uid: uid, Gid: readGID} }

var oneStatus = []request{{"GET", "/v1/status", ""}}

// TestNobodyKeepsOthersOut: who opens all the connections that he can keeps
// himself out, and not root or another user.
func TestNobodyKeepsOthersOut(t *testing.T) {
	callers := newCallers(t)
	c, path := serveWith(t, answers(), config.Control{Group: actGroup, ReadGroup: readGroup}, unhurried)
	answered := func() {
		t.Helper()
		var got map[string]string
		if err := c.Get(t.Context(), "/v1/status", &got); err != nil {
			t.Errorf("root: %v", err)
		}
	}
	told := func(who syscall.Credential, want string) {
		t.Helper()
		said := ""
		await(t, "told "+want, func() bool { // the first are closed without a word
			said = callers.ask(who, path, oneStatus)[0]
			return said == want || want != "" && said == ""
		})
		if said != want {
			t.Errorf("told %q, want %q", said, want)
		}
	}
	noRight := callers.hold(syscall.Credential{Uid: nobody, Gid: nobody}, path, 200, "")
	answered()
	told(reader(1001), "")
	noRight()

	first := callers.hold(reader(1001), path, 200, "")
	answered()
	told(reader(1001), "user 1001 has 16 connections to this socket, and that is all a user may have")
	told(reader(1002), "")
	rest := []func(){callers.hold(reader(1002), path, 200, ""), callers.hold(reader(1003), path, 200, ""), callers.hold(reader(1004), path, 200, "")}
	answered()
	told(reader(1005), "64 connections to this socket are open, and that is all there may be but for root")
	told(syscall.Credential{Uid: 1005, Gid: actGID}, "64 connections to this socket are open, and that is all there may be but for root")
	first()
	told(reader(1005), "")
	told(reader(1001), "")
	for _, letGo := range rest {
		letGo()
	}
	told(reader(1002), "")
}

func TestRootsOwnLimit(t *testing.T) {
	callers := newCallers(t)
	_, path := serveWith(t, answers(), config.Control{ReadGroup: readGroup}, unhurried)
	letGo := callers.hold(syscall.Credential{}, path, 200, "")
	await(t, "root is told", func() bool {
		return callers.ask(syscall.Credential{}, path, oneStatus)[0] == "root has 64 connections to this socket, and that is all there may be"
	})
	if said := callers.ask(reader(1001), path, oneStatus)[0]; said != "" {
		t.Errorf("another: %s", said)
	}
	letGo()
}

// TestFewListsAtOnce: answers that nobody reads are held in memory, so there
// are few of them, and root waits for none.
func TestFewListsAtOnce(t *testing.T) {
	callers := newCallers(t)
	var made atomic.Int64
	api := answers()
	api.Peers = func(context.Context) (any, error) {
		made.Add(1)
		return strings.Repeat("x", 8<<20), nil
	}
	c, path := serveWith(t, api, config.Control{ReadGroup: readGroup}, unhurried)
	letGo := callers.hold(reader(1001), path, 12, "GET /v1/peers HTTP/1.1\r\nHost: x\r\n\r\n")
	await(t, "some are answered", func() bool { return made.Load() == maxLists })
	var got string
	if err := c.Get(t.Context(), "/v1/peers", &got); err != nil || len(got) != 8<<20 {
		t.Errorf("root: %d bytes, %v", len(got), err)
	}
	if n := made.Load(); n != maxLists+1 {
		t.Errorf("%d lists are held", n)
	}
	letGo()
	await(t, "whoever waits finds that he has gone, or is answered", func() bool {
		return callers.ask(reader(1001), path, []request{{"GET", "/v1/peers", ""}})[0] == ""
	})
}

// raw sends a text and returns the connection.
func raw(t *testing.T, path, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestReaderOfEventsStops: he is dropped, and has cost what the kernel's
// buffers hold.
func TestReaderOfEventsStops(t *testing.T) {
	api := answers()
	ended := make(chan error, 1)
	var emitted atomic.Int64
	api.Events = func(ctx context.Context, started func() error, emit func(any) error) error {
		err := started()
		for event := strings.Repeat("x", 1<<10); err == nil; emitted.Add(1) {
			err = emit(event)
		}
		ended <- err
		return err
	}
	_, path := serveWith(t, api, config.Control{}, func(s *server) { s.stall = 50 * time.Millisecond })
	c := raw(t, path, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "i/o timeout") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(generous):
		t.Fatal("he is written to for ever")
	}
	if n := emitted.Load(); n > 8<<10 {
		t.Errorf("%d kB were written to nobody", n)
	}
	if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("his connection: %v", err)
	}
}

// TestPatientEvents: who reads stays, however seldom something happens.
func TestPatientEvents(t *testing.T) {
	api := answers()
	api.Events = func(ctx context.Context, started func() error, emit func(any) error) error {
		err := started()
		for i := 0; i < 3 && err == nil; i++ {
			time.Sleep(700 * time.Millisecond)
			err = emit(i)
		}
		return err
	}
	_, path := serveWith(t, api, config.Control{}, func(s *server) {
		s.stall, s.header, s.whole = 500*time.Millisecond, 500*time.Millisecond, 500*time.Millisecond
	})
	c := raw(t, path, "GET /v1/events HTTP/1.0\r\n\r\n")
	if b, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(b), "\r\n\r\n0\n1\n2\n") {
		t.Errorf("%q, %v", b, err)
	}
}

// TestReaderOfAListStops: the same for an answer larger than all buffers.
func TestReaderOfAListStops(t *testing.T) {
	api := answers()
	asked := make(chan struct{})
	api.Peers = func(context.Context) (any, error) {
		close(asked)
		return strings.Repeat("x", 8<<20), nil
	}
	_, path := serveWith(t, api, config.Control{}, func(s *server) { s.stall = 50 * time.Millisecond })
	c := raw(t, path, "GET /v1/peers HTTP/1.1\r\nHost: x\r\n\r\n")
	<-asked
	time.Sleep(time.Second) // he reads later
	if n, err := io.Copy(io.Discard, c); err == nil && n >= 8<<20 {
		t.Errorf("%d bytes have waited for him", n)
	}
}

// TestSlowReaderOfAList: who takes his time is served as long as he takes
// something.
func TestSlowReaderOfAList(t *testing.T) {
	api := answers()
	api.Peers = func(context.Context) (any, error) { return strings.Repeat("x", 8<<20), nil }
	_, path := serveWith(t, api, config.Control{}, func(s *server) { s.stall = time.Second })
	c := raw(t, path, "GET /v1/peers HTTP/1.0\r\n\r\n")
	total := int64(0)
	for {
		n, err := io.CopyN(io.Discard, c, 256<<10)
		total += n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(60 * time.Millisecond)
	}
	if total < 8<<20 {
		t.Errorf("he was dropped after %d bytes", total)
	}
}

// TestOneRequestEach: a connection is closed once it is answered, so that none
// is held for nothing.
func TestOneRequestEach(t *testing.T) {
	_, path := serveWith(t, answers(), config.Control{}, unhurried)
	c := raw(t, path, strings.Repeat("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 2))
	if err := c.SetReadDeadline(time.Now().Add(generous)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if n := strings.Count(string(b), "200 OK"); n != 1 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%d answers, %v", n, err)
	}
}

// TestSlowRequests: who does not finish what he asks is dropped.
func TestSlowRequests(t *testing.T) {
	_, path := serveWith(t, answers(), config.Control{}, func(s *server) { s.header, s.whole = 50*time.Millisecond, 100*time.Millisecond })
	for _, text := range []string{"", "GET /v1/sta", "POST /v1/probe HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{"} {
		c := raw(t, path, text)
		if err := c.SetReadDeadline(time.Now().Add(generous)); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || strings.Contains(string(b), "200 OK") {
			t.Errorf("%q: %q, %v", text, b, err)
		}
	}
}

// TestSlowAct: an act may take longer than a request.
func TestSlowAct(t *testing.T) {
	api := answers()
	api.Initiate = func(ctx context.Context, _ string) (int, error) {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(1200 * time.Millisecond):
			return 1, nil
		}
	}
	c, _ := serveWith(t, api, config.Control{}, func(s *server) {
		s.header, s.whole, s.stall = 500*time.Millisecond, 500*time.Millisecond, 500*time.Millisecond
	})
	if n, err := c.Act(t.Context(), "initiate", "home"); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
