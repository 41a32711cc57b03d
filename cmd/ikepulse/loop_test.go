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
)

// loop is how long somebody takes barriers away again and again: "make long" has
// a minute.
var loop = flag.Duration("loop", 5*time.Second, "for how long barriers are taken away again and again")

// TestDeletedAgainAndAgain: somebody who deletes the rule and the routes in a
// loop, as network managers do, gets nothing out, does not keep the gateway busy,
// and when he ends all comes back.
func TestDeletedAgainAndAgain(t *testing.T) {
	s := newForged(t)
	gw, client := s.tunnel()
	want := s.kernelState()
	s.hidden("deleted in a loop", func() {
		for end := time.Now().Add(*loop); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			err := s.Gateway.Do(func() error {
				// What is not there cannot be deleted.
				_, _ = flushRules(), flushRoutes()
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	st, code := s.status(s.Gateway)
	if code != exitDegraded || len(st.Barriers.Missing) == 0 {
		t.Errorf("status meanwhile: %d %+v", code, st.Barriers)
	}
	s.await("all is back", func() error {
		if got := s.kernelState(); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	})
	s.whole()
	s.ping(1)
	if n := strings.Count(gw.log.String(), "somebody has taken away a barrier"); n < 2 || n > 12+int(*loop/(8*time.Second)) {
		t.Errorf("%d lines of it in the log: %s", n, &gw.log)
	}
	s.stop(client, gw)
	s.detached()
}

// TestEveryAccidentInALoop: one kind of accident after the other, each again and
// again with other pauses. Nothing passes, and each time all comes back soon, however
// often that was taken away before.
func TestEveryAccidentInALoop(t *testing.T) {
	s := newForged(t)
	gw, client := s.tunnel()
	want := s.kernelState()
	random := rand.New(rand.NewPCG(8, 1))
	before := spent(t, gw)
	spells, slowest := 0, time.Duration(0)
	s.hidden("every accident in a loop", func() {
		for end := time.Now().Add(*loop); time.Now().Before(end); spells++ {
			accident := accidents[(spells+random.IntN(2))%len(accidents)]
			for range 1 + random.IntN(20) {
				// What is not there cannot be deleted.
				if err := s.Gateway.Do(func() error { _ = accident.do(); return nil }); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(1+random.IntN(50)) * time.Millisecond)
			}
			last := time.Now()
			s.await("all is back after "+accident.name, func() error {
				st, _ := s.status(s.Gateway)
				if got := s.kernelState(); !slices.Equal(got, want) || st.Daemon == nil || len(st.Barriers.Missing) > 0 {
					return fmt.Errorf("%q, want %q; %+v", got, want, st.Barriers)
				}
				return nil
			})
			slowest = max(slowest, time.Since(last))
		}
	})
	after := spent(t, gw)
	lines := strings.Count(gw.log.String(), "\n")
	t.Logf("%d spells in %v; the slowest was whole again after %v; %v of CPU; %d lines", spells, *loop, slowest, after-before, lines)
	if most := 50 + 8*spells; lines > most {
		t.Errorf("%d lines in the log of %d spells: %s", lines, spells, &gw.log)
	}
	s.await("the tunnel is up", func() error {
		if st, code := s.status(s.Gateway); code != 0 {
			return fmt.Errorf("%q", st.Problems)
		}
		return nil
	})
	s.ping(1)
	s.stop(client, gw)
	s.detached()
}

// spent is the CPU time that a daemon has used.
func spent(t *testing.T, d *daemon) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.PID()))
	_, rest, found := strings.Cut(string(stat), ") ")
	var user, system int64
	if err == nil && found {
		fields := strings.Fields(rest)
		_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	}
	if err != nil || !found {
		t.Fatal(errors.Join(err, fmt.Errorf("%q", stat)))
	}
	const tick = 10 * time.Millisecond // USER_HZ, everywhere
	return time.Duration(user+system) * tick
}
