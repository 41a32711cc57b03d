package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
)

// TestDescriptorsUsedUp: a daemon that gets no descriptor any more serves its
// tunnels and new ones, does not spin, and answers when there are some again.
func TestDescriptorsUsedUp(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	var before unix.Rlimit
	if err := unix.Prlimit(gw.PID(), unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 3, Max: before.Max} // less than it has open
	if err := unix.Prlimit(gw.PID(), unix.RLIMIT_NOFILE, &none, nil); err != nil {
		t.Fatal(err)
	}
	for range 8 { // they wait to be accepted
		c, err := net.Dial("unix", gateway.NamesOf("default").Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	// Whoever looks for our address because of this is not to take it for gone.
	s.addressed(s.Gateway, "g0", "198.51.100.1/24", 0, netlink.AddrReplace)
	s.storm(gw)
	used := s.cpu(gw)
	time.Sleep(5 * time.Second) // some rounds of all that looks now and then
	if took := s.cpu(gw) - used; took > 200 {
		t.Errorf("%d ticks of the processor in 5 s", took)
	}
	s.ping(3)
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "terminate", "*")
	s.await("another tunnel comes up", func() error {
		if r := s.do(s.Clients[0], "--instance", "anna", "initiate", "office"); r.code != 0 {
			return errors.New(r.out)
		}
		return nil
	})
	s.ping(3)
	if err := unix.Prlimit(gw.PID(), unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	s.becomes("")
	log := gw.log.String()
	for _, wrong := range []string{"a listen address cannot be used", "XDP is off", "a barrier against packets in the clear"} {
		if strings.Contains(log, wrong) {
			t.Errorf("%s: %s", wrong, log)
		}
	}
	if strings.Count(log, "nobody is heard at the control socket until descriptors are free") != 1 || strings.Contains(log, "http: ") {
		t.Errorf("the control socket: %s", log)
	}
	s.stop(gw, client)
	s.detached()
}

// storm has more happen to a daemon's host than the sockets hold by which it hears
// of that: they have to be made anew.
func (s *site) storm(d *daemon) {
	s.t.Helper()
	if err := d.Signal(unix.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	for range 1500 {
		s.addressed(s.Gateway, "g0", "198.51.100.77/24", 0, netlink.AddrReplace)
		s.addressed(s.Gateway, "g0", "198.51.100.77/24", 0, netlink.AddrDel)
	}
	if err := d.Signal(unix.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
}

// cpu is what a process has used, in ticks of which a second has a hundred.
func (s *site) cpu(d *daemon) (ticks int) {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.PID()))
	if err != nil {
		s.t.Fatal(err)
	}
	var user, system int
	at := len(b)
	for n := range b {
		if b[n] == ')' {
			at = n + 2
		}
	}
	var skip string
	if _, err := fmt.Sscan(string(b[at:]), &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &user, &system); err != nil {
		s.t.Fatal(err)
	}
	return user + system
}
