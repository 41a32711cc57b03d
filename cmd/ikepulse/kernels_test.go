package main

import (
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestKernelsWithout: on a kernel that lacks nftables or XFRM what is left keeps
// both directions closed, after a kill -9 as well; where both are missing nothing
// leaves, and status says what is not stopped.
func TestKernelsWithout(t *testing.T) {
	for _, k := range []struct {
		name    string
		lacks   []uint32
		kinds   []string
		comesIn bool
	}{
		{"nftables", []uint32{unix.NETLINK_NETFILTER}, []string{"routes", "XFRM policies"}, false},
		{"XFRM", []uint32{unix.NETLINK_XFRM}, []string{"routes", "nftables"}, false},
		{"both", []uint32{unix.NETLINK_NETFILTER, unix.NETLINK_XFRM}, []string{"routes", "nftables"}, true},
	} {
		t.Run(k.name, func(t *testing.T) {
			s := newForged(t)
			config := s.write("gateway.yaml", gatewayConfig)
			run := func() *daemon {
				return s.runPrepared(s.Gateway, func() error { return lackNetlink(k.lacks) }, "--config", config)
			}
			closed := func(when string, f func()) {
				t.Helper()
				if !k.comesIn {
					s.hidden(when, f)
					return
				}
				c := s.chat()
				f()
				if out, in := c.end(); out != 0 || in == 0 {
					t.Errorf("%s: %d packets left in the clear, %d came in", when, out, in)
				}
			}
			gw := run()
			closed("no tunnel", func() { time.Sleep(100 * time.Millisecond) })
			st, code := s.status(s.Gateway)
			if want := map[bool]int{false: 0, true: exitDegraded}[k.comesIn]; code != want || !slices.Equal(st.Barriers.Kinds, k.kinds) {
				t.Errorf("status exits %d, want %d: %+v", code, want, st.Barriers)
			}
			closed("kill -9", func() {
				if err := gw.Signal(unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				<-gw.Done()
				time.Sleep(100 * time.Millisecond)
				gw = run()
			})
			s.stop(gw)
			if left := s.kernelState(); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
			s.want(s.Gateway, 0, nil, "detach", "--all")
		})
	}
}

// lackNetlink has the calling thread, and whatever it starts, find a kernel
// without some protocols of netlink.
func lackNetlink(protocols []uint32) error {
	const (
		systemCall = 0  // of struct seccomp_data
		family     = 16 // its first argument, on little-endian machines
		protocol   = 32
	)
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	equal := func(value uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: yes, Jf: no}
	}
	end := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	filter := []unix.SockFilter{
		load(systemCall), equal(unix.SYS_SOCKET, 1, 0), end(unix.SECCOMP_RET_ALLOW),
		load(family), equal(unix.AF_NETLINK, 1, 0), end(unix.SECCOMP_RET_ALLOW),
		load(protocol),
	}
	for _, p := range protocols {
		filter = append(filter, equal(p, 0, 1), end(unix.SECCOMP_RET_ERRNO|uint32(unix.EPROTONOSUPPORT)))
	}
	filter = append(filter, end(unix.SECCOMP_RET_ALLOW))
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}
