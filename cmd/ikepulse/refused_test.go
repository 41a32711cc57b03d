package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// without takes capabilities from the thread that forks, and so from the
// process, for good.
func without(capabilities ...uintptr) func() error {
	return func() error {
		var errs []error
		for _, c := range capabilities {
			errs = append(errs, unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0))
		}
		return errors.Join(errs...)
	}
}

// refusing makes the kernel answer one command of bpf(2) with an error, for
// the process that this thread forks.
func refusing(command uint32, with unix.Errno) func() error {
	const number, argument = 0, 16 // of struct seccomp_data
	load, equal, ret := uint16(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS), uint16(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K), uint16(unix.BPF_RET|unix.BPF_K)
	filter := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_BPF, Jf: 3},
		{Code: load, K: argument},
		{Code: equal, K: command, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(with)},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	return func() error {
		p := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&p)), 0, 0)
	}
}

// noBPFFSHere takes every bpffs from the process that this thread forks: there
// may be one over another.
func noBPFFSHere() error {
	err := unix.Unshare(unix.CLONE_NEWNS)
	for err == nil {
		err = unix.Unmount("/sys/fs/bpf", 0)
	}
	if err == unix.EINVAL { // none is left
		return nil
	}
	return err
}

// TestWithoutXDP: whatever the kernel refuses, the gateway serves tunnels, says
// what is missing, and finds the dead as ever.
func TestWithoutXDP(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func() error
		says    string
		life    bool // looked at to its end
	}{
		"no bpffs":              {noBPFFSHere, "XDP is off: /sys/fs/bpf/ikepulse/default: no bpffs: pins would not outlive this process; mount one (mount -t bpf bpf /sys/fs/bpf)", false},
		"no rights":             {without(unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN), "this process lacks CAP_BPF and CAP_PERFMON", true},
		"programs are refused":  {refusing(unix.BPF_PROG_LOAD, unix.EPERM), "refused by the kernel's security policy", false},
		"no memory for maps":    {refusing(unix.BPF_MAP_CREATE, unix.ENOMEM), "no memory for maps of this capacity", false},
		"pins are refused":      {refusing(unix.BPF_OBJ_PIN, unix.EPERM), "refused by the kernel's security policy", false},
		"no bpf system call":    {refusing(unix.BPF_PROG_LOAD, unix.ENOSYS), "XDP is off: ", false},
		"the verifier's answer": {refusing(unix.BPF_PROG_LOAD, unix.EACCES), "XDP is off: ", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			gw := s.runPrepared(s.Gateway, c.prepare, "--config", s.write("gateway.yaml", gatewayConfig))
			s.want(s.Gateway, exitDegraded, []string{"degraded\n", "problem    XDP is off: ", c.says, "restart the daemon", "xdp        not loaded"}, "status")
			if !strings.Contains(gw.log.String(), "going on without XDP") {
				t.Errorf("the log: %s", &gw.log)
			}
			client := s.run(s.Clients[0], "--instance", "anna", "--config", s.write("anna.yaml", fmt.Sprintf(clientConfig, s.dir)))
			s.want(s.Clients[0], 0, []string{"office is up\n"}, "--instance", "anna", "initiate", "office")
			s.ping(3)
			s.want(s.Gateway, 0, []string{"anna@example.org", "  esp 0s"}, "sas")
			s.want(s.Gateway, 0, []string{"anna@example.org", "established"}, "peers")
			if c.life {
				s.lifeWithoutXDP(client)
				s.stop(gw)
			} else {
				s.stop(gw, client)
			}
			s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "c0")
		})
	}
}

// lifeWithoutXDP is what a tunnel sees after it is up.
func (s *site) lifeWithoutXDP(client *daemon) {
	s.t.Helper()
	s.await("keepalives come to the socket", func() error {
		if out := s.want(s.Gateway, 0, nil, "stats"); !strings.Contains(out, "keepalives") {
			return errors.New(out)
		}
		return nil
	})
	s.want(s.Gateway, exitError, []string{"the running daemon goes without XDP", "restart it"}, "attach", "g0")
	if err := client.Kill(); err == nil {
		s.t.Error("killed, and ended well")
	}
	s.await("the dead is found", func() error {
		if st, _ := s.status(s.Gateway); st.IKE.Counters["dead"] != 1 {
			return fmt.Errorf("%v", st.IKE.Counters)
		}
		return nil
	})
}
