package lab_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

var (
	anywhere = netip.MustParseAddrPort("0.0.0.0:4500")
	gateway  = netip.AddrPortFrom(lab.GatewayAddr, 4500)
)

// All clients have the NAT's address, with a random port each, and a mapping
// is kept until it is forgotten.
func TestMasquerade(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	s := standard(t, 2)
	gw := listen(t, s.Gateway, anywhere)
	first, second := listen(t, s.Clients[0], anywhere), listen(t, s.Clients[1], anywhere)

	send(t, first, []byte("one"), gateway)
	_, from := receive(t, gw)
	if from.Addr() != lab.NATAddr || from.Port() == 4500 {
		t.Errorf("the first client appears as %s, want %s with another port than 4500", from, lab.NATAddr)
	}
	send(t, second, []byte("two"), gateway)
	if _, other := receive(t, gw); other.Addr() != lab.NATAddr || other == from {
		t.Errorf("the second client appears as %s; the first was %s", other, from)
	}
	send(t, gw, []byte("back"), from)
	if got, sender := receive(t, first); got != "back" || sender != gateway {
		t.Errorf("the first client got %q from %s", got, sender)
	}
	send(t, first, []byte("again"), gateway)
	if _, again := receive(t, gw); again != from {
		t.Errorf("the mapping moved by itself from %s to %s", from, again)
	}
}

func TestRebind(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	s := standard(t, 1)
	gw, client := listen(t, s.Gateway, anywhere), listen(t, s.Clients[0], anywhere)
	send(t, client, []byte("one"), gateway)
	_, before := receive(t, gw)
	if err := s.Masq.Rebind(); err != nil {
		t.Fatal(err)
	}
	send(t, client, []byte("two"), gateway)
	_, after := receive(t, gw)
	if after.Addr() != lab.NATAddr || after == before {
		t.Errorf("after the flush the client appears as %s, as before", after)
	}
	send(t, gw, []byte("stale"), before)
	send(t, gw, []byte("fresh"), after)
	if got, _ := receive(t, client); got != "fresh" {
		t.Errorf("the client got %q by the forgotten mapping", got)
	}
}

func TestRebindFrom(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	s := standard(t, 2)
	gw := listen(t, s.Gateway, anywhere)
	clients := []*net.UDPConn{listen(t, s.Clients[0], anywhere), listen(t, s.Clients[1], anywhere)}
	var before [2]netip.AddrPort
	seen := func(i int) netip.AddrPort {
		send(t, clients[i], []byte("hello"), gateway)
		_, from := receive(t, gw)
		return from
	}
	for i := range before {
		before[i] = seen(i)
	}
	if err := s.Masq.RebindFrom(lab.ClientAddr(0)); err != nil {
		t.Fatal(err)
	}
	if now := seen(1); now != before[1] {
		t.Errorf("the second client appears as %s, and was %s", now, before[1])
	}
	if now := seen(0); now == before[0] {
		t.Errorf("after the flush the first client appears as %s, as before", now)
	}
}

func TestRemoveNAT(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	s := standard(t, 1)
	gw, client := listen(t, s.Gateway, anywhere), listen(t, s.Clients[0], anywhere)
	send(t, client, []byte("one"), gateway)
	receive(t, gw)
	if err := s.Masq.Remove(); err != nil {
		t.Fatal(err)
	}
	send(t, client, []byte("two"), gateway)
	want := netip.AddrPortFrom(lab.ClientAddr(0), 4500)
	if _, from := receive(t, gw); from != want {
		t.Errorf("without NAT the client appears as %s, want %s", from, want)
	}
	ping := lab.Ping{Dst: lab.GatewayAddr, Count: 1, Timeout: 100 * time.Millisecond}
	if _, received, err := s.Clients[0].Ping(t.Context(), ping); received != 0 || err != nil {
		t.Errorf("the gateway answers a private address: %d received, %v", received, err)
	}
}

func TestPing(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	s := standard(t, 1)
	gw6, nat6 := netip.MustParsePrefix("2001:db8::1/64"), netip.MustParsePrefix("2001:db8::fe/64")
	if err := s.Gateway.Address(lab.GatewayLink, gw6); err != nil {
		t.Fatal(err)
	}
	if err := s.NAT.Address("n0", nat6); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		from     *lab.Namespace
		src, dst netip.Addr
		received int
		fails    bool
	}{
		{"through the NAT", s.Clients[0], netip.Addr{}, lab.GatewayAddr, 5, false},
		{"with a source", s.Clients[0], lab.ClientAddr(0), lab.GatewayAddr, 5, false},
		{"IPv6", s.NAT, nat6.Addr(), gw6.Addr(), 5, false},
		{"itself", s.NAT, netip.Addr{}, lab.NATAddr, 5, false},
		{"nobody there", s.NAT, netip.Addr{}, netip.MustParseAddr("198.51.100.77"), 0, false},
		{"no route", s.Gateway, netip.Addr{}, lab.ClientAddr(0), 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := lab.Ping{Src: tt.src, Dst: tt.dst, Count: 5, Interval: 5 * time.Millisecond, Timeout: limit}
			if tt.received == 0 {
				p.Timeout = 100 * time.Millisecond
			}
			sent, received, err := tt.from.Ping(t.Context(), p)
			if sent != 5 || received != tt.received || (err != nil) != tt.fails {
				t.Errorf("sent %d, received %d, %v; want 5, %d, failure %v", sent, received, err, tt.received, tt.fails)
			}
		})
	}
}

func TestPingSourceMustBeOwn(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	s := standard(t, 1)
	p := lab.Ping{Src: lab.ClientAddr(7), Dst: lab.GatewayAddr, Count: 1}
	if sent, _, err := s.Clients[0].Ping(t.Context(), p); sent != 0 || err == nil {
		t.Errorf("sent %d from an address of somebody else, %v", sent, err)
	}
}

func TestPingCancelled(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	s := standard(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	p := lab.Ping{Dst: netip.MustParseAddr("198.51.100.77"), Count: 1, Timeout: time.Hour}
	if _, _, err := s.NAT.Ping(ctx, p); err != context.Canceled {
		t.Errorf("Ping = %v, want that it was cancelled", err)
	}
}

func TestStandardBounds(t *testing.T) {
	for _, n := range []int{0, lab.MaxClients + 1} {
		if _, err := lab.New().Standard(n); err == nil {
			t.Errorf("a network of %d clients was built", n)
		}
	}
}
