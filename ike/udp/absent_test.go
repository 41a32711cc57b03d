package udp

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// TestAddressComesLater: sockets are bound before their host has the address,
// serve it when it comes, send nothing from it while it is away, and go on when
// it is back. Somebody else's port is refused even so.
func TestAddressComesLater(t *testing.T) {
	near, far := neighbours(t, "198.51.100.9/24", "2001:db8::9/64")
	for _, c := range []struct {
		address string
		remote  netip.AddrPort
	}{
		{"198.51.100.1/24", netip.MustParseAddrPort("198.51.100.2:4500")},
		{"2001:db8::1/64", netip.MustParseAddrPort("[2001:db8::2]:4500")},
	} {
		address := netip.MustParsePrefix(c.address)
		local := netip.AddrPortFrom(address.Addr(), 4500)
		var ours *Socket
		var peer *net.UDPConn
		do(t, near, func() (err error) {
			if ours, err = Listen(context.Background(), Config{Local: local, NATT: true, Readers: 2}); err != nil {
				return err
			}
			if other, err := Listen(context.Background(), Config{Local: local, NATT: true}); err == nil {
				t.Errorf("two groups on %v", other.Local())
			}
			return nil
		})
		t.Cleanup(func() { _ = ours.Close() })
		do(t, far, func() (err error) {
			peer, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(c.remote))
			return err
		})
		t.Cleanup(func() { _ = peer.Close() })
		e := NewEndpoints(ours)
		got := newSink()
		stop := serve(t, e.Serve, got.deliver)
		for range 2 {
			e.SetAbsent([]netip.Addr{local.Addr()})
			if err := e.SendESP(wire.Packet{Local: local, Remote: c.remote, Data: bytesOf("\x4a", 60)}); err == nil {
				t.Errorf("%v: sent from an address that is not here", local)
			}
			do(t, near, func() error { return assign(address, netlink.AddrReplace) })
			e.SetAbsent(nil)
			if err := e.SendESP(wire.Packet{Local: local, Remote: c.remote, Data: bytesOf("\x4a", 60)}); err != nil {
				t.Errorf("%v: %v", local, err)
			}
			if _, from := receive(t, peer); from != local {
				t.Errorf("came from %v, want %v", from, local)
			}
			arrives(t, got, func() { sendTo(t, peer, local, bytesOf("\x4a", 60)) })
			do(t, near, func() error { return assign(address, netlink.AddrDel) })
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

// assign changes what addresses n0 has; an IPv6 one is usable at once.
func assign(p netip.Prefix, change func(netlink.Link, *netlink.Addr) error) error {
	link, err := netlink.LinkByName("n0")
	if err != nil {
		return err
	}
	const noDAD = 0x02 // IFA_F_NODAD
	return change(link, &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, Flags: noDAD})
}

// arrives sends ESP until one more has come: neighbours have to learn.
func arrives(t *testing.T, s *sink, send func()) {
	t.Helper()
	count := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.esp)
	}
	before := count()
	for deadline := time.Now().Add(limit); count() == before; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no ESP packet came")
		}
		send()
	}
}
