package shard

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/directory"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// started is a client's connection that is to be up.
func started() []*policy.Connection {
	conns := home("anna@example.org")
	conns[0].Start, conns[0].DPD = true, idle
	return conns
}

// calls are when a site has begun handshakes.
func (s *site) begun() (at []mono.Time) {
	for _, ev := range s.held().events {
		if ev.Kind == sa.Connecting {
			at = append(at, ev.At)
		}
	}
	return at
}

// TestStartComesBack: whichever way a tunnel ends that is to be up, it is called
// again by itself, and soon; status says meanwhile that it is down, and why.
func TestStartComesBack(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(w *world, client, gateway *site)
		why  string
	}{
		{"the peer deletes it", func(w *world, client, gateway *site) {
			if _, err := gateway.group.Terminate(context.Background(), "*"); err != nil {
				t.Error(err)
			}
		}, "the peer deleted it"},
		{"the peer dies", func(w *world, client, gateway *site) {
			gateway.vanish()
			for client.status().DownTotal == 0 {
				w.after(100 * time.Millisecond)
			}
			gateway.comeBack()
		}, "the peer is dead"},
		{"our data plane panics", func(w *world, client, gateway *site) {
			client.panicIn("Transmit")
			client.panicIn("Receive")
			gateway.transmit(gateway.inSPI(), "x")
		}, "local failure"},
		{"our data plane panics, also in the removal", func(w *world, client, gateway *site) {
			client.panicIn("Receive")
			client.panicIn("RemoveOutbound")
			gateway.transmit(gateway.inSPI(), "x")
		}, "local failure"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				gateway := w.site(gatewayAddr, 2, roadwarriors())
				client := w.site(clientAddr, 2, started())
				w.after(2 * time.Minute)
				if st := client.status(); st.Up != 1 || st.DownTotal != 0 {
					t.Fatalf("%+v", st)
				}
				c.end(w, client, gateway)
				w.after(time.Second)
				st := client.status()
				if st.DownTotal != 1 || len(st.Down) != 1 || st.Down[0].Connection != "home" || st.Down[0].CallInMS == nil ||
					(st.Down[0].Why != c.why && c.why != "local failure") {
					t.Errorf("%+v", st.Down)
				}
				w.after(2 * firstPause)
				if st := client.status(); st.Up != 1 || st.DownTotal != 0 || len(client.begun()) != 2 {
					t.Errorf("%d up, %d down after %d calls", st.Up, st.DownTotal, len(client.begun()))
				}
				if w.after(time.Second); !client.aloneAfter(client.conf.Policy.Connections[0]) {
					t.Error("a call that has ended is counted as one that is open")
				}
			})
		})
	}
}

// aloneAfter ends a site's SAs, and reports whether its next call of a connection's
// peer would be all that there is between the two.
func (s *site) aloneAfter(c *policy.Connection) (alone bool) {
	s.w.t.Helper()
	if _, err := s.group.Terminate(context.Background(), "*"); err != nil {
		s.w.t.Fatal(err)
	}
	s.w.after(time.Second)
	pair := (&dialer{conn: c}).pair()
	answer := make(chan bool, 1)
	s.group.registrar.note(func(d *directory.Directory) {
		d.Calls(pair, 1)
		answer <- d.Alone(pair)
		d.Calls(pair, -1)
	})
	return <-answer
}

// TestTerminatedStaysDown: what a person has ended, be it up or waiting to be
// called, stays down until he says so, and is no problem.
func TestTerminatedStaysDown(t *testing.T) {
	for _, waiting := range []bool{false, true} {
		inBubble(t, func(w *world) {
			gateway := w.site(gatewayAddr, 2, roadwarriors())
			client := w.site(clientAddr, 2, started())
			w.after(2 * time.Minute)
			if waiting {
				if _, err := gateway.group.Terminate(context.Background(), "*"); err != nil {
					t.Fatal(err)
				}
				w.after(time.Second)
			}
			if n, err := client.group.Terminate(context.Background(), "home"); n != 1 || err != nil {
				t.Errorf("waiting %v: terminated %d, %v", waiting, n, err)
			}
			w.after(time.Hour)
			if st := client.status(); st.Up+st.Connecting+st.DownTotal != 0 {
				t.Errorf("waiting %v: %+v", waiting, st)
			}
			client.initiate()
			w.after(2 * time.Minute)
			if _, err := gateway.group.Terminate(context.Background(), "*"); err != nil {
				t.Fatal(err)
			}
			w.after(2 * firstPause)
			if st := client.status(); st.Up != 1 {
				t.Errorf("waiting %v: it is to be up again, and is not: %+v", waiting, st.Down)
			}
		})
	}
}

// TestDeletedAtOnce: a peer that deletes each tunnel as soon as it is up is not
// called in a tight loop; when a tunnel has lasted, that is forgotten.
func TestDeletedAtOnce(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 1, roadwarriors())
		client := w.site(clientAddr, 1, started())
		for w.now() < bootTime.Add(time.Hour) {
			w.after(100 * time.Millisecond)
			if gateway.status().Up > 0 {
				if _, err := gateway.group.Terminate(context.Background(), "*"); err != nil {
					t.Fatal(err)
				}
			}
		}
		begun := client.begun()
		if n := len(begun); n < 10 || n > 25 {
			t.Errorf("called %d times in an hour", n)
		}
		for i := 1; i < len(begun); i++ {
			if pause, want := begun[i].Sub(begun[i-1]), min(firstPause<<(i-1), lastPause); pause < want*7/8 {
				t.Errorf("pause %d is %v, want %v", i, pause, want)
			}
		}
		w.after(lastPause + lasting)
		if _, err := gateway.group.Terminate(context.Background(), "*"); err != nil {
			t.Fatal(err)
		}
		w.after(2 * firstPause)
		if up := client.status().Up; up != 1 {
			t.Errorf("%d up, after a tunnel that lasted", up)
		}
	})
}

// TestOtherAddressesTakeTurns: when the peer at one address has died, the next
// is called.
func TestOtherAddressesTakeTurns(t *testing.T) {
	inBubble(t, func(w *world) {
		const second = "198.51.100.2"
		first, backup := w.site(gatewayAddr, 1, roadwarriors()), w.site(second, 1, roadwarriors())
		conns := started()
		conns[0].Hosts = append(conns[0].Hosts, policy.Host{Addr: netip.MustParseAddr(second)})
		client := w.site(clientAddr, 1, conns)
		w.after(2 * time.Minute)
		first.vanish()
		w.after(idle.Delay + policy.DefaultBackoff.Total() + 2*firstPause)
		if client.status().Up != 1 || backup.status().Up != 1 {
			t.Errorf("the client has %d tunnels up, the backup %d", client.status().Up, backup.status().Up)
		}
	})
}

// TestPeerCallsFirst: where the peer's own call has brought the tunnel, it is
// up, and nobody calls; when it goes, we do.
func TestPeerCallsFirst(t *testing.T) {
	inBubble(t, func(w *world) {
		hear := w.deafToCalls(clientAddr) // until it has given its call up
		a, b := w.twoSites(true)
		if err := a.group.Initiate(context.Background(), "branch"); err != nil {
			t.Fatal(err)
		}
		w.after(policy.DefaultBackoff.Total())
		hear()
		w.after(time.Hour)
		before := len(b.begun())
		if st := b.status(); before != 1 || st.DownTotal != 0 {
			t.Errorf("it has called %d times, although there is a tunnel; %+v", before, st.Down)
		}
		if _, err := a.group.Terminate(context.Background(), "*"); err != nil {
			t.Fatal(err)
		}
		w.after(2 * firstPause)
		if st := b.status(); st.Up != 1 || len(b.begun()) != before+1 {
			t.Errorf("%d up, %+v, called %d times", st.Up, st.Down, len(b.begun())-before)
		}
	})
}

// TestManyDown: with very many that are down, a few are named and all counted.
func TestManyDown(t *testing.T) {
	const many = 20_000
	w := &world{t: t, began: time.Now()}
	g := w.still(1)
	ds := &g.shards[0].dialers
	for i := range many {
		c := &policy.Connection{Start: true, Name: fmt.Sprint(i)}
		g.carriers[c] = new(atomic.Int32)
		d := ds.of(c)
		d.why, d.since = "the peer is dead", w.now().Add(-time.Duration(1+i*7919%many)*time.Second)
	}
	longest, total := ds.down(w.now())
	if total != many || len(longest) != mostDown {
		t.Errorf("%d named of %d", len(longest), total)
	}
	for i, d := range longest {
		if want := int64(many - i); d.DownMS/1000 != want {
			t.Errorf("number %d is down for %d ms, want %d s", i, d.DownMS, want)
		}
	}
	if n := testing.AllocsPerRun(10, func() { ds.down(w.now()) }); n > 64 {
		t.Errorf("%v allocations", n)
	}
}

// TestVirtualAddressRefused: a gateway that gives an address that it should not
// has no tunnel, is told so, and leaves nothing.
func TestVirtualAddressRefused(t *testing.T) {
	for _, given := range []string{clientAddr, gatewayAddr, "224.0.0.9", "127.0.0.9", "169.254.1.1"} {
		inBubble(t, func(w *world) {
			gateway := w.site(gatewayAddr, 2, roadwarriors(), func(c *Config) {
				c.Pools[0].Prefixes = []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(given), 32)}
			})
			client := w.site(clientAddr, 2, home("anna@example.org"))
			if err := client.group.Initiate(context.Background(), "home"); err == nil {
				t.Errorf("%s was taken", given)
			}
			w.after(time.Minute)
			if n := client.held().calls["InstallInbound"]; n != 0 {
				t.Errorf("%s: %d installed", given, n)
			}
			client.wantOrderly()
			gateway.wantOrderly()
		})
	}
}

// wildcard is a client's connection whose peer may be anybody at its address, and
// which takes calls, too.
func wildcard() []*policy.Connection {
	conns := started()
	conns[0].RemoteID, conns[0].Pins, conns[0].MaxSAs = policy.Anybody, nil, 8
	return conns
}

// TestOthersAreNotTheOneCalled: a connection of a pattern has lost its tunnel to the
// peer that it calls, however many others have called by it.
func TestOthersAreNotTheOneCalled(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors())
		client := w.site(clientAddr, 2, wildcard())
		w.after(time.Second)
		other := mirror(t, "branch", "branch.example.org", "anna@example.org", clientAddr)
		other[0].Child.Local = []wire.Selector{prefix("10.5.0.0/16")}
		branch := w.site("198.51.100.77", 1, other)
		if err := branch.group.Initiate(context.Background(), "branch"); err != nil {
			t.Fatal(err)
		}
		if st := client.status(); st.Up != 2 || st.DownTotal != 0 {
			t.Fatalf("%d up, %+v", st.Up, st.Down)
		}
		gateway.deleteChild(client)
		if st := client.status(); st.DownTotal != 1 {
			t.Errorf("%d down: %+v", st.DownTotal, st.Down)
		}
		w.after(2 * firstPause)
		if st := client.status(); st.Up != 2 || st.DownTotal != 0 || len(client.begun()) != 2 {
			t.Errorf("%d up, %d down after %d calls", st.Up, st.DownTotal, len(client.begun()))
		}
		// One who has called is terminated: that is not the end of our own calls.
		if n, err := client.group.Terminate(context.Background(), "branch.example.org"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		gateway.deleteChild(client)
		w.after(3 * firstPause)
		if st := client.status(); st.Up != 1 || st.DownTotal != 0 {
			t.Errorf("%d up, %+v", st.Up, st.Down)
		}
	})
}

// deafToCalls loses the first messages of an address's handshakes, until hear.
func (w *world) deafToCalls(from string) (hear func()) {
	deaf := true
	w.drop = func(p wire.Packet) bool {
		return deaf && p.Local.Addr().String() == from && p.Data[18] == byte(wire.IKESAInit) && p.Data[19]&byte(wire.FlagResponse) == 0
	}
	return func() { w.weather(func() { deaf = false }) }
}

// twoSites are two that may call each other. b does so from the start, if start.
func (w *world) twoSites(start bool) (a, b *site) {
	w.t.Helper()
	there := mirror(w.t, "branch", "vpn.example.org", "branch.example.org", clientAddr)
	here := mirror(w.t, "head", "branch.example.org", "vpn.example.org", gatewayAddr)
	here[0].Start = start
	return w.site(gatewayAddr, 2, there), w.site(clientAddr, 2, here)
}

// TestPeersTunnelIsEnough: nobody who asks for a tunnel has another one made because
// our own SA has lost its Child SA, while the peer's carries.
func TestPeersTunnelIsEnough(t *testing.T) {
	inBubble(t, func(w *world) {
		a, b := w.twoSites(false)
		if err := a.group.Initiate(context.Background(), "branch"); err != nil {
			t.Fatal(err)
		}
		b.deleteChild(a)
		owner := b.group.owner(b.conf.Policy.Connections[0])
		owner.post(func(now mono.Time) { owner.dialers.dial(now, owner.dialers.of(b.conf.Policy.Connections[0])) })
		w.after(time.Second)
		if st := a.status(); st.Up != 1 || st.Childless != 1 {
			t.Fatalf("%d up, %d without a Child SA", st.Up, st.Childless)
		}
		if err := a.group.Initiate(context.Background(), "branch"); err != nil {
			t.Error(err)
		}
		if n := len(a.begun()); n != 1 {
			t.Errorf("called %d times", n)
		}
	})
}

// TestHandshakeGoesOn: when a tunnel ends that the peer has called for, our own call
// that is under way is not given up for another one.
func TestHandshakeGoesOn(t *testing.T) {
	inBubble(t, func(w *world) {
		hear := w.deafToCalls(clientAddr)
		a, b := w.twoSites(true)
		if err := a.group.Initiate(context.Background(), "branch"); err != nil {
			t.Fatal(err)
		}
		w.after(time.Second)
		if _, err := a.group.Terminate(context.Background(), "*"); err != nil {
			t.Fatal(err)
		}
		w.after(2 * firstPause)
		hear()
		w.after(policy.DefaultBackoff.Total())
		if st := b.status(); st.Up != 1 || len(b.begun()) != 1 {
			t.Errorf("%d up after %d calls", st.Up, len(b.begun()))
		}
	})
}
