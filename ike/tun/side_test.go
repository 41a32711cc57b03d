package tun

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/shard"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

var _ shard.DataPlane = (*Shard)(nil)

// limit is how long anything that must happen may take.
const limit = 20 * time.Second

const (
	testTable = 450_001
	testMark  = 0x1ce
)

// side is a gateway's data plane in a namespace. One goroutine plays all of
// its shards.
type side struct {
	t      *testing.T
	ns     *lab.Namespace
	device *Device
	plane  *Plane
	loop   chan func()
	far    *side
	clock  atomic.Int64
	stamps map[uint32]int64 // of the loop
	calls  []int            // of the loop: for which shard a packet was delivered
}

func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	require.Have(t, "root", "netns", "tun")
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func namespace(t *testing.T, l *lab.Lab, name string) *lab.Namespace {
	t.Helper()
	ns, err := l.Namespace(name)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// within runs f in a namespace.
func within(t *testing.T, ns *lab.Namespace, f func() error) {
	t.Helper()
	if err := ns.Do(f); err != nil {
		t.Fatalf("in %s: %v", ns.Name(), err)
	}
}

func newSide(t *testing.T, ns *lab.Namespace, routes ...string) *side {
	t.Helper()
	return newSideBy(t, ns, nil, routes...)
}

// newSideBy is a side with a plan of what may go by tunnels only.
func newSideBy(t *testing.T, ns *lab.Namespace, plan *barrier.Plan, routes ...string) *side {
	t.Helper()
	s := &side{t: t, ns: ns, loop: make(chan func(), 1000), stamps: map[uint32]int64{}}
	c := Config{Table: testTable, Mark: testMark, Plan: plan}
	for _, r := range routes {
		c.Routes = append(c.Routes, Route{To: netip.MustParsePrefix(r)})
	}
	within(t, ns, func() (err error) {
		s.device, err = Open(c)
		return err
	})
	s.plane = New(s.device, s.send, func(spi uint32, now int64) { s.stamps[spi] = now })
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- s.plane.Serve(ctx, s.deliver) }() // stops with ctx
	go func() {                                            // stops with ctx
		for {
			select {
			case f := <-s.loop:
				f()
			case <-ctx.Done():
				ended <- nil
				return
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("Serve in %s: %v", ns.Name(), err)
			}
		}
		if err := s.device.Close(); err != nil {
			t.Errorf("close in %s: %v", ns.Name(), err)
		}
	})
	return s
}

// do runs f in the loop, as the shards do all they do.
func (s *side) do(f func()) {
	s.t.Helper()
	done := make(chan struct{})
	s.loop <- func() { f(); close(done) }
	<-done
}

func (s *side) deliver(shard int, inner []byte) {
	inner = bytes.Clone(inner)
	s.loop <- func() {
		s.calls = append(s.calls, shard)
		s.plane.Shard(shard).Transmit(s.clock.Load(), inner)
	}
}

// send is the wire: it goes straight to the other side's shard 0.
func (s *side) send(p wire.Packet) error {
	p.Data = bytes.Clone(p.Data)
	p.Local, p.Remote = p.Remote, p.Local
	far := s.far
	far.loop <- func() { far.plane.Shard(0).Receive(far.clock.Load(), p) }
	return nil
}

// mustDo wants an edge's method to succeed.
func (s *side) mustDo(f func(*Shard) error) {
	s.t.Helper()
	s.do(func() {
		if err := f(s.plane.Shard(0)); err != nil {
			s.t.Errorf("in %s: %v", s.ns.Name(), err)
		}
	})
}

func (s *side) install(c *sa.ChildSA) {
	s.t.Helper()
	s.mustDo(func(h *Shard) error { return h.InstallInbound(c) })
	s.mustDo(func(h *Shard) error { return h.InstallOutbound(c) })
	for _, a := range c.VirtualIPs {
		awaitOwn(s.t, s.ns, a.String())
	}
}

// awaitOwn waits until packets for an address that was given a moment ago come in.
func awaitOwn(t *testing.T, ns *lab.Namespace, address string) {
	t.Helper()
	if err := ns.AwaitLocal(netip.MustParseAddr(address)); err != nil {
		t.Fatal(err)
	}
}

func (s *side) remove(c *sa.ChildSA) {
	s.t.Helper()
	s.mustDo(func(h *Shard) error { return h.RemoveOutbound(c.InSPI, c.OutSPI) })
	s.mustDo(func(h *Shard) error { return h.RemoveInbound(c.InSPI, c.OutSPI) })
}

// wait waits until the counters are as wanted.
func (s *side) wait(what string, done func(Counters) bool) {
	s.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		c := s.plane.Counters()
		if done(c) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("in %s: waiting for %s, counted %+v", s.ns.Name(), what, c)
		}
	}
}

// children are the two views of one Child SA.
func children(t testing.TB, n uint32, local, remote []wire.Selector) (here, there *sa.ChildSA) {
	t.Helper()
	p, err := suite.ParseESP("aes128gcm16-esn")
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := suite.Choose([]suite.Proposal{p}, []wire.Proposal{p.Wire(1, wire.ProtoESP, []byte{1, 2, 3, 4})}, wire.ProtoESP, 0)
	if err != nil {
		t.Fatal(err)
	}
	var d suite.Key
	d.Set([]byte("SK_d"))
	k := suite.ChildKeys{EncrI: new(suite.Key), IntegI: new(suite.Key), EncrR: new(suite.Key), IntegR: new(suite.Key)}
	suite.Choice{PRF: wire.PRFHMACSHA256}.DeriveChild(k, chosen.Choice, &d, []byte{byte(n)}, []byte("Nr"))
	a, b := netip.MustParseAddrPort("198.51.100.1:4500"), netip.MustParseAddrPort("198.51.100.2:4500")
	here = &sa.ChildSA{InSPI: 0x1000 + n, OutSPI: 0x2000 + n, Suite: chosen.Choice, Local: local, Remote: remote,
		InEncr: k.EncrR, InInteg: k.IntegR, OutEncr: k.EncrI, OutInteg: k.IntegI, Path: sa.Path{Local: a, Remote: b}}
	there = &sa.ChildSA{InSPI: 0x2000 + n, OutSPI: 0x1000 + n, Suite: chosen.Choice, Local: remote, Remote: local,
		InEncr: k.EncrI, InInteg: k.IntegI, OutEncr: k.EncrR, OutInteg: k.IntegR, Path: sa.Path{Local: b, Remote: a}}
	return here, there
}

// listen opens a UDP socket in a namespace.
func listen(t *testing.T, ns *lab.Namespace, local string, socketMark int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	within(t, ns, func() (err error) {
		addr := netip.MustParseAddrPort(local)
		network := "udp4"
		if addr.Addr().Is6() {
			network = "udp6"
		}
		if c, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(addr)); err != nil || socketMark == 0 {
			return err
		}
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, socketMark) })
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c *net.UDPConn, to string, text string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(to)); err != nil {
		t.Fatal(err)
	}
}

// receive wants a datagram of that text, and tells where it came from.
func receive(t *testing.T, c *net.UDPConn, text string) netip.AddrPort {
	t.Helper()
	b := make([]byte, 2000)
	_ = c.SetReadDeadline(time.Now().Add(limit))
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(b[:n]) != text {
		t.Errorf("received %q, want %q", b[:n], text)
	}
	return from
}

// routes are those of our table.
func routes(t *testing.T, ns *lab.Namespace) (out []string) {
	t.Helper()
	within(t, ns, func() error {
		for _, family := range families {
			list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: testTable}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range list {
				line := r.Dst.String()
				switch r.Type {
				case unix.RTN_THROW:
					line = "throw " + line
				case unix.RTN_UNREACHABLE:
					line = "unreachable " + line
				}
				if r.Src != nil {
					line += " src " + r.Src.String()
				}
				out = append(out, line)
			}
		}
		return nil
	})
	return out
}

// addresses are those of the interface.
func (s *side) addresses() (out []string) {
	s.t.Helper()
	within(s.t, s.ns, func() error {
		link, err := netlink.LinkByName(s.device.Name())
		if err != nil {
			return err
		}
		list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		for _, a := range list {
			out = append(out, a.IPNet.String())
		}
		return err
	})
	return out
}
