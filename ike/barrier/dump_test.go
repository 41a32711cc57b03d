package barrier

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// TestLookMeanwhile: a host whose addresses are so many that they come in several
// messages, and that change all the time, is seen all the same.
func TestLookMeanwhile(t *testing.T) {
	require.Have(t, "root", "netns")
	l := lab.New()
	defer l.Close()
	ns, err := l.Namespace("gateway")
	if err != nil {
		t.Fatal(err)
	}
	const many = 600
	var here, there *netlink.Handle
	var lo netlink.Link
	comesAndGoes := &netlink.Addr{IPNet: ipNet("10.8.0.1/32")}
	err = ns.Do(func() (err error) {
		if here, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		if there, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		lo, err = here.LinkByName("lo")
		for n := range many {
			a := netip.AddrFrom4([4]byte{10, 7, byte(n >> 8), byte(n)})
			err = errors.Join(err, here.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(single(a).String())}))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	defer there.Close()
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { // stops with stop
		for {
			select {
			case <-stop:
				ended <- nil
				return
			case <-time.After(10 * time.Millisecond): // else no list would ever be whole
			}
			if err := errors.Join(there.AddrAdd(lo, comesAndGoes), there.AddrDel(lo, comesAndGoes)); err != nil {
				ended <- err
				return
			}
		}
	}()
	interrupted := 0
	for deadline := time.Now().Add(20 * time.Second); interrupted < 3 && time.Now().Before(deadline); {
		if _, err := here.AddrList(nil, netlink.FAMILY_ALL); errors.Is(err, netlink.ErrDumpInterrupted) {
			interrupted++
		}
		if _, err := Look(here, "ikepulse", 4500); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if interrupted == 0 {
		t.Error("no list has changed while it was read: this proves nothing")
	}
}
