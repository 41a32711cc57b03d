package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// stranger sends keepalives from the NAT that no tunnel stands for.
func (s *site) stranger() net.Conn {
	s.t.Helper()
	var c net.Conn
	err := s.NAT.Do(func() (err error) {
		c, err = net.Dial("udp4", net.JoinHostPort(lab.GatewayAddr.String(), "4500"))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// strangers are the blocks of "stats --watch --json", of each the counter of
// keepalives of strangers.
func strangers(t *testing.T, printed string) (out []rated) {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(printed))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var block []rated
		if err := json.Unmarshal(lines.Bytes(), &block); err != nil {
			break // still being written
		}
		for _, r := range block {
			if r.Name == "stranger_dropped" {
				out = append(out, r)
			}
		}
	}
	return out
}

// TestStatsWatch: the rates of real frames, without a daemon: times the time
// that was measured they are what was sent, no frame lost and none twice.
func TestStatsWatch(t *testing.T) {
	s := newSite(t)
	s.want(s.Gateway, 0, nil, "attach", "g0")
	from := s.stranger()
	var out lab.Transcript
	began := time.Now()
	p := s.start(s.Gateway, &out, nil, "stats", "--watch", "200ms", "--json")
	await := func(frames uint64) {
		t.Helper()
		s.await("it shows them", func() error {
			if all := strangers(t, out.String()); len(all) == 0 || all[len(all)-1].Count != frames {
				return errors.New(out.String())
			}
			return nil
		})
	}
	await(0)
	const frames, pause = 150, 8 * time.Millisecond
	for range frames {
		if _, err := from.Write([]byte{0xff}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pause)
	}
	await(frames)
	if err := p.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	r := s.end(p, &out)
	took := time.Since(began)
	if r.code != 0 || strings.Contains(r.out, "ikepulse:") {
		t.Errorf("Ctrl-C: exit code %d: %s", r.code, r.out)
	}

	all := strangers(t, r.out)
	var before uint64
	var measured time.Duration
	busy := 0
	for i, b := range all {
		if b.PerSecond == nil || b.Reset || *b.PerSecond < 0 {
			t.Fatalf("%+v", b)
		}
		gained := float64(b.Count - before)
		// The interval is rounded to milliseconds, the rate is not.
		if got := *b.PerSecond * float64(b.IntervalMS) / 1000; math.Abs(got-gained) > gained/float64(b.IntervalMS)+0.001 {
			t.Errorf("%v frames came, the rate says %v: %+v", gained, got, b)
		}
		if gained > 0 {
			busy++
		}
		if i > 0 { // its interval is the time since the one before
			apart := b.Time.Sub(all[i-1].Time).Milliseconds()
			if apart-b.IntervalMS > 2 || b.IntervalMS-apart > 2 {
				t.Errorf("%d ms after the one before, and says %d ms", apart, b.IntervalMS)
			}
		}
		before, measured = b.Count, measured+time.Duration(b.IntervalMS)*time.Millisecond
	}
	if busy < 2 || measured > took || measured < frames*pause {
		t.Errorf("%d blocks with frames, %v in sum, %v in all", busy, measured, took)
	}
	s.want(s.Gateway, 0, []string{"xdp  stranger_dropped  150  0.000  drop\n"}, "stats", "--rate", "100ms")
	text := s.want(s.Gateway, 0, nil, "stats", "--rate", "100ms", "--json")
	if rates := strangers(t, strings.ReplaceAll(text, "\n", "")); len(rates) != 1 || rates[0].IntervalMS < 100 || *rates[0].PerSecond != 0 {
		t.Errorf("%s", text)
	}
	s.want(s.Gateway, 0, nil, "detach", "g0")
	s.want(s.Gateway, exitDegraded, []string{"nothing is loaded"}, "stats", "--rate", "100ms")
}
