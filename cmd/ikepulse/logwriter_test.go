package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/test/lab"
)

// TestLogWriter: a reader who stops reading keeps nobody, and learns later how
// much he has missed.
func TestLogWriter(t *testing.T) {
	r, out := io.Pipe()
	w := newLogWriter(out, config.Log{Format: "text"})
	log := newLogger(w, config.Log{Format: "text"})
	const more = 100
	for i := range logLines + 1 + more {
		log.Info("line", "n", i)
	}
	read := make(chan string)
	go func() { // ends with the log
		b, _ := io.ReadAll(r)
		read <- string(b)
	}()
	w.close()
	out.Close()
	text := <-read
	if got := strings.Count(text, "msg=line "); got < logLines || got > logLines+1 || !strings.Contains(text, "n=0\n") {
		t.Errorf("%d lines", got)
	}
	if !strings.Contains(text, fmt.Sprintf(" lines=%d\n", logLines+1+more-strings.Count(text, "msg=line "))) {
		t.Errorf("not told: %s", text[len(text)-200:])
	}
}

// TestLogAfterTheEnd: what a signal has to say while the last lines are waited for,
// or afterwards, ends nobody; all that came before is written.
func TestLogAfterTheEnd(t *testing.T) {
	r, out := io.Pipe() // nobody reads: close waits
	w := newLogWriter(out, config.Log{Format: "text"})
	log := newLogger(w, config.Log{Format: "text"})
	const lines = 20
	for i := range lines {
		log.Info("line", "n", i)
	}
	closed := make(chan struct{})
	go func() { // ends with logGrace
		defer close(closed)
		w.close()
	}()
	for waits := true; waits; {
		log.Warn("late")
		select {
		case <-closed:
			waits = false
		case <-time.After(time.Millisecond):
		}
	}
	log.Warn("later")
	read := make(chan string)
	go func() { // ends with the log
		b, _ := io.ReadAll(r)
		read <- string(b)
	}()
	<-w.done
	out.Close()
	if text := <-read; strings.Count(text, "msg=line ") != lines {
		t.Errorf("not all is there: %s", text)
	}
}

// TestLogReaderGone: a daemon outlives whoever reads its log, also where the
// pipe is full, and its terminal.
func TestLogReaderGone(t *testing.T) {
	for name, c := range map[string]struct{ stays bool }{
		"reader goes":          {false},
		"reader does not read": {true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.write("anna.psk", psk+"\n")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if c.stays { // a pipe that is full from the beginning
				fd := int(w.Fd())
				err := unix.SetNonblock(fd, true)
				for err == nil {
					_, err = unix.Write(fd, make([]byte, 4096))
				}
				if err = unix.SetNonblock(fd, false); err != nil {
					t.Fatal(err)
				}
			}
			file := s.write("gateway.yaml", strings.Replace(gatewayConfig, "shards:", "log: {level: debug}\nshards:", 1))
			gw, err := s.Gateway.Start(lab.Command{Path: "/proc/self/exe", Args: []string{"run", "--config", file},
				Env: append(os.Environ(), asProgram+"=yes"), Output: w})
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			s.await("it answers", func() error {
				if r := s.do(s.Gateway, "status"); r.code != 0 {
					return errors.New(r.out)
				}
				return nil
			})
			if !c.stays {
				r.Close()
			}
			for range 3 {
				if err := gw.Signal(unix.SIGHUP); err != nil { // which it logs
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
			}
			client := s.run(s.Clients[0], "--instance", "anna", "--config", s.write("anna.yaml", fmt.Sprintf(clientConfig, s.dir)))
			for range 3 {
				s.want(s.Clients[0], 0, []string{"office is up\n"}, "--instance", "anna", "initiate", "office")
				s.want(s.Gateway, 0, nil, "terminate", "*")
			}
			s.want(s.Gateway, 0, []string{"healthy\n"}, "status")
			s.stop(client)
			if err := gw.Signal(unix.SIGQUIT); err != nil { // an end as any other
				t.Fatal(err)
			}
			select {
			case <-gw.Done():
			case <-time.After(limit):
				t.Fatal("does not end")
			}
			if err := gw.Wait(); err != nil {
				t.Error(err)
			}
			s.nothingRuns()
			s.detached()
		})
	}
}

// TestLogOnFullDisk: a daemon goes on whose log is on a disk that is full, and says
// what is missing once there is room. A line that was cut takes no other with it.
func TestLogOnFullDisk(t *testing.T) {
	r := newSmallRun(t, 64)
	r.write("anna.psk", psk+"\n")
	path := filepath.Join(r.dir, "log")
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	file := r.write("gateway.yaml", strings.Replace(gatewayConfig, "shards:", "log: {level: debug}\nshards:", 1))
	gw, err := r.Gateway.Start(lab.Command{Path: "/proc/self/exe", Args: []string{"run", "--config", file},
		Env: append(os.Environ(), asProgram+"=yes"), Output: out})
	if err != nil {
		t.Fatal(err)
	}
	log := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	r.await("it answers", func() error {
		if got := r.do(r.Gateway, "status"); got.code != 0 {
			return errors.New(got.out)
		}
		return nil
	})
	client := r.run(r.Clients[0], "--instance", "anna", "--config", r.write("anna.yaml", fmt.Sprintf(clientConfig, r.site.dir)))
	r.fill()
	full := func() bool { return len(log())%4096 == 0 } // of whole pages, to the last byte
	r.await("lines are lost", func() error {
		r.want(r.Clients[0], 0, []string{"office is up\n"}, "--instance", "anna", "initiate", "office")
		r.ping(1)
		r.want(r.Gateway, 0, []string{"deleting 1 IKE SA\n"}, "terminate", "*")
		r.await("the tunnel is gone", func() error {
			if got := r.do(r.Clients[0], "--instance", "anna", "sas"); got.out != "" {
				return errors.New(got.out)
			}
			return nil
		})
		if !full() {
			return errors.New(log())
		}
		return nil
	})
	r.want(r.Clients[0], 0, []string{"office is up\n"}, "--instance", "anna", "initiate", "office")
	r.want(r.Gateway, 0, []string{"healthy\n", "1 up"}, "status")
	r.ping(3)
	r.makeRoom()
	r.await("it is said", func() error {
		r.want(r.Gateway, 0, nil, "probe", "*")
		if text := log(); !strings.Contains(text, "lines of this log could not be written") || !strings.Contains(text, "no space left on device") {
			return errors.New(text)
		}
		return nil
	})
	for line := range strings.Lines(log()) {
		if !strings.HasPrefix(line, "time=") || strings.Count(line, "time=") != 1 {
			t.Errorf("a line: %s", line)
		}
	}
	r.stop(client)
	if err := gw.Stop(limit); err != nil {
		t.Error(err)
	}
	r.detached()
}

// TestHangup: SIGHUP ends nobody, and is told to have done nothing.
func TestHangup(t *testing.T) {
	s := newSite(t)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	if err := gw.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.await("it is logged", func() error {
		if !strings.Contains(gw.log.String(), "SIGHUP: the configuration cannot be read again yet") {
			return errors.New(gw.log.String())
		}
		return nil
	})
	s.want(s.Gateway, 0, []string{"healthy\n"}, "status")
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "--all")
}
