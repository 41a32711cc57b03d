package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/test/lab"
)

func TestTunnel(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	s.ping(3)
	anna := []string{"--instance", "anna"}

	s.want(s.Gateway, 0, []string{"healthy\n", "tunnels    1 up   0 connecting", "xdp        g0 native", "keepalive: answer"}, "status")
	sas := s.want(s.Gateway, 0, []string{"anna@example.org", "198.51.100.254:", "esp 0s"}, "sas")
	s.want(s.Gateway, 0, []string{"anna@example.org", "roadwarriors", "established", "  peer  "}, "peers")
	s.want(s.Clients[0], 0, []string{"vpn.example.org", "office", "198.51.100.1:4500", "  both  "}, append(anna, "peers")...)
	if fields := strings.Fields(sas); len(fields) < 4 || strings.Contains(sas, "PEER") {
		t.Errorf("not a line for a pipe: %q", sas)
	} else {
		s.want(s.Gateway, 0, []string{"probing 1 IKE SA\n"}, "probe", fields[2])
	}
	for _, command := range []string{"probe", "sas", "peers"} {
		s.want(s.Gateway, exitError, []string{`nothing matches "nobody"; there are: anna@example.org, roadwarriors`}, command, "nobody")
	}
	for _, who := range append([]string{"anna@example.org", "roadwarriors", lab.NATAddr.String(), "*"}, strings.Fields(sas)[1:3]...) {
		s.want(s.Gateway, 0, []string{"anna@example.org"}, "sas", who)
		s.want(s.Gateway, 0, []string{"anna@example.org"}, "peers", who)
	}
	s.want(s.Gateway, exitError, []string{`there is no connection "berlin"; none`}, "initiate", "berlin")
	s.want(s.Clients[0], exitError, []string{`there is no connection "berlin"; those that can be called: office`}, append(anna, "initiate", "berlin")...)
	s.want(s.Clients[0], 0, []string{"office is up"}, append(anna, "initiate", "office")...) // again: nothing to do

	s.await("keepalives are answered in XDP, and reach the client", func() error {
		out := s.want(s.Gateway, 0, nil, "stats")
		st, _ := s.status(s.Clients[0], anna...)
		if !strings.Contains(out, "keepalive_answered") || st.Sockets[1].Keepalives == 0 {
			return errors.New(out)
		}
		return nil
	})
	st, _ := s.status(s.Gateway)
	if st.Sockets[0].Keepalives+st.Sockets[1].Keepalives != 0 {
		t.Errorf("keepalives have come to the gateway's sockets: %+v", st.Sockets)
	}
	if ours := st.XDP.Addresses; len(ours) != 1 || ours[0] != lab.GatewayAddr {
		t.Errorf("ours: %v", ours)
	}

	s.want(s.Gateway, 0, []string{"deleting 1 IKE SA\n"}, "terminate", "anna@example.org")
	s.await("the tunnel is gone at both ends", func() error {
		if at, there := s.do(s.Gateway, "sas"), s.do(s.Clients[0], append(anna, "sas")...); at.out+there.out != "" {
			return errors.New(at.out + there.out)
		}
		return nil
	})
	s.want(s.Gateway, exitError, []string{`nothing matches "*": there is no tunnel`}, "terminate", "*")
	s.stop(gw, client)
	s.detached()
}

// TestKilled: the pins of a gateway that was killed say what they know, the
// next one says what it has dropped, and detach leaves nothing.
func TestKilled(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	s.ping(1)
	line := strings.Fields(s.want(s.Gateway, 0, nil, "sas"))
	if err := gw.Kill(); err == nil {
		t.Error("killed, and ended well")
	}
	s.want(s.Gateway, exitDegraded, []string{"not running\n", "xdp        g0 native", "1 SPI that no daemon follows"}, "status")
	s.want(s.Gateway, 0, []string{"-  " + line[1] + "  " + line[2] + "  -  -  ", "  esp "}, "sas")
	s.want(s.Gateway, 0, []string{line[2]}, "sas", line[2])
	s.want(s.Gateway, 0, []string{line[1], "  peer  "}, "peers", line[1])
	s.want(s.Gateway, exitError, []string{`nothing matches "anna@example.org": without the daemon only addresses and SPIs are known`}, "sas", "anna@example.org")
	var sas []gateway.TrackedSA
	if r := s.do(s.Gateway, "sas", "--json"); json.Unmarshal([]byte(r.out), &sas) != nil || len(sas) != 1 || sas[0].InSPI != line[2] || sas[0].Proof != "esp" {
		t.Errorf("%s", r.out)
	}
	s.await("XDP goes on answering", func() error {
		var peers []gateway.TrackedPeer
		r := s.do(s.Gateway, "peers", "--json")
		if err := json.Unmarshal([]byte(r.out), &peers); err != nil || len(peers) != 1 || peers[0].Answered < 3 {
			return errors.New(r.out)
		}
		return nil
	})
	s.want(s.Gateway, exitDegraded, []string{"the daemon is not running"}, "probe", "*")

	again := s.run(s.Gateway, "--config", filepath.Join(s.dir, "gateway.yaml"))
	if log := again.log.String(); !strings.Contains(log, "none survives a restart yet\" spis=1") || !strings.Contains(log, "none survives a restart yet\" sas=1") {
		t.Errorf("the log: %s", log)
	}
	s.want(s.Gateway, 0, []string{"healthy", "tunnels    0 up"}, "status")
	if st, _ := s.status(s.Gateway); st.XDP.SPIs != 0 {
		t.Errorf("the maps still have %d SPIs", st.XDP.SPIs)
	}
	if err := again.Kill(); err == nil {
		t.Error("killed, and ended well")
	}
	s.want(s.Gateway, 0, []string{"g0: detached", "removed"}, "detach", "g0")
	s.nothingRuns()
	s.stop(client) // its peer does not answer: five seconds at most
	s.want(s.Clients[0], 0, []string{"c0: detached"}, "--instance", "anna", "detach", "c0")
}

// TestInterrupted: a Ctrl-C with tunnels up leaves the pins and nothing else.
func TestInterrupted(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	s.ping(1)
	if err := gw.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if r := s.end(gw.Process, &gw.log); r.code != 0 {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
	s.await("the client has heard the goodbye", func() error {
		if r := s.do(s.Clients[0], "--instance", "anna", "sas"); r.out != "" {
			return errors.New(r.out)
		}
		return nil
	})
	s.nothingRuns()
	s.want(s.Gateway, exitDegraded, []string{"xdp        g0 native", "0 SPIs"}, "status")
	s.stop(client)
	s.detached()
}

// TestSecondSignal: who asks twice does not wait for goodbyes that nobody
// hears.
func TestSecondSignal(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	if err := client.Kill(); err == nil {
		t.Error("killed, and ended well")
	}
	for range 2 {
		if err := gw.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond) // two signals at once are one
	}
	if r := s.end(gw.Process, &gw.log); r.code != exitError {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
	s.want(s.Gateway, 0, nil, "detach", "g0")
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "c0")
}

// TestInitiateInterrupted: who stops waiting for a silent peer does not stop
// the attempt.
func TestInitiateInterrupted(t *testing.T) {
	s := newSite(t)
	client := s.run(s.Clients[0], "--instance", "anna", "--config", s.write("anna.yaml", fmt.Sprintf(clientConfig, s.dir)))
	var out lab.Transcript
	p := s.start(s.Clients[0], &out, nil, "--instance", "anna", "initiate", "office")
	s.await("it is under way", func() error {
		if r := s.do(s.Clients[0], "--instance", "anna", "peers"); !strings.Contains(r.out, "init sent") || !strings.Contains(r.out, "  try ") {
			return errors.New(r.out)
		}
		return nil
	})
	if err := p.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if r := s.end(p, &out); r.code != exitError || r.out != "ikepulse: interrupted\n" {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
	s.want(s.Clients[0], 0, []string{"init sent"}, "--instance", "anna", "peers")
	s.stop(client)
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "c0")
}

// TestEvents: what happens is printed as it happens.
func TestEvents(t *testing.T) {
	s := newSite(t)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	client := s.run(s.Clients[0], "--instance", "anna", "--config", s.write("anna.yaml", fmt.Sprintf(clientConfig, s.dir)))
	var text, lines lab.Transcript
	listeners := []*lab.Process{s.start(s.Gateway, &text, nil, "events"), s.start(s.Gateway, &lines, nil, "events", "--json")}
	s.await("the listeners hear", func() error {
		s.do(s.Clients[0], "--instance", "anna", "initiate", "office")
		s.do(s.Clients[0], "--instance", "anna", "terminate", "*")
		for _, want := range []string{"established     anna@example.org", "child up", "closed          anna@example.org", "deleted by peer"} {
			if !strings.Contains(text.String(), want) {
				return fmt.Errorf("no %q in %s", want, &text)
			}
		}
		if !strings.Contains(lines.String(), `"event":"child_up"`) {
			return errors.New(lines.String())
		}
		return nil
	})
	if err := listeners[0].Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if r := s.end(listeners[0], &text); r.code != 0 {
		t.Errorf("Ctrl-C: exit code %d: %s", r.code, r.out)
	}
	// It ends with the daemon, and hears the answer to its goodbye before.
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "initiate", "office")
	before := len(lines.String())
	s.stop(gw)
	r := s.end(listeners[1], &lines)
	if last := r.out[before:]; r.code != 0 || !strings.Contains(last, `"reason":"deleted"`) || strings.Contains(last, `"event":"unanswered"`) {
		t.Errorf("exit code %d: %s", r.code, last)
	}
	s.stop(client)
	s.detached()
}
