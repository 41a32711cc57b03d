package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/cmd/internal/control"
)

// TestDetachWhatIsRefused: an interface that the daemon is still trying is let
// be, also when it becomes free.
func TestDetachWhatIsRefused(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"g1", "g2"} {
		s.laid(name)
	}
	const all = "addresses: [198.51.100.1], interfaces: [g0, g1, g2]"
	file := s.write("gateway.yaml", strings.Replace(gatewayConfig, "addresses: [198.51.100.1]", all, 1))
	s.want(s.Gateway, 0, nil, "--instance", "other", "attach", "g0", "g2")
	gw := s.run(s.Gateway, "--config", file)
	if st, _ := s.status(s.Gateway); strings.Join(st.XDP.Waiting, " ") != "g0 g2" {
		t.Errorf("waiting: %q", st.XDP.Waiting)
	}
	s.want(s.Gateway, 0, []string{"g0: was not attached, and is no longer tried\n"}, "detach", "g0")
	s.want(s.Gateway, 0, []string{"g0: was not attached\n"}, "detach", "g0")
	s.want(s.Gateway, exitDegraded, []string{"problem    XDP is not on g2: attaching to g2: g2 has another XDP program",
		"problem    XDP is not attached to g0: nothing answers keepalives there; ikepulse attach g0"}, "status")
	s.want(s.Gateway, 0, []string{"g1: detached\ng2: was not attached, and is no longer tried\n", "the daemon runs and keeps the maps"}, "detach", "--all")

	s.want(s.Gateway, 0, nil, "--instance", "other", "detach", "--all")
	s.want(s.Gateway, 0, nil, "attach", "g1", "--config", file)
	forcedOff(t, "g1")
	s.awaitOn("g1") // by a pass that has looked at the others too
	if s.onInterface("g0") != 0 || s.onInterface("g2") != 0 {
		t.Error("what was detached is attached")
	}
	s.want(s.Gateway, 0, nil, "attach", "g0", "g2", "--config", file)
	s.want(s.Gateway, 0, []string{"healthy\n"}, "status")
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "--all")
}

// TestDetachWithoutPins: the daemon is told all the same.
func TestDetachWithoutPins(t *testing.T) {
	s := newSite(t)
	s.want(s.Gateway, 0, nil, "--instance", "other", "attach", "g0")
	gw := s.run(s.Gateway, "--no-pin", "--config", s.write("gateway.yaml", gatewayConfig))
	s.want(s.Gateway, 0, []string{"g0: was not attached, and is no longer tried\n", "nothing is pinned"}, "detach", "--all")
	s.want(s.Gateway, exitDegraded, []string{"problem    XDP is not attached to g0"}, "status")
	s.want(s.Gateway, 0, nil, "--instance", "other", "detach", "g0")
	s.stop(gw)
}

// TestDaemonThatDoesNotAnswer: detach does not wait for it for ever, and says
// that it does not know.
func TestDaemonThatDoesNotAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	silent := instance{running: true, daemon: control.NewClient(path)}.tell(ctx)
	if silent.giveUp("g0") || silent.waiting() != nil || silent.without() {
		t.Error("it has answered")
	}
	if err := silent.failed(); err == nil || !strings.Contains(err.Error(), "the daemon could not be told: ") {
		t.Errorf("%v", err)
	}
	for what, other := range map[string]*told{
		"none runs":         instance{daemon: control.NewClient(path)}.tell(t.Context()),
		"one has no socket": instance{running: true, daemon: control.NewClient(path + ".none")}.tell(t.Context()),
	} {
		if other.giveUp("g0") || other.failed() != nil {
			t.Errorf("%s: %v", what, other.failed())
		}
	}
}
