package tun

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// TestManyTunnels: those of 20,000 sites, all of them up, come back when
// somebody deletes the interface, and one that ends touches no other's route.
func TestManyTunnels(t *testing.T) {
	const sites = 20_000
	network := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>15), byte(i >> 7), byte(i << 1), 0}), 24)
	}
	var tunnels []barrier.Tunnel
	for i := range sites {
		tunnels = append(tunnels, barrier.Tunnel{Remote: []netip.Prefix{network(i)}})
	}
	begun := time.Now()
	s := newSideBy(t, namespace(t, newLab(t), "gateway"), planOf(tunnels...))
	t.Logf("begun in %v", time.Since(begun).Round(time.Millisecond))
	up := func(i int) *sa.ChildSA {
		c, _ := children(t, uint32(i), subnets("10.0.0.0/24"), subnets(network(i).String()))
		c.InSPI, c.OutSPI = uint32(0x100000+i), uint32(0x200000+i)
		return c
	}
	var all []*sa.ChildSA
	for i := range sites {
		all = append(all, up(i))
	}
	begun = time.Now()
	s.mustDo(func(h *Shard) error {
		for _, c := range all {
			if err := h.InstallInbound(c); err != nil {
				return err
			}
			if err := h.InstallOutbound(c); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("%d are up after %v", sites, time.Since(begun).Round(time.Millisecond))
	whole := func(when string) {
		t.Helper()
		begun := time.Now()
		if what, err := s.device.Missing(); what != "" || err != nil {
			t.Errorf("%s: missing %q, %v", when, what, err)
		}
		t.Logf("%s: found whole in %v", when, time.Since(begun).Round(time.Millisecond))
	}
	whole("at first")
	within(t, s.ns, func() error {
		link, err := netlink.LinkByName(s.device.Name())
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	if what, err := s.device.Missing(); what == "" || err != nil {
		t.Errorf("nothing is missing, %v", err)
	}
	begun = time.Now()
	within(t, s.ns, s.device.Restore)
	t.Logf("restored in %v", time.Since(begun).Round(time.Millisecond))
	whole("after the interface was deleted")
	before := s.plane.Counters()
	s.plane.send = func(wire.Packet) error { return nil }
	send(t, listen(t, s.ns, "0.0.0.0:0", 0), network(7).Addr().Next().String()+":7", "hello")
	s.wait("a packet", func(c Counters) bool { return c.Out+c.NoTunnel > before.Out+before.NoTunnel })
	begun = time.Now()
	s.mustDo(func(h *Shard) error {
		for _, c := range all[:1000] {
			if err := h.RemoveInbound(c.InSPI, c.OutSPI); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("1,000 are gone after %v", time.Since(begun).Round(time.Millisecond))
	whole("without a thousand")
}
