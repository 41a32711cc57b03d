package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/test/lab"
)

// secretText is in every inner packet of these tests, and must never be seen
// outside.
const secretText = "canary that only a tunnel may carry"

// chatter sends, all the time, from the gateway to an address that its tunnels
// cover, and from outside to the gateway as if by a tunnel.
type chatter struct {
	s       *forged
	outside *lab.Capture
	heard   *net.UDPConn // at the gateway: what came in
	quit    chan struct{}
	ended   chan struct{}
}

// covered is an address of the pool.
var covered = netip.MustParseAddr("10.99.0.200")

// forged is a site with a host beside the gateway that has a covered address.
type forged struct {
	*site
	forger *lab.Namespace
}

// newForged makes one whose gateway would send anything into the clear, and takes
// anything from there.
func newForged(t *testing.T) *forged {
	t.Helper()
	s := newSite(t)
	forger, err := s.lab.Namespace("forger")
	if err == nil {
		err = lab.Connect(lab.End{Namespace: s.Gateway, Name: "g1", Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/24")}},
			lab.End{Namespace: forger, Name: "f0", Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.2/24"), netip.PrefixFrom(covered, 32)}})
	}
	if err == nil {
		err = forger.Route(netip.PrefixFrom(inner, 32), netip.MustParseAddr("198.18.0.1"))
	}
	if err == nil {
		err = s.Gateway.Route(netip.MustParsePrefix("0.0.0.0/0"), lab.NATAddr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &forged{s, forger}
}

func (s *forged) chat() *chatter {
	s.t.Helper()
	c := &chatter{s: s, quit: make(chan struct{}), ended: make(chan struct{})}
	var err error
	c.outside, err = s.Gateway.Capture(lab.GatewayLink, func(f lab.Frame) bool {
		return f.Outgoing && strings.Contains(string(f.Data), secretText)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	var from, forger *net.UDPConn
	open := func(ns *lab.Namespace, address string) (u *net.UDPConn) {
		err := ns.Do(func() (err error) {
			u, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
			return err
		})
		if err != nil {
			s.t.Fatal(err)
		}
		return u
	}
	from, c.heard, forger = open(s.Gateway, "0.0.0.0:0"), open(s.Gateway, "10.0.0.1:7"), open(s.forger, covered.String()+":0")
	go func() { // stops with quit
		defer close(c.ended)
		for {
			select {
			case <-c.quit:
				from.Close()
				forger.Close()
				return
			case <-time.After(2 * time.Millisecond):
			}
			// An error is a barrier that says so.
			_, _ = from.WriteToUDPAddrPort([]byte(secretText), netip.AddrPortFrom(covered, 7))
			_, _ = forger.WriteToUDPAddrPort([]byte(secretText), netip.AddrPortFrom(inner, 7))
		}
	}()
	return c
}

// end wants that nothing has passed in either direction.
func (c *chatter) end() (out, in int) {
	close(c.quit)
	<-c.ended
	frames, err := c.outside.Stop()
	if err != nil {
		c.s.t.Error(err)
	}
	b := make([]byte, 100)
	_ = c.heard.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for {
		if _, err := c.heard.Read(b); err != nil {
			break
		}
		in++
	}
	c.heard.Close()
	return len(frames), in
}

// hidden wants that nothing passes while f does its worst.
func (s *forged) hidden(what string, f func()) {
	s.t.Helper()
	c := s.chat()
	time.Sleep(20 * time.Millisecond) // the talk has begun
	f()
	out, in := c.end()
	if out != 0 || in != 0 {
		s.t.Errorf("%s: %d packets left in the clear, %d came in", what, out, in)
	}
}

// whole waits until status says that nothing is missing.
func (s *site) whole() {
	s.t.Helper()
	s.await("the barriers stand", func() error {
		st, _ := s.status(s.Gateway)
		if st.Daemon == nil || len(st.Barriers.Missing) > 0 {
			return fmt.Errorf("%+v", st.Problems)
		}
		return nil
	})
}

// accidents are what a host's other managers do, with what it takes to see that
// it has been put right.
var accidents = []struct {
	name string
	do   func() error
}{
	{"ip rule flush", flushRules},
	{"ip route flush table", flushRoutes},
	{"nft flush ruleset", flushRuleset},
	{"ip xfrm policy flush", netlink.XfrmPolicyFlush},
	{"link down", func() error { return setLink(false) }},
	{"link down and up", func() error { return errors.Join(setLink(false), setLink(true)) }},
	{"link deleted", func() error {
		link, err := netlink.LinkByName(gateway.NamesOf("default").TUN)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	}},
}

func flushRules() error {
	rules, err := netlink.RuleList(unix.AF_INET)
	errs := []error{err}
	for _, r := range rules {
		if r.Table != unix.RT_TABLE_LOCAL && r.Table != unix.RT_TABLE_MAIN {
			errs = append(errs, netlink.RuleDel(&r))
		}
	}
	return errors.Join(errs...)
}

func flushRoutes() error {
	table := &netlink.Route{Table: gateway.NamesOf("default").Table}
	routes, err := netlink.RouteListFiltered(unix.AF_INET, table, netlink.RT_FILTER_TABLE)
	errs := []error{err}
	for _, r := range routes {
		errs = append(errs, netlink.RouteDel(&r))
	}
	return errors.Join(errs...)
}

func flushRuleset() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.FlushRuleset()
	return c.Flush()
}

func setLink(up bool) error {
	link, err := netlink.LinkByName(gateway.NamesOf("default").TUN)
	switch {
	case err != nil:
		return err
	case up:
		return netlink.LinkSetUp(link)
	}
	return netlink.LinkSetDown(link)
}

// kernelState is what of the gateway's barriers stands in the kernel.
func (s *site) kernelState() (lines []string) {
	s.t.Helper()
	return s.stateOf(s.Gateway, "default")
}

// stateOf is what of an instance's barriers stands in a namespace.
func (s *site) stateOf(ns *lab.Namespace, instance string) (lines []string) {
	s.t.Helper()
	err := ns.Do(func() error {
		table := gateway.NamesOf(instance).Table
		rules, err := netlink.RuleList(unix.AF_INET)
		for _, r := range rules {
			if r.Table == table {
				lines = append(lines, "rule")
			}
		}
		routes, err2 := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		for _, r := range routes {
			lines = append(lines, fmt.Sprintf("route %v type %d", r.Dst, r.Type))
		}
		c, err3 := nftables.New()
		if err3 != nil {
			return err3
		}
		tables, err3 := c.ListTablesOfFamily(nftables.TableFamilyINet)
		for _, t := range tables {
			lines = append(lines, "table "+strings.TrimSuffix(t.Name, "."))
		}
		policies, err4 := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
		for _, p := range policies {
			lines = append(lines, fmt.Sprintf("policy %v %v %v %v", p.Dir, p.Action, p.Src, p.Priority))
		}
		return errors.Join(err, err2, err3, err4)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

// TestBarriers: whatever somebody takes away, nothing leaves and nothing enters
// in the clear, and it is put back; and after a kill -9 until the next start.
func TestBarriers(t *testing.T) {
	s := newForged(t)
	// What would pass without barriers does: else the rest proves nothing.
	s.await("without a gateway both directions are open", func() error {
		c := s.chat()
		time.Sleep(100 * time.Millisecond)
		if out, in := c.end(); out == 0 || in == 0 {
			return fmt.Errorf("%d packets left and %d came in", out, in)
		}
		return nil
	})
	gw, client := s.tunnel()
	s.ping(1)
	s.hidden("nothing", func() { time.Sleep(100 * time.Millisecond) })
	want := s.kernelState()
	if len(want) < 4 {
		t.Fatalf("barriers: %q", want)
	}
	for _, a := range accidents {
		s.hidden(a.name, func() {
			if err := s.Gateway.Do(a.do); err != nil {
				t.Errorf("%s: %v", a.name, err)
			}
			begun := time.Now()
			defer func() {
				if time.Since(begun) > 15*time.Second { // half of the time after which it is looked at without an event
					t.Errorf("%s: no event has told of it", a.name)
				}
			}()
			s.await(a.name+": all is back", func() error {
				if got := s.kernelState(); !slices.Equal(got, want) {
					return fmt.Errorf("%q, want %q", got, want)
				}
				return nil
			})
		})
		s.whole()
		s.ping(1)
	}
	s.hidden("kill -9", func() {
		if err := gw.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-gw.Done()
		time.Sleep(100 * time.Millisecond)
		s.want(s.Gateway, exitDegraded, []string{"a daemon that was killed has left its barriers"}, "status")
		gw = s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	})
	s.stop(client, gw)
	if !strings.Contains(gw.log.String(), "the barriers are taken away") {
		t.Errorf("a clean end says nothing of the barriers: %s", &gw.log)
	}
	if left := s.kernelState(); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	s.detached()
}
