package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/test/lab"
)

// TestBlindXDP: a gateway whose XDP is on another interface than its tunnels
// says so, for as long as that is so; its client, whose XDP sees them all, is
// healthy all the while.
func TestBlindXDP(t *testing.T) {
	s := newSite(t)
	s.laid("g1")
	gw, client := s.tunnelBy(strings.Replace(gatewayConfig, "addresses: [198.51.100.1]", "addresses: [198.51.100.1], interfaces: [g1]", 1))
	s.want(s.Gateway, 0, []string{"healthy\n"}, "status")
	var pings sync.WaitGroup
	ctx, enough := context.WithCancel(t.Context())
	pings.Go(func() { // ends with ctx
		for ctx.Err() == nil {
			_, _, _ = s.Clients[0].Ping(ctx, lab.Ping{Dst: inner, Count: 10, Interval: 100 * time.Millisecond, Timeout: time.Second})
		}
	})
	defer pings.Wait()
	defer enough()

	const blind = "problem    XDP on g1 does not see the ESP of 1 tunnel that arrives here: is that the right interface? ikepulse attach"
	s.await("it says that it is blind", func() error {
		if r := s.do(s.Gateway, "status"); r.code != exitDegraded || !strings.Contains(r.out, blind) {
			return errors.New(r.out)
		}
		return nil
	})
	if st, _ := s.status(s.Clients[0], "--instance", "anna"); st.State != gateway.Healthy || st.XDP.Blind != 0 {
		t.Errorf("the client is %s: %q", st.State, st.Problems)
	}
	// What is known to be missing is not said in two ways.
	s.want(s.Gateway, 0, []string{"g1: detached\n"}, "detach", "g1")
	if out := s.want(s.Gateway, exitDegraded, []string{"problem    XDP is not attached to g1"}, "status"); strings.Contains(out, "does not see") {
		t.Errorf("%s", out)
	}

	s.want(s.Gateway, 0, nil, "attach", "g0", "g1", "--config", s.dir+"/gateway.yaml")
	s.await("it is well, and has seen ESP", func() error {
		st, code := s.status(s.Gateway)
		for _, c := range st.XDP.Counters {
			if c.Name == "esp_udp_known" && c.Frames > 0 && code == 0 && st.XDP.Blind == 0 {
				return nil
			}
		}
		return errors.New(strings.Join(st.Problems, "; "))
	})
	if log := gw.log.String(); strings.Count(log, "XDP does not see ESP that arrives") != 1 {
		t.Errorf("the log: %s", log)
	}
	enough()
	s.stop(gw, client)
	s.want(s.Gateway, 0, nil, "detach", "--all")
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "--all")
}
