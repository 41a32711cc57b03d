package udp

import (
	"context"
	"encoding/binary"
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

// neighbours are two namespaces on one link: near has those addresses, and far
// 198.51.100.2 and 2001:db8::2.
func neighbours(t *testing.T, addresses ...string) (near, far *lab.Namespace) {
	t.Helper()
	require.Have(t, "root", "netns")
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	near, far = namespace(t, l, "near"), namespace(t, l, "far")
	if err := lab.Connect(
		lab.End{Namespace: near, Name: "n0", Addresses: prefixes(addresses...)},
		lab.End{Namespace: far, Name: "f0", Addresses: prefixes("198.51.100.2/24", "2001:db8::2/64")},
	); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// TestBypass: a host whose policies block all UDP neither keeps our packets
// in nor out, in both families, while an ordinary socket is cut off.
func TestBypass(t *testing.T) {
	near, far := neighbours(t, "198.51.100.1/24", "2001:db8::1/64")
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

// TestForgedICMP: what is larger than the interface's MTU goes out in fragments,
// but whoever says "fragmentation needed" in the name of a router does not make
// us send more.
func TestForgedICMP(t *testing.T) {
	require.Have(t, "root", "netns")
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	near, far := namespace(t, l, "near"), namespace(t, l, "far")
	if err := lab.Connect(
		lab.End{Namespace: near, Name: "n0", Addresses: prefixes("198.51.100.1/24")},
		lab.End{Namespace: far, Name: "f0", Addresses: prefixes("198.51.100.2/24")},
	); err != nil {
		t.Fatal(err)
	}
	local, remote := netip.MustParseAddrPort("198.51.100.1:4500"), netip.MustParseAddrPort("198.51.100.2:4500")
	var ours *Socket
	var peer *net.UDPConn
	do(t, near, func() (err error) {
		ours, err = Listen(context.Background(), Config{Local: local, NATT: true})
		return err
	})
	t.Cleanup(func() { _ = ours.Close() })
	do(t, far, func() (err error) {
		peer, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(remote))
		return err
	})
	t.Cleanup(func() { _ = peer.Close() })
	send := func(size int) {
		if err := ours.SendESP(wire.Packet{Local: local, Remote: remote, Data: bytesOf("\x4a", size)}); err != nil {
			t.Fatal(err)
		}
		receive(t, peer)
	}
	send(2000) // what the interface is too small for arrives in fragments
	do(t, far, func() error { return needFragmentation(local, remote) })
	wire, err := far.Capture("f0", nil)
	if err != nil {
		t.Fatal(err)
	}
	send(1400)
	sendTo(t, peer, local, []byte{keepalive}) // the capture has all before this
	var largest, count int
	for deadline := time.Now().Add(limit); time.Now().Before(deadline) && count < 2; time.Sleep(10 * time.Millisecond) {
		count = 0
		for _, f := range wire.Frames() {
			if len(f.Data) > 34 && f.Data[23] == unix.IPPROTO_UDP {
				largest, count = max(largest, len(f.Data)), count+1
			}
		}
	}
	if largest < 1400 || count != 2 {
		t.Errorf("%d frames, the largest of %d bytes: want one datagram whole, and a keepalive", count, largest)
	}
}

// needFragmentation sends what a router would of a datagram from one to the
// other that is too large for it. RFC 1191 §4
func needFragmentation(from, to netip.AddrPort) error {
	const mtu = 600
	b := []byte{3, 4, 0, 0, 0, 0, mtu >> 8, mtu & 0xff, 0x45, 0, 5, 0xa0, 0, 1, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = append(b, 0x05, 0x8c, 0, 0)
	for _, at := range [][2]int{{8, 18}, {0, 2}} { // the inner header's checksum, then the message's
		sum := uint32(0)
		end := len(b)
		if at[0] == 8 {
			end = 28
		}
		for i := at[0]; i < end; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		binary.BigEndian.PutUint16(b[at[1]:], ^uint16(sum+sum>>16))
	}
	conn, err := net.Dial("ip4:icmp", from.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(b)
	return err
}
