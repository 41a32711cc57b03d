package udp

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// TestListenAny: one socket sends from each of its host's addresses, those among
// them that only a local route makes the host's, and tells which an answer came
// to; it carries the label of its port, and the marker where there is one.
func TestListenAny(t *testing.T) {
	require.Have(t, "root", "netns")
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	ns := namespace(t, l, "many")
	for _, p := range prefixes("10.8.0.0/24", "2001:db8:8::/64") {
		if err := ns.Own(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		ipv6 bool
		far  string
		from []string
	}{
		{false, "127.0.0.1:0", []string{"127.0.0.1", "127.0.0.9", "10.8.0.1", "10.8.0.254"}},
		{true, "[::1]:0", []string{"::1", "2001:db8:8::1", "2001:db8:8::ffff"}},
	} {
		for _, natt := range []bool{false, true} {
			var s *Socket
			do(t, ns, func() (err error) {
				s, err = ListenAny(t.Context(), AnyConfig{IPv6: c.ipv6, Port: 4500, NATT: natt})
				return err
			})
			t.Cleanup(func() { _ = s.Close() })
			var far *net.UDPConn
			do(t, ns, func() (err error) {
				far, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(c.far)))
				return err
			})
			t.Cleanup(func() { _ = far.Close() })
			to := far.LocalAddr().(*net.UDPAddr).AddrPort()
			got := newSink()
			stop := serve(t, s.Serve, got.deliver)
			for n, from := range c.from {
				local := netip.AddrPortFrom(netip.MustParseAddr(from), 4500)
				if err := s.Send(wire.Packet{Local: local, Remote: to, Data: bytesOf("\x4a", 60)}); err != nil {
					t.Fatalf("from %s: %v", from, err)
				}
				b, seen := receive(t, far)
				if seen.Addr() != local.Addr() || natt != (len(b) == len(marker)+60) {
					t.Errorf("from %s: %d bytes came from %v", from, len(b), seen)
				}
				sendTo(t, far, seen, b)
				got.wait(t, 1)
				if p := got.ike[n]; p.Local != local || p.Remote != to || p.NATT != natt || len(p.Data) != 60 {
					t.Errorf("to %s: delivered %v -> %v, %d bytes", from, p.Remote, p.Local, len(p.Data))
				}
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestListenAnyBuffer: what thousands are answered at once has room.
func TestListenAnyBuffer(t *testing.T) {
	require.Have(t, "root") // who may have more than the host's limit
	const buffer = 64 << 20
	s, err := ListenAny(t.Context(), AnyConfig{Buffer: buffer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	raw, err := s.conns[0].SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if e := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	if got != 2*buffer { // the kernel doubles it, for what it needs itself
		t.Errorf("a receive buffer of %d", got)
	}
}
