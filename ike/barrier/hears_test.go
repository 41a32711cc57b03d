package barrier

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHears: a name server that a tunnel covers is heard by who asks with our mark;
// on a kernel without nft_socket he is not, and the filter says so.
func TestHears(t *testing.T) {
	const mark, asking = 7, 5353
	h := newHost(t)
	to := netip.AddrPortFrom(ours4, asking)
	fd := h.listen(h.gateway, to)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
		t.Fatal(err)
	}
	h.hear[to] = fd
	answer := udp(netip.MustParseAddrPort("192.0.2.53:53"), to)
	if !h.arrivesAtLast(answer) {
		t.Fatal("without a filter it does not arrive: the rest would prove nothing")
	}
	config := Config{Listen: []netip.Addr{ours4}, Tunnels: []Tunnel{everywhere}}
	var f *nft
	h.do(func() error {
		opened, err := NFTables(Options{Name: "ikepulse-test", TUN: "ikepulse", Mark: mark}, config.Listen)
		if err == nil {
			f = opened.(*nft)
		}
		return err
	})
	for _, blind := range []bool{false, true} {
		f.blind = blind
		h.do(func() error { return f.Set(config.Plan(Host{})) })
		if f.Hears() == blind {
			t.Errorf("blind %v: hears %v", blind, f.Hears())
		}
		if h.arrives(answer) == blind {
			t.Errorf("blind %v: an answer arrives: %v", blind, blind)
		}
	}
	h.do(f.Remove)
}
