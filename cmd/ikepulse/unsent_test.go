package main

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// TestHostDoesNotSend: while this host has no way to a peer, his tunnel stays, and
// goes on when there is one again; then he can be found dead as ever.
func TestHostDoesNotSend(t *testing.T) {
	s := newSite(t)
	gw, client := s.tunnel()
	s.ping(3)
	none := &netlink.Route{Dst: netlink.NewIPNet(lab.NATAddr.AsSlice()), Type: unix.RTN_UNREACHABLE}
	route := func(f func(*netlink.Route) error) {
		t.Helper()
		if err := s.Gateway.Do(func() error { return f(none) }); err != nil {
			t.Fatal(err)
		}
	}
	route(netlink.RouteAdd)
	// A whole round takes 2.4 s.
	s.await("more tries than there are in a round could not be sent", func() error {
		if st, _ := s.status(s.Gateway); st.IKE.Counters["ike_send_errors"] < 9 {
			return fmt.Errorf("%v", st.IKE.Counters)
		}
		return nil
	})
	st, _ := s.status(s.Gateway)
	if st.IKE.Up != 1 || st.IKE.Counters["dead"] != 0 {
		t.Errorf("%d up, %v", st.IKE.Up, st.IKE.Counters)
	}
	route(netlink.RouteDel)
	s.ping(3)
	s.want(s.Gateway, 0, []string{"healthy\n", "1 up"}, "status")
	if err := client.Kill(); err == nil {
		t.Error("killed, and ended well")
	}
	s.await("the dead is found", func() error {
		if st, _ := s.status(s.Gateway); st.IKE.Counters["dead"] != 1 {
			return fmt.Errorf("%v", st.IKE.Counters)
		}
		return nil
	})
	s.stop(gw)
	s.want(s.Gateway, 0, nil, "detach", "--all")
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "--all")
}
