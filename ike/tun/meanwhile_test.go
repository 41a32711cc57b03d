package tun

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMeanwhile: where a host has many addresses that come and go, tunnels are
// taken all the same, and nothing is called missing that is there.
func TestMeanwhile(t *testing.T) {
	s := newSide(t, namespace(t, newLab(t), "laptop"))
	n := s.device.net
	const many = 600
	var there *netlink.Handle
	var lo netlink.Link
	within(t, s.ns, func() (err error) {
		if there, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		lo, err = there.LinkByName("lo")
		for k := range many {
			err = errors.Join(err, there.AddrAdd(lo, address(netip.AddrFrom4([4]byte{10, 7, byte(k >> 8), byte(k)}))))
		}
		return err
	})
	defer there.Close()
	vip := []netip.Addr{netip.MustParseAddr("10.99.0.7")}
	if err := n.own(vip); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { // stops with stop
		a := address(netip.MustParseAddr("10.8.0.1"))
		for {
			select {
			case <-stop:
				ended <- nil
				return
			case <-time.After(10 * time.Millisecond): // else no list would ever be whole
			}
			if err := errors.Join(there.AddrAdd(lo, a), there.AddrDel(lo, a)); err != nil {
				ended <- err
				return
			}
		}
	}()
	interrupted := 0
	to := prefixes("10.20.0.0/16")
	for deadline := time.Now().Add(limit); interrupted < 3 && time.Now().Before(deadline); {
		if _, err := n.handle.AddrList(nil, unix.AF_INET); errors.Is(err, netlink.ErrDumpInterrupted) {
			interrupted++
		}
		if err := n.free([]netip.Addr{netip.MustParseAddr("10.99.0.8")}, netip.MustParseAddr("198.51.100.1")); err != nil {
			t.Fatal(err)
		}
		if err := n.lead(1, to, 0, nil, subnets("10.30.0.0/16")); err != nil {
			t.Fatal(err)
		}
		if err := n.unlead(1, to); err != nil {
			t.Fatal(err)
		}
		if what, err := missingIn(s.ns, s.device); what != "" || err != nil {
			t.Fatalf("missing %q, %v", what, err)
		}
	}
	close(stop)
	if err := errors.Join(<-ended, n.disown(vip)); err != nil {
		t.Error(err)
	}
	if interrupted == 0 {
		t.Error("no list has changed while it was read: this proves nothing")
	}
}
