package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

// aMinute is for make long: what takes seconds then takes a minute.
var aMinute = flag.Bool("minute", false, "go on for a minute where some seconds are enough")

// stands is which of the barriers are whole. What leaves is stopped by the
// routes and by nftables, what comes in by nftables and by the policies.
type stands struct{ routes, nftables, policies bool }

// standing compares what there is with what there was.
func (s *site) standing(want []string) (now stands) {
	s.t.Helper()
	got := s.kernelState()
	whole := func(kinds ...string) bool {
		of := func(lines []string) (out []string) {
			for _, line := range lines {
				if kind, _, _ := strings.Cut(line, " "); slices.Contains(kinds, kind) {
					out = append(out, line)
				}
			}
			return out
		}
		return slices.Equal(of(got), of(want))
	}
	return stands{routes: whole("rule", "route"), nftables: whole("table"), policies: whole("policy")}
}

// mischief is something that is done again and again, and what must stand
// beside it: nobody keeps what all barriers are taken away from at once.
type mischief struct {
	name   string
	do     func() error
	beside func(stands) bool
}

func mischiefs() (all []mischief) {
	outward := func(s stands) bool { return s.nftables }
	beside := map[string]func(stands) bool{
		"nft flush ruleset":    func(s stands) bool { return s.routes && s.policies },
		"ip xfrm policy flush": outward,
	}
	for _, a := range accidents {
		m := mischief{a.name, a.do, outward}
		if other := beside[a.name]; other != nil {
			m.beside = other
		}
		all = append(all, m)
	}
	always := func(stands) bool { return true }
	tun := "/proc/sys/net/ipv4/conf/" + gateway.NamesOf("default").TUN
	for path, value := range map[string]string{
		"/proc/sys/net/ipv4/conf/all/rp_filter":      "2",
		"/proc/sys/net/ipv4/conf/all/src_valid_mark": "0",
		tun + "/rp_filter":                           "1",
		tun + "/disable_policy":                      "0",
	} {
		all = append(all, mischief{"sysctl " + path, func() error { return os.WriteFile(path, []byte(value), 0) }, always})
	}
	return all
}

// once does one of them that may be done now, by chance.
func (s *site) once(r *rand.Rand, all []mischief, want []string, done map[string]int) {
	s.t.Helper()
	now := s.standing(want)
	m := all[r.IntN(len(all))]
	if !m.beside(now) {
		return
	}
	if err := s.Gateway.Do(func() error {
		_ = m.do() // what is not there cannot be deleted
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	done[m.name]++
}

// resident is how much memory a process has, in kB.
func (s *site) resident(d *daemon) (kB int) {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			if _, err := fmt.Sscan(value, &kB); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return kB
}

// TestDeletedAgainAndAgain: somebody who takes the barriers away in a loop, as
// network managers do, each in every way, faster and slower, gets nothing out
// and nothing in, does not keep the gateway busy, and when he ends all comes
// back at once.
func TestDeletedAgainAndAgain(t *testing.T) {
	loop := 5 * time.Second
	if *aMinute {
		loop = time.Minute
	}
	s := newForged(t)
	gw, client := s.tunnel()
	want := s.kernelState()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	all, done := mischiefs(), map[string]int{}
	degraded := false
	cpu, kB, begun := s.cpu(gw), s.resident(gw), time.Now()
	var back time.Duration
	s.hidden("deleted in a loop", func() {
		pause, grows := 10*time.Millisecond, true
		for time.Since(begun) < loop {
			s.once(r, all, want, done)
			time.Sleep(pause)
			switch {
			case grows:
				pause = pause * 6 / 5
				grows = pause < 500*time.Millisecond
			default:
				pause = pause * 5 / 6
				grows = pause < 10*time.Millisecond
			}
		}
		// The host's managers that do it all day long do it this fast.
		err := s.Gateway.Do(func() error {
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				_, _ = flushRules(), flushRoutes()
				if time.Until(end) < time.Second && !degraded {
					st, code := s.status(s.Gateway)
					degraded = code == exitDegraded && len(st.Barriers.Missing) > 0
				}
			}
			return nil
		})
		ended := time.Now()
		if err != nil {
			t.Fatal(err)
		}
		s.await("all is back", func() error {
			if got := s.kernelState(); !slices.Equal(got, want) {
				return fmt.Errorf("%q, want %q", got, want)
			}
			return nil
		})
		back = time.Since(ended)
	})
	if !degraded {
		t.Error("status has never been degraded")
	}
	took := time.Since(begun)
	cpu, kB = s.cpu(gw)-cpu, s.resident(gw)-kB
	t.Logf("%v in %v; all is back %v after the last; the daemon has used %d ms of CPU (%.1f %%) and has %d kB more",
		done, took.Round(time.Millisecond), back.Round(time.Millisecond), cpu*10, float64(cpu)*1000/float64(took.Milliseconds()), kB)
	if most := int(took.Milliseconds() / 10 / 4); cpu > most {
		t.Errorf("it has used %d ticks of CPU, more than a fourth of all", cpu)
	}
	if kB > 32<<10 { // it grows to what it needs at a time, and stays there
		t.Errorf("it has grown by %d kB", kB)
	}
	if *aMinute && len(done) < len(all) {
		t.Errorf("done: %v", done)
	}
	s.exempted()
	s.whole()
	s.settings()
	s.await("status is healthy", func() error {
		if st, code := s.status(s.Gateway); code != 0 {
			return fmt.Errorf("%q", st.Problems)
		}
		return nil
	})
	s.ping(3)
	if n := strings.Count(gw.log.String(), "somebody has taken away a barrier"); n < 2 || n > 30 {
		t.Errorf("%d lines of it in the log: %s", n, &gw.log)
	}
	s.stop(client, gw)
	s.detached()
}

// exempted waits until the policies are not asked about what the tunnels bring.
func (s *site) exempted() {
	s.t.Helper()
	s.await("disable_policy is back", func() error {
		return s.Gateway.Do(func() error {
			b, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + gateway.NamesOf("default").TUN + "/disable_policy")
			if err == nil && b[0] != '1' {
				err = errors.New("0")
			}
			return err
		})
	})
}

// settings are the host's own, which the gateway leaves to it.
func (s *site) settings() {
	s.t.Helper()
	if err := errors.Join(s.Gateway.Sysctl("net/ipv4/conf/all/rp_filter", "0"), s.Gateway.Sysctl("net/ipv4/conf/all/src_valid_mark", "1")); err != nil {
		s.t.Fatal(err)
	}
}

// TestExemptionTaken: who has the kernel ask the policies of what comes by the
// interface stops what the tunnels bring; no event tells of it, and it is put
// right all the same.
func TestExemptionTaken(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	s.ping(1)
	begun := time.Now()
	for range 3 {
		err := s.Gateway.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv4/conf/"+gateway.NamesOf("default").TUN+"/disable_policy", []byte("0"), 0)
		})
		if err != nil {
			t.Fatal(err)
		}
		s.exempted()
		s.ping(1)
	}
	if took := time.Since(begun); took > 20*time.Second { // the next look at everything is up to 30 s away
		t.Errorf("that took %v", took)
	}
	s.stop(client, gw)
	s.detached()
}
