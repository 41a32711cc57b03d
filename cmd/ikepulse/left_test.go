package main

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLeftByAnEarlierRun: where a daemon cannot use the program that one before
// it has left on an interface, it says so, and detach takes away all of it.
func TestLeftByAnEarlierRun(t *testing.T) {
	for name, prepare := range map[string]func() error{
		"no rights":                  without(unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN),
		"programs are refused":       refusing(unix.BPF_PROG_LOAD, unix.EPERM),
		"pins cannot even be opened": refusing(unix.BPF_OBJ_GET, unix.EPERM),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			file := s.write("gateway.yaml", gatewayConfig)
			before := s.run(s.Gateway, "--config", file)
			_ = before.Kill() // which is no good end
			program := s.onInterface("g0")
			gw := s.runPrepared(s.Gateway, prepare, "--config", file)
			s.want(s.Gateway, exitDegraded, []string{"degraded\n", "problem    XDP is off: ",
				"problem    an earlier run's XDP program is still on g0: ", "; ikepulse detach g0\n",
				fmt.Sprintf("xdp        g0 native, prog %d ikepulse_xdp", program), ", left by an earlier run\n"}, "status")
			if log := gw.log.String(); !strings.Contains(log, fmt.Sprintf("goes on by itself\" interface=g0 program=%d", program)) {
				t.Errorf("the log: %s", log)
			}
			s.want(s.Gateway, 0, []string{"g0: detached\n", "removed " + pins + "/default"}, "detach", "g0")
			if out := s.want(s.Gateway, exitDegraded, []string{"problem    XDP is off: ", "xdp        not loaded\n"}, "status"); strings.Contains(out, "earlier run") {
				t.Errorf("after detach: %s", out)
			}
			s.stop(gw)
			s.nothingRuns()
		})
	}
}
