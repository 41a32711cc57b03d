package udp

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// TestMark: every socket of a group marks what it sends.
func TestMark(t *testing.T) {
	require.Have(t, "root")
	s := listen(t, Config{Local: loopbacks[0], Readers: 3, Mark: 0x1ce})
	for i, c := range s.conns {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var mark int
		_ = raw.Control(func(fd uintptr) { mark, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK) })
		if err != nil || mark != 0x1ce {
			t.Errorf("socket %d: mark %#x, %v", i, mark, err)
		}
	}
}

// TestBypass: a host whose policies block all UDP neither keeps our packets
// in nor out, in both families, while an ordinary socket is cut off.
func TestBypass(t *testing.T) {
	require.Have(t, "root", "netns")
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	near, far := namespace(t, l, "near"), namespace(t, l, "far")
	if err := lab.Connect(
		lab.End{Namespace: near, Name: "n0", Addresses: prefixes("198.51.100.1/24", "2001:db8::1/64")},
		lab.End{Namespace: far, Name: "f0", Addresses: prefixes("198.51.100.2/24", "2001:db8::2/64")},
	); err != nil {
		t.Fatal(err)
	}
	do(t, near, blockUDP)
	for _, c := range []struct{ local, remote netip.AddrPort }{
		{netip.MustParseAddrPort("198.51.100.1:4500"), netip.MustParseAddrPort("198.51.100.2:4500")},
		{netip.MustParseAddrPort("[2001:db8::1]:4500"), netip.MustParseAddrPort("[2001:db8::2]:4500")},
	} {
		var ours *Socket
		var plain, peer *net.UDPConn
		do(t, near, func() (err error) {
			if ours, err = Listen(context.Background(), Config{Local: c.local, NATT: true, Readers: 2}); err != nil {
				return err
			}
			plain, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.local.Addr(), 0)))
			return err
		})
		do(t, far, func() (err error) {
			peer, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(c.remote))
			return err
		})
		for _, closer := range []interface{ Close() error }{ours, plain, peer} {
			t.Cleanup(func() { _ = closer.Close() })
		}
		if ours.Bypass() != nil {
			t.Errorf("%v: %v", c.local, ours.Bypass())
		}
		if _, err := plain.WriteToUDPAddrPort([]byte("blocked"), c.remote); err == nil {
			t.Errorf("%v: the policies block nothing", c.local)
		}
		got := newSink()
		stop := serve(t, ours.Serve, got.deliver)
		sendTo(t, peer, plain.LocalAddr().(*net.UDPAddr).AddrPort(), []byte("blocked"))
		sendTo(t, peer, c.local, bytesOf("\x4a", 60))
		got.wait(t, 1)
		if err := stop(); err != nil {
			t.Errorf("%v: %v", c.local, err)
		}
		_ = plain.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, _, err := plain.ReadFromUDPAddrPort(make([]byte, 100)); err == nil {
			t.Errorf("%v: the policies let %d bytes in", c.local, n)
		}
		if err := ours.Send(wire.Packet{Local: c.local, Remote: c.remote, Data: bytesOf("\x01", 60)}); err != nil {
			t.Errorf("%v: %v", c.local, err)
			continue
		}
		receive(t, peer)
	}
}

// blockUDP leaves ICMP, without which IPv6 finds no neighbour.
func blockUDP() error {
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		_, dst, err := net.ParseCIDR(all)
		if err != nil {
			return err
		}
		for _, dir := range []netlink.Dir{netlink.XFRM_DIR_IN, netlink.XFRM_DIR_OUT} {
			p := &netlink.XfrmPolicy{Src: dst, Dst: dst, Proto: unix.IPPROTO_UDP, Dir: dir, Action: netlink.XFRM_POLICY_BLOCK}
			if err := netlink.XfrmPolicyAdd(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func namespace(t *testing.T, l *lab.Lab, name string) *lab.Namespace {
	t.Helper()
	n, err := l.Namespace(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func do(t *testing.T, n *lab.Namespace, f func() error) {
	t.Helper()
	if err := n.Do(f); err != nil {
		t.Fatalf("in namespace %s: %v", n.Name(), err)
	}
}

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}
