package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	actGID  = 54_001
	readGID = 54_002
)

// as runs a command as an ordinary user of one group. A socket that has a path
// needs no network, so it is nowhere near the site's.
func (s *site) as(gid uint32, args ...string) ran {
	s.t.Helper()
	var out bytes.Buffer
	cmd := exec.CommandContext(s.t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asProgram+"=yes")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: gid}}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return ran{cmd.ProcessState.ExitCode(), out.String()}
}

// TestGroups: who may read sees what root sees, and changes nothing, whatever
// umask the daemon was started with.
func TestGroups(t *testing.T) {
	s := newSite(t)
	if err := os.RemoveAll("/run/ikepulse"); err != nil { // which the daemon makes
		t.Fatal(err)
	}
	before := unix.Umask(0o077)
	defer unix.Umask(before)
	gw, client := s.tunnelBy(gatewayConfig + "control: {group: 54001, read_group: 54002}\n")
	for _, c := range []struct {
		gid  uint32
		code int
		says string
		args []string
	}{
		{readGID, 0, "healthy\n", []string{"status"}},
		{readGID, 0, "anna@example.org", []string{"peers"}},
		{readGID, 0, "anna@example.org", []string{"sas"}},
		{readGID, exitError, "permission denied: members of group 54002 may only read; root and members of group 54001 may act\n", []string{"terminate", "*"}},
		{readGID, exitError, "permission denied: members of group 54002 may only read", []string{"probe", "*"}},
		{readGID, exitError, "permission denied: members of group 54002 may only read", []string{"initiate", "roadwarriors"}},
		{65534, exitError, "permission denied: only root and members of group 54001 may act here, and members of group 54002 may read", []string{"status"}},
		{65534, exitError, "permission denied: only root and members of group 54001 may act here", []string{"sas"}},
		{65534, exitError, "permission denied: only root and members of group 54001 may act here", []string{"events"}},
		{65534, exitError, "permission denied: only root and members of group 54001 may act here", []string{"terminate", "*"}},
		{actGID, 0, "probing 1 IKE SA\n", []string{"probe", "*"}},
		{actGID, 0, "deleting 1 IKE SA\n", []string{"terminate", "anna@example.org"}},
	} {
		if r := s.as(c.gid, c.args...); r.code != c.code || !strings.Contains(r.out, c.says) {
			t.Errorf("%q by group %d: exit code %d, want %d, and %q: %s", c.args, c.gid, r.code, c.code, c.says, r.out)
		}
	}
	s.stop(gw, client)
	s.detached()
}

// TestStranger: a user without rights is told so by every command beside a daemon
// that runs, and never that none does; also where the socket is elsewhere.
func TestStranger(t *testing.T) {
	s := newSite(t)
	for name, c := range map[string]struct {
		config string
		args   []string
	}{
		"the usual socket": {gatewayConfig, nil},
		"a socket of ours": {gatewayConfig + "control: {socket: " + s.dir + "/elsewhere.sock}\n", nil},
		"no pins":          {gatewayConfig, []string{"--no-pin"}},
	} {
		t.Run(name, func(t *testing.T) {
			gw := s.run(s.Gateway, append(c.args, "--config", s.write("gateway.yaml", c.config))...)
			for _, args := range [][]string{{"status"}, {"peers"}, {"sas"}, {"stats"}, {"events"}, {"terminate", "*"}, {"detach", "g0"}, {"detach", "--all"}, {"attach", "lo"}} {
				r := s.as(65534, args...)
				if r.code != exitError || !strings.Contains(r.out, "permission denied") || strings.Contains(r.out, "not running") || strings.Contains(r.out, "no daemon") {
					t.Errorf("%q: exit code %d: %s", args, r.code, r.out)
				}
			}
			s.stop(gw)
			s.want(s.Gateway, 0, nil, "detach", "--all")
		})
	}
}

// TestDetachBesideADaemonWithoutXDP: what another process attached goes, and what
// belongs to the daemon stays.
func TestDetachBesideADaemonWithoutXDP(t *testing.T) {
	s := newSite(t)
	gw := s.runPrepared(s.Gateway, without(unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN), "--config", s.write("gateway.yaml", gatewayConfig))
	before := s.kernelState()
	s.want(s.Gateway, 0, []string{"a daemon of instance default is running: its records, rules and barriers were left alone"}, "detach", "--all")
	if after := s.kernelState(); len(before) == 0 || !slices.Equal(before, after) {
		t.Errorf("barriers %q, and after detach %q", before, after)
	}
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "--all")
}

// TestDetachBesideADaemon: what belongs to a daemon that runs is left to it, and
// that is said.
func TestDetachBesideADaemon(t *testing.T) {
	s := newSite(t)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	before := s.kernelState()
	s.want(s.Gateway, 0, []string{"the daemon runs and keeps the maps, its records, rules and barriers"}, "detach", "--all")
	if after := s.kernelState(); len(before) == 0 || !slices.Equal(before, after) {
		t.Errorf("barriers %q, and after detach %q", before, after)
	}
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "--all")
}
