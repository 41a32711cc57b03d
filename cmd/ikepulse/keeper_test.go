package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/test/lab"
)

// laid is a second link between the gateway and the NAT.
func (s *site) laid(name string) {
	s.t.Helper()
	err := lab.Connect(lab.End{Namespace: s.Gateway, Name: name}, lab.End{Namespace: s.NAT, Name: "n-" + name, Receiver: true})
	if err != nil {
		s.t.Fatal(err)
	}
}

// deleted takes an interface of the gateway away, with its other end.
func (s *site) deleted(name string) {
	s.t.Helper()
	err := s.Gateway.Do(func() error {
		dev, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(dev)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// forcedOff takes the program off an interface behind everybody's back.
func forcedOff(t *testing.T, ifname string) {
	t.Helper()
	l, err := link.LoadPinnedLink(filepath.Join(pins, "default", "link_"+ifname), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Detach(), l.Close()); err != nil {
		t.Fatal(err)
	}
}

// onInterface is the XDP program on one, as the kernel tells it; 0 is none.
func (s *site) onInterface(name string) (id uint32) {
	s.t.Helper()
	err := s.Gateway.Do(func() error {
		dev, err := netlink.LinkByName(name)
		if err == nil && dev.Attrs().Xdp != nil && dev.Attrs().Xdp.Attached {
			id = dev.Attrs().Xdp.ProgId
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s *site) awaitOn(name string) {
	s.t.Helper()
	s.await("XDP is on "+name, func() error {
		if s.onInterface(name) == 0 {
			return errors.New("no program is on it")
		}
		return nil
	})
}

// TestInterfacesComeAndGo: a running daemon keeps XDP where people want it,
// and all interfaces share one set of maps.
func TestInterfacesComeAndGo(t *testing.T) {
	s := newSite(t)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	s.laid("g1")
	s.laid("g2")
	s.want(s.Gateway, 0, []string{"g1: attached, native", "198.51.100.1 (as the running daemon has them)"}, "attach", "g1") // which has no address
	s.want(s.Gateway, 0, []string{"g1: attached already", "g2: attached, native"}, "attach", "g1", "g2", "--config", s.dir+"/gateway.yaml")
	s.want(s.Gateway, 0, []string{"healthy\n", "xdp        g0 native", "xdp        g1 native", "xdp        g2 native"}, "status")
	if one := s.onInterface("g0"); one == 0 || s.onInterface("g1") != one || s.onInterface("g2") != one {
		t.Errorf("programs %d, %d, %d", one, s.onInterface("g1"), s.onInterface("g2"))
	}

	forcedOff(t, "g0")
	s.deleted("g1")
	s.awaitOn("g0")
	s.want(s.Gateway, exitDegraded, []string{"degraded\n", "problem    XDP is not on g1: the interface is gone; it is attached again"}, "status")
	s.laid("g1")
	s.awaitOn("g1")
	s.want(s.Gateway, 0, []string{"healthy\n"}, "status")

	s.want(s.Gateway, 0, []string{"g2: detached\n"}, "detach", "g2")
	s.deleted("g2")
	s.laid("g2")
	s.want(s.Gateway, 0, []string{"g0: detached\n"}, "detach", "g0")
	forcedOff(t, "g1")
	s.awaitOn("g1") // by a pass that has looked at the others too
	if s.onInterface("g0") != 0 || s.onInterface("g2") != 0 {
		t.Error("what was detached is attached again")
	}
	s.want(s.Gateway, exitDegraded, []string{"problem    XDP is not attached to g0"}, "status")
	for _, says := range []string{"msg=\"XDP is off an interface\" interface=g2 why=detached", "interface=g1 why=\"the interface is gone\""} {
		if !strings.Contains(gw.log.String(), says) {
			t.Errorf("no %s in the log: %s", says, &gw.log)
		}
	}
	s.stop(gw)
	s.want(s.Gateway, 0, []string{"g1: detached", "removed"}, "detach", "--all")
}

// TestInterfaceToCome: one that is not there when the daemon starts keeps nobody
// from his tunnel, and has XDP when it comes.
func TestInterfaceToCome(t *testing.T) {
	s := newSite(t)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", strings.Replace(gatewayConfig,
		"addresses: [198.51.100.1]", "addresses: [198.51.100.1], interfaces: [g0, g7]", 1)))
	s.want(s.Gateway, exitDegraded, []string{"problem    XDP is not on g7: attaching to g7: no such interface in this network namespace", "xdp        g0 native"}, "status")
	s.laid("g7")
	s.awaitOn("g7")
	s.await("it is well", func() error {
		if st, code := s.status(s.Gateway); code != 0 {
			return fmt.Errorf("exit code %d: %q", code, st.Problems)
		}
		return nil
	})
	s.stop(gw)
	s.want(s.Gateway, 0, []string{"g0: detached", "g7: detached", "removed"}, "detach", "--all")
}

// TestForeignProgramAndDaemon: a daemon starts beside somebody's program, says
// so, and takes the interface when it is free.
func TestForeignProgramAndDaemon(t *testing.T) {
	s := newSite(t)
	s.want(s.Gateway, 0, nil, "--instance", "other", "attach", "g0")
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	s.want(s.Gateway, exitDegraded, []string{"problem    XDP is not on g0: attaching to g0: g0 has another XDP program: ikepulse_xdp, id ", "it stays"}, "status")
	was := s.onInterface("g0")
	s.want(s.Gateway, 0, nil, "--instance", "other", "detach", "g0")
	s.await("the daemon takes the interface", func() error {
		if now := s.onInterface("g0"); now == 0 || now == was {
			return fmt.Errorf("program %d, %d was somebody's", now, was)
		}
		return nil
	})
	s.want(s.Gateway, 0, []string{"healthy\n"}, "status")
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "g0")
}

// TestPinsRemoved: a daemon whose pins somebody removed says that it is blind.
func TestPinsRemoved(t *testing.T) {
	s := newSite(t)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	s.removePins()
	s.want(s.Gateway, exitDegraded, []string{"problem    what is pinned is no longer this daemon's (" + pins + "/default: not loaded)", "restart the daemon"}, "status")
	s.want(s.Gateway, exitError, []string{"the running daemon's pins are gone", "restart it"}, "attach", "g0") // it would be another set of maps
	s.stop(gw)
	s.want(s.Gateway, 0, []string{"nothing is attached"}, "detach", "--all")
}

// TestLinkFlaps: the link is deleted and made again, and goes down and up, a
// hundred times: XDP is on it each time, and the tunnel lives. With the link
// the NAT loses its mappings, so it takes a client that sends, and patience:
// faster than ARP, hardly a packet comes through.
func TestLinkFlaps(t *testing.T) {
	s := newSite(t)
	patient := strings.Replace(gatewayConfig, "{timeout: 300ms, base: 1.5, tries: 3}", "default", 1)
	gw, client := s.tunnelBy(patient)
	s.ping(1)
	var pings sync.WaitGroup
	ctx, enough := context.WithCancel(t.Context())
	pings.Go(func() { // ends with ctx
		for ctx.Err() == nil {
			// What is lost is no matter here.
			_, _, _ = s.Clients[0].Ping(ctx, lab.Ping{Dst: inner, Count: 10, Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond})
		}
	})
	defer pings.Wait()
	defer enough()
	const flaps = 100
	attached := 1
	told := func() error { // and so the link is pinned: one that goes before that was never attached
		if n := strings.Count(gw.log.String(), `msg="XDP attached" interface=g0`); n != attached {
			return fmt.Errorf("attached %d times, want %d", n, attached)
		}
		return nil
	}
	for n := range flaps {
		if n%2 == 0 {
			s.deleted(lab.GatewayLink)
			if err := s.relay(); err != nil {
				t.Fatal(err)
			}
			attached++
		} else {
			s.downUp(lab.GatewayLink)
		}
		s.awaitOn(lab.GatewayLink)
		s.await("it is told", told)
	}
	s.want(s.Gateway, 0, []string{"healthy\n", "tunnels    1 up"}, "status")
	s.await("the tunnel carries", func() error {
		sent, received, err := s.Clients[0].Ping(t.Context(), lab.Ping{Dst: inner, Count: 3, Interval: 50 * time.Millisecond, Timeout: time.Second})
		if err == nil && received < sent {
			err = fmt.Errorf("%d of %d", received, sent)
		}
		return err
	})
	st, _ := s.status(s.Gateway)
	if c := st.IKE.Counters; c["dead"] != 0 || c["established"] != 1 {
		t.Errorf("dead: %d, established: %d", c["dead"], c["established"])
	}
	if err := told(); err != nil {
		t.Error(err)
	}
	if st.State != gateway.Healthy {
		t.Errorf("%s: %q", st.State, st.Problems)
	}
	s.stop(gw, client)
	s.detached()
}

// relay makes the link between gateway and NAT as it was.
func (s *site) relay() error {
	net := func(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, 24)} }
	return lab.Connect(lab.End{Namespace: s.Gateway, Name: lab.GatewayLink, Addresses: net(lab.GatewayAddr)},
		lab.End{Namespace: s.NAT, Name: "n0", Addresses: net(lab.NATAddr), Receiver: true})
}

func (s *site) downUp(name string) {
	s.t.Helper()
	err := s.Gateway.Do(func() error {
		dev, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetDown(dev), netlink.LinkSetUp(dev))
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) removePins() {
	s.t.Helper()
	if err := os.RemoveAll(filepath.Join(pins, "default")); err != nil {
		s.t.Fatal(err)
	}
}
