package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/lab"
)

// counters are those that stats prints.
func (s *site) counters() map[string]uint64 {
	s.t.Helper()
	var list []stat
	r := s.do(s.Gateway, "stats", "--json")
	if err := json.Unmarshal([]byte(r.out), &list); err != nil {
		s.t.Fatalf("%v: %s", err, r.out)
	}
	byName := map[string]uint64{}
	for _, c := range list {
		byName[c.Where+" "+c.Name] = c.Count
	}
	return byName
}

// calm is a gateway that asks nobody because of silence.
var calm = strings.Replace(gatewayConfig, "delay: 2s", "delay: 10m", 1)

// moves has the client's NAT forget him, and the client send a packet from his
// new mapping, which nobody need answer.
func (s *site) moves() {
	s.t.Helper()
	if err := s.Masq.Rebind(); err != nil {
		s.t.Fatal(err)
	}
	ping := lab.Ping{Dst: inner, Count: 1, Timeout: 100 * time.Millisecond}
	if _, _, err := s.Clients[0].Ping(s.t.Context(), ping); err != nil {
		s.t.Fatal(err)
	}
}

// TestMoves: a peer whose NAT gave him another mapping is asked there, once, and
// sas has him as moved.
func TestMoves(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnelBy(calm + "log: {level: debug}\n")
	var events lab.Transcript
	listener := s.start(s.Gateway, &events, nil, "events")
	s.await("the listener hears", func() error {
		s.want(s.Gateway, 0, nil, "probe", "*")
		if !strings.Contains(events.String(), "probe answered  anna@example.org") {
			return errors.New(events.String())
		}
		return nil
	})
	s.moves()
	s.await("the answer has come from there", func() error {
		log := gw.log.String()
		if at := strings.Index(log, "msg=moved"); at < 0 || !strings.Contains(log[at:], "msg=\"probe answered\"") {
			return errors.New(log)
		}
		return nil
	})
	for _, line := range []string{"msg=drift ", "msg=moved "} {
		if n := strings.Count(gw.log.String(), line); n != 1 {
			t.Errorf("%q is logged %d times: %s", line, n, &gw.log)
		}
	}
	s.await("the listener hears of the drift", func() error {
		for _, want := range []string{"  drift           anna@example.org  roadwarriors  198.51.100.254:", "  a packet from 198.51.100.254:", "  moved           "} {
			if !strings.Contains(events.String(), want) {
				return fmt.Errorf("no %q in %s", want, &events)
			}
		}
		return nil
	})
	s.want(s.Gateway, 0, []string{"anna@example.org", "  moved\n"}, "sas", "--alarm")
	if c := s.counters(); c["xdp_events drift"] != 1 || c["ike drifts"] != 1 || c["ike probes_sent"] != 1 || c["ike probes_drift"] != 1 {
		t.Errorf("%v", c)
	}
	s.ping(3)
	if err := listener.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	s.end(listener, &events)
	s.stop(gw, client)
	s.detached()
}

// TestMovesUnwatched: where no daemon runs the pins show who has moved, and the
// next daemon does not act on what it finds in the ring.
func TestMovesUnwatched(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	s.ping(1)
	if out := s.want(s.Gateway, 0, nil, "sas", "--alarm"); out != "" {
		t.Errorf("alarms: %s", out)
	}
	if err := gw.Kill(); err == nil {
		t.Error("killed, and ended well")
	}
	s.moves()
	s.await("it is seen", func() error {
		if r := s.do(s.Gateway, "sas", "--alarm"); !strings.HasSuffix(r.out, "  moved\n") {
			return errors.New(r.out)
		}
		return nil
	})
	waiting := s.counters()["xdp events"]

	again := s.run(s.Gateway, "--config", filepath.Join(s.dir, "gateway.yaml"))
	s.await("it is read", func() error {
		if c := s.counters(); c["xdp_events old"] < waiting {
			return fmt.Errorf("%d waited, %v", waiting, c)
		}
		return nil
	})
	if c := s.counters(); waiting == 0 || c["xdp_events drift"]+c["ike drifts"] != 0 {
		t.Errorf("of %d that waited: %v", waiting, c)
	}
	s.await("the client is a stranger, whom the log names", func() error {
		if log := again.log.String(); !strings.Contains(log, "the address of no tunnel\" from=198.51.100.254:") {
			return errors.New(log)
		}
		return nil
	})
	if err := again.Kill(); err == nil {
		t.Error("killed, and ended well")
	}
	s.want(s.Gateway, 0, []string{"g0: detached", "removed"}, "detach", "g0")
	s.stop(client) // its peer does not answer: five seconds at most
	s.want(s.Clients[0], 0, []string{"c0: detached"}, "--instance", "anna", "detach", "c0")
}

// TestRingFull: what the ring has no room for is lost and counted; a daemon that
// was held up reads what is there, goes on, and says what was lost.
func TestRingFull(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnelBy(calm)
	set, err := maps.OpenPinned(pins + "/default")
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if err := gw.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	flood(t, set)
	if err := gw.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	const room = 10_000 // and some more
	s.await("what there was is read", func() error {
		if c := s.counters(); c["xdp events"] < room || c["xdp_events stranger"] < c["xdp events"] || c["xdp events_lost"] == 0 {
			return fmt.Errorf("%v", c)
		}
		return nil
	})
	s.moves()
	s.await("it is told of what happens now", func() error {
		if c := s.counters(); c["ike probes_drift"] != 1 {
			return fmt.Errorf("%v", c)
		}
		return nil
	})
	s.ping(3)
	s.want(s.Gateway, 0, []string{"healthy\n"}, "status")
	s.stop(gw, client)
	if log := gw.log.String(); strings.Count(log, "XDP had more to tell than was read in time") != 1 || strings.Count(log, "address of no tunnel") > 2*4 {
		t.Errorf("the log: %s", log)
	}
	s.detached()
}

// flood has XDP tell of strangers until the ring is full. Its limit for them is
// taken away again and again: else it would take minutes.
func flood(t *testing.T, set *maps.Set) {
	t.Helper()
	xdp, err := ebpf.LoadPinnedProgram(filepath.Join(pins, "default", bpf.ProgXDP), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer xdp.Close()
	budget, err := ebpf.LoadPinnedMap(filepath.Join(pins, "default", bpf.MapBudget), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer budget.Close()
	// Ethernet, IPv4 from 203.0.113.9 to the gateway, UDP on 4500, one 0xFF.
	frame := []byte{5: 1, 11: 2, 12: 0x08, 14: 0x45, 17: 29, 22: 64, 23: 17, 26: 203, 0, 113, 9, 198, 51, 100, 1,
		0x11, 0x94, 0x11, 0x94, 0, 9, 0, 0, 0xff, 63: 0}
	for lost := uint64(0); lost == 0; {
		if err := budget.Put(bpf.BudgetStrangers, bpf.Budget{}); err != nil {
			t.Fatal(err)
		}
		if _, err := xdp.Run(&ebpf.RunOptions{Data: frame, Repeat: 64}); err != nil {
			t.Fatal(err)
		}
		c, err := set.Stats.Read()
		if err != nil {
			t.Fatal(err)
		}
		lost = c.EventsLost
	}
}
