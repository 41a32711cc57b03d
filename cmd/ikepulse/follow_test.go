package main

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/follow"
	"github.com/ikepulse/ikepulse/test/lab"
)

// followed is what a person sees of a rekey, a forger and a peer who moved.
func followed() []follow.Fact {
	at := time.Date(2026, 11, 22, 13, 55, 16, 0, time.Local)
	sa := func(change func(*follow.SA)) *follow.SA {
		s := &follow.SA{InSPI: "c1234567", Protocol: "esp", Local: addrPort("198.51.100.1:4500"),
			Remote: addrPort("203.0.113.9:61201"), Reqid: 3}
		change(s)
		return s
	}
	return []follow.Fact{
		{Time: at, Event: follow.EventAdded, SA: sa(func(*follow.SA) {})},
		{Time: at, Event: follow.EventFollowing, Summary: &follow.Summary{SAs: 1}},
		{Time: at.Add(time.Minute), Event: follow.EventHeard, SA: sa(func(*follow.SA) {}), Heard: "203.0.113.9:24884"},
		{Time: at.Add(2 * time.Minute), Event: follow.EventMoved, SA: sa(func(s *follow.SA) { s.Remote = addrPort("203.0.113.9:24884") })},
		{Time: at.Add(3 * time.Minute), Event: follow.EventAlarm, SA: sa(func(s *follow.SA) {
			s.Alarm, s.Why = follow.AlarmUnauthenticated, "the integrity check fails"
		})},
		{Time: at.Add(4 * time.Minute), Event: follow.EventUntracked, SA: sa(func(*follow.SA) {}), Error: "the map is full"},
		{Time: at.Add(5 * time.Minute), Event: follow.EventResync, Lost: true},
		{Time: at.Add(6 * time.Minute), Event: follow.EventOff, Interface: "eth0", Note: "the interface is gone"},
		{Time: at.Add(7 * time.Minute), Event: follow.EventOn, Interface: "eth0", Mode: "native"},
		{Event: follow.EventSA, SA: sa(func(s *follow.SA) {
			s.OutSPI, s.UpMS, s.IdleMS, s.Proof, s.ProofMS = "d2345678", ms(3*time.Hour+12*time.Minute), ms(2*time.Second), "esp", ms(64*time.Second)
			s.Keepalives, s.KeepaliveMS, s.Alarm = 12345, ms(4*time.Second), follow.AlarmUnauthenticated
		})},
		{Event: follow.EventSA, SA: sa(func(s *follow.SA) {
			s.InSPI, s.Remote, s.Reqid, s.UpMS, s.Proof = "00000100", addrPort("[2001:db8::9]:0"), 4, ms(time.Second), "hint"
		})},
		{Event: follow.EventSummary, Summary: &follow.Summary{SAs: 2, Alarms: 1, Absorbed: 12345, Strangers: 2, ESPKnown: 811990, ESPUnknown: 14}},
	}
}

func TestRenderFollow(t *testing.T) {
	golden(t, "follow", printed(t, func(w io.Writer) error {
		text := &followText{env: env{stdout: w, terminal: true}}
		for _, f := range followed() {
			if err := text.tell(f); err != nil {
				return err
			}
		}
		return nil
	}))
	golden(t, "follow-json", printed(t, func(w io.Writer) error {
		e := json.NewEncoder(w)
		for _, f := range followed() {
			f.Time = time.Time{} // in no zone of the machine's
			if err := e.Encode(f); err != nil {
				return err
			}
		}
		return nil
	}))
}

// TestFollowLive: follow is what runs an instance, and says so; its maps are
// not taken for our own.
func TestFollowLive(t *testing.T) {
	s := newSite(t)
	var out lab.Transcript
	p := s.start(s.Gateway, &out, nil, "follow", "g0", "--every", "20ms", "--capacity", "64")
	s.await("follow says what there is", func() error {
		if !strings.Contains(out.String(), "0 SAs, 0 alarms; keepalives: 0 absorbed") {
			return errors.New(out.String())
		}
		return nil
	})
	s.want(s.Gateway, 0, []string{"following\n", "g0 native", "keepalive: absorb", "0 SPIs of another daemon"}, "status")
	s.want(s.Gateway, exitError, []string{"instance default is running already"}, "follow", "g0")
	for _, line := range []string{"events", "probe *", "terminate *", "initiate office"} {
		s.want(s.Gateway, exitError, []string{"what runs here is ikepulse follow"}, strings.Fields(line)...)
	}
	s.want(s.Gateway, 0, []string{"g0: attached already"}, "attach", "g0")
	s.want(s.Gateway, exitError, []string{"only it knows which of its peers are behind a NAT"}, "attach", "g0", "--keepalive", "answer")
	s.want(s.Gateway, 0, []string{"g0: detached\n", "ikepulse follow runs and keeps the maps"}, "detach", "g0")
	s.want(s.Gateway, exitDegraded, []string{"degraded\n", "problem    XDP is attached to no interface", "0 SPIs of another daemon"}, "status")
	s.awaitSaid(&out, "xdp off          g0  detached")
	s.want(s.Gateway, 0, []string{"g0: attached"}, "attach", "g0")
	s.write("anna.psk", psk)
	s.want(s.Gateway, exitError, []string{"what runs here follows another daemon"}, "attach", "--config", s.write("gateway.yaml", gatewayConfig))
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r := s.end(p, &out); r.code != 0 {
		t.Errorf("%+v", r)
	}
	s.want(s.Gateway, exitDegraded, []string{"not running\n", "0 SPIs that no daemon follows"}, "status")
	s.want(s.Gateway, 0, []string{"g0: detached\n", "removed /sys/fs/bpf/ikepulse/default"}, "detach", "g0")
	var refused lab.Transcript
	if r := s.end(s.start(s.Gateway, &refused, noBPFFSHere, "follow", "g0"), &refused); r.code != exitError || !strings.Contains(r.out, "\n(that is for \"run\": what follow attaches is to outlive it)\n") {
		t.Errorf("%+v", r)
	}
	s.want(s.Gateway, 0, nil, "attach", "g0")
	s.want(s.Gateway, exitError, []string{"following another daemon is false, true is wanted", "detach it from g0 first"}, "follow", "g0")
	s.want(s.Gateway, 0, nil, "detach", "g0")
}

// TestFollowKeepsXDP: an interface that came back, or lost the program by
// force, has it again, and whoever looks on is told.
func TestFollowKeepsXDP(t *testing.T) {
	s := newSite(t)
	s.laid("g1")
	var out lab.Transcript
	p := s.start(s.Gateway, &out, nil, "follow", "g1", "--every", "0", "--capacity", "64")
	s.awaitSaid(&out, "xdp on           g1 native\n")
	first := s.onInterface("g1")
	s.deleted("g1")
	s.awaitSaid(&out, "xdp off          g1  the interface is gone")
	s.want(s.Gateway, exitDegraded, []string{"degraded\n", "problem    XDP is not on g1: the interface is gone"}, "status")
	told := func(times int) {
		t.Helper()
		s.await("each attachment is told", func() error {
			if strings.Count(out.String(), "xdp on           g1 native\n") != times {
				return errors.New(out.String())
			}
			return nil
		})
	}
	s.laid("g1")
	told(2) // and so the new link is pinned
	forcedOff(t, "g1")
	told(3)
	if now := s.onInterface("g1"); now != first {
		t.Errorf("program %d is on it, not %d", now, first)
	}
	s.want(s.Gateway, 0, []string{"following\n", "g1 native"}, "status")
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r := s.end(p, &out); r.code != 0 {
		t.Errorf("%+v", r)
	}
	s.want(s.Gateway, 0, nil, "detach", "g1")
}

// awaitSaid waits for a piece of output.
func (s *site) awaitSaid(out *lab.Transcript, what string) {
	s.t.Helper()
	s.await(what, func() error {
		if !strings.Contains(out.String(), what) {
			return errors.New(out.String())
		}
		return nil
	})
}

// Nothing is begun, not even the maps.
func TestFollowRefuses(t *testing.T) {
	for line, says := range map[string]string{
		"follow":                           "follow takes the names of interfaces",
		"follow eth0 --keepalive answer":   "only it knows which of its peers are behind a NAT",
		"follow eth0 --keepalive sometime": "want absorb or pass",
	} {
		code, _, errs := run(t, append([]string{"--instance", "refused"}, strings.Fields(line)...)...)
		if code == 0 || !strings.Contains(errs, says) {
			t.Errorf("%s: %d, %s", line, code, errs)
		}
	}
}
