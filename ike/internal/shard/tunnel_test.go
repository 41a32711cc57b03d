package shard

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

func TestTunnel(t *testing.T) {
	inBubble(t, func(w *world) {
		w.behindNAT(clientAddr, natAddr, 7000)
		client, gateway := w.pair(4)
		client.wantEvents("connecting", "nat detected", "established", "child up")
		gateway.wantEvents("nat detected", "established", "child up")
		if got := gateway.held().tracked[gateway.inSPI()]; got != (track{netip.MustParseAddrPort(gatewayAddr + ":4500"),
			netip.MustParseAddrPort(natAddr + ":11500"), true}) {
			t.Errorf("the gateway tracks %+v", got)
		}
		if got := client.held().tracked[client.inSPI()]; got.natted {
			t.Errorf("the client takes its peer for the one behind the NAT: %+v", got)
		}
		client.transmit(client.inSPI(), "there")
		gateway.transmit(gateway.inSPI(), "and back")
		w.after(time.Second)
		if len(gateway.held().inner) != 1 || string(gateway.held().inner[0][4:]) != "there" || len(client.held().inner) != 1 ||
			string(client.held().inner[0][4:]) != "and back" {
			t.Errorf("carried %q and %q", gateway.held().inner, client.held().inner)
		}
		if n, err := client.group.Terminate(context.Background(), "home"); n != 1 || err != nil {
			t.Errorf("terminated %d, %v", n, err)
		}
		w.after(time.Second)
		client.wantEvents("closed: deleted")
		gateway.wantEvents("closed: deleted by peer")
		client.wantOrderly()
		gateway.wantOrderly()
	})
}

func TestTunnelOverLossyNetwork(t *testing.T) {
	inBubble(t, func(w *world) {
		w.loss = 0.3
		gateway := w.site(gatewayAddr, 3, roadwarriors())
		for range 10 {
			client := w.site(clientAddr, 2, home("anna@example.org"))
			for client.group.Initiate(context.Background(), "home") != nil {
			}
			client.stop()
		}
		w.loss = 0
		w.after(10 * time.Minute)
		if got := gateway.status(); got.Up > 0 || got.Handshakes.HalfOpen > 0 {
			t.Errorf("after the last client has gone: %+v", got)
		}
		gateway.wantOrderly()
	})
}

// A gateway that calls, and a client that answers: both roles in one group.
func TestBothRoles(t *testing.T) {
	inBubble(t, func(w *world) {
		a := w.site(gatewayAddr, 2, append(roadwarriors(), mirror(t, "branch", "vpn.example.org", "branch.example.org", clientAddr)...))
		b := w.site(clientAddr, 2, append(home("anna@example.org"), mirror(t, "head", "branch.example.org", "vpn.example.org", gatewayAddr)...))
		if err := a.group.Initiate(context.Background(), "branch"); err != nil {
			t.Fatal(err)
		}
		if err := b.group.Initiate(context.Background(), "home"); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*site{a, b} {
			roles := map[string]int{}
			for _, p := range s.peers() {
				roles[p.Role+" "+p.State]++
			}
			if len(roles) != 2 || roles["initiator established"] != 1 || roles["responder established"] != 1 {
				t.Errorf("%v has %v", s.addr, roles)
			}
		}
	})
}

// mirror is a connection without pools that either side can call.
func mirror(t *testing.T, name, local, remote, at string) []*policy.Connection {
	t.Helper()
	c := roadwarriors()[0]
	conn := *c
	conn.Name, conn.LocalID, conn.RemoteID = name, identity(local), pattern(remote)
	conn.Pins, conn.Pools, conn.Child.Local = []netip.Addr{netip.MustParseAddr(at)}, nil, nil
	conn.Hosts = []policy.Host{{Addr: netip.MustParseAddr(at)}}
	return []*policy.Connection{&conn}
}

// The endpoint of a peer behind a NAT moves while traffic flows, and any socket
// receives anything: the SA stays where it is, and follows.
func TestPortMovesUnderTraffic(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.behindNAT(clientAddr, natAddr, 7000)
		client, gateway := w.pair(4)
		in := gateway.inSPI()
		for i := range 20 {
			w.mu.Lock()
			n.shift += 11
			w.mu.Unlock()
			for range 30 {
				client.transmit(client.inSPI(), "x")
				gateway.transmit(in, "y")
				w.after(100 * time.Millisecond)
			}
			want := netip.AddrPortFrom(n.outer, 4500+n.shift)
			if got := gateway.held().tracked[in].peer; got != want {
				t.Fatalf("move %d: tracked at %v, want %v", i, got, want)
			}
			if p := gateway.peers(); len(p) != 1 || p[0].Remote != want {
				t.Fatalf("move %d: %+v", i, p)
			}
		}
		if got := len(gateway.held().inner); got != 600 {
			t.Errorf("the gateway received %d of 600 packets", got)
		}
		// What goes back is lost from a move to the next packet of the
		// client, and no longer.
		if got := len(client.held().inner); got < 600-2*20 {
			t.Errorf("the client received %d of 600 packets", got)
		}
		// An IKE message of the gateway finds the client where he is now.
		if _, err := gateway.group.Probe(context.Background(), "anna@example.org"); err != nil {
			t.Error(err)
		}
		w.after(time.Second)
		if e := gateway.lastEvent(); e.Kind != sa.ProbeAnswered {
			t.Errorf("the last event is %v", e.Kind)
		}
	})
}

// Whoever forges an address without being able to authenticate moves nothing.
func TestForgedESPMovesNothing(t *testing.T) {
	inBubble(t, func(w *world) {
		w.behindNAT(clientAddr, natAddr, 7000)
		_, gateway := w.pair(2)
		in := gateway.inSPI()
		was := gateway.held().tracked[in]
		forged := espPacket(in, []byte("x"))
		forged[4]++
		gateway.group.DeliverESP(packetsTo(gateway, "203.0.113.9:4500", forged))
		w.after(time.Second)
		if gateway.held().tracked[in] != was || gateway.counter(cRefusedESP) != 1 {
			t.Errorf("tracked at %v, was %v; %d refused", gateway.held().tracked[in], was, gateway.counter(cRefusedESP))
		}
	})
}

// Who asks for a tunnel while it is being deleted gets another one, and is not
// told that the old one is up; who deletes it meanwhile has the last word.
func TestInitiateWhileDeleting(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(2)
		for range 3 {
			if n, err := client.group.Terminate(context.Background(), "home"); n != 1 || err != nil {
				t.Fatalf("terminated %d, %v", n, err)
			}
			client.initiate()
			if peers := client.peers(); len(peers) != 1 || peers[0].Child == nil || peers[0].State != "established" {
				t.Fatalf("is up, but there are %+v", peers)
			}
		}
		terminate := func() {
			if _, err := client.group.Terminate(context.Background(), "home"); err != nil {
				t.Error(err)
			}
		}
		terminate()
		asked := make(chan error, 1)
		go func() { asked <- client.group.Initiate(context.Background(), "home") }() // ends with the SA
		w.after(time.Millisecond)
		terminate()
		if err := <-asked; err == nil {
			t.Error("is up, although it was deleted once more")
		}
		w.after(time.Minute)
		client.wantOrderly()
		gateway.wantOrderly()
	})
}
