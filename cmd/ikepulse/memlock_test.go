package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

// memlock is the variable that gives a copy of this binary a limit of locked
// memory, in bytes.
const memlock = "IKEPULSE_TEST_MEMLOCK"

// limitLocked does so, for this process.
func limitLocked() error {
	text, limited := os.LookupEnv(memlock)
	if !limited {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return err
	}
	return unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: n, Max: n})
}

// lockedRecords is how many kB of the instance's records a process keeps out of
// swap.
func (s *site) lockedRecords(d *daemon) (kb int) {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", d.PID()))
	if err != nil {
		s.t.Fatal(err)
	}
	ours := false
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		switch {
		case strings.Contains(fields[0], "-"):
			ours = fields[len(fields)-1] == gateway.NamesOf("default").Records
		case ours && fields[0] == "Locked:":
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				s.t.Fatal(err)
			}
			kb += n
		}
	}
	return kb
}

// TestLimitOfLockedMemory: as many of the records are kept out of swap as the limit
// allows; where that is not all, it is said once, with what all of them take, and
// the tunnels come up as ever.
func TestLimitOfLockedMemory(t *testing.T) {
	const table, chunk = 4, 64 // kB
	for name, c := range map[string]struct {
		limit  string
		locked int
		says   string
	}{
		"none":    {"0", 0, "the limit of locked memory is 0 kB (ulimit -l, LimitMEMLOCK=), and they take up to 1280 kB"},
		"for one": {fmt.Sprint((table + chunk + 8) << 10), table + chunk, "the limit of locked memory is 76 kB (ulimit -l, LimitMEMLOCK=), and they take up to 1280 kB"},
		"for all": {fmt.Sprint(2 << 20), table + 2*chunk, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			anna := []string{"--instance", "anna"}
			client := s.run(s.Clients[0], append(anna, "--config", s.write("anna.yaml", manyConfig(s.dir, fit+1)))...)
			t.Setenv(memlock, c.limit)
			config := s.write("gateway.yaml", strings.Replace(gatewayConfig, "{id: anna@example.org,", `{id: "*@example.org",`, 1))
			gw := s.runPrepared(s.Gateway, without(unix.CAP_IPC_LOCK), "--config", config)
			for i := range fit + 1 {
				s.want(s.Clients[0], 0, nil, append(anna, "initiate", fmt.Sprintf("c%d", i))...)
			}
			s.ping(3)
			s.want(s.Gateway, 0, []string{"healthy\n"}, "status")
			if kb := s.lockedRecords(gw); kb != c.locked {
				t.Errorf("%d kB of the records are locked, want %d", kb, c.locked)
			}
			const swap = "records may be written to a swap device: they hold keys"
			log, told := gw.log.String(), 0
			if c.says != "" {
				told = 1
			}
			if strings.Count(log, swap) != told || !strings.Contains(log, c.says) {
				t.Errorf("the log: %s", log)
			}
			s.stop(gw, client)
			s.detached()
		})
	}
}
