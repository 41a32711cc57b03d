package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// TestResolverLog: what changes is told once, and however many names come and go,
// there is a line in ten seconds.
func TestResolverLog(t *testing.T) {
	var log bytes.Buffer
	r := newResolver(1, false, slog.New(slog.NewTextHandler(&log, nil)))
	now := time.Unix(1e9, 0)
	lines := func(want int) {
		t.Helper()
		if n := strings.Count(log.String(), "\n"); n != want {
			t.Errorf("%d lines, want %d: %s", n, want, &log)
		}
		log.Reset()
	}
	missing := errors.New("no such host")
	r.tell("a.example.org", nil, now)
	lines(0)
	for range 100 {
		now = now.Add(time.Minute)
		r.tell("a.example.org", missing, now)
	}
	lines(1)
	now = now.Add(time.Second)
	r.tell("b.example.org", missing, now)
	lines(1)
	now = now.Add(linePause)
	for range 100 {
		for i := range 100 {
			r.tell(fmt.Sprint(i), missing, now)
		}
		now = now.Add(time.Second)
	}
	lines(10)
	r.tell("a.example.org", nil, now.Add(time.Minute))
	if !strings.Contains(log.String(), "resolved again") {
		t.Errorf("%s", &log)
	}
}

func TestBriefly(t *testing.T) {
	for want, err := range map[string]error{
		"no such host":                   &net.DNSError{Err: "no such host", Name: "a.example.org", Server: "192.0.2.53:53", IsNotFound: true},
		"no answer from 192.0.2.53:53":   &net.DNSError{Err: "i/o timeout", Name: "a.example.org", Server: "192.0.2.53:53", IsTimeout: true},
		"no answer":                      &net.DNSError{Err: "i/o timeout", Name: "a.example.org", IsTimeout: true},
		"something that nobody expected": errors.New("something that nobody expected"),
	} {
		if got := briefly(err); got.Error() != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
	if err := briefly(nil); err != nil {
		t.Error(err)
	}
}
