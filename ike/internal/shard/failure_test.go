package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Each step of bringing a tunnel up fails once, on either side: nothing is left
// behind, and the next try succeeds.
func TestEachStepFails(t *testing.T) {
	for _, side := range []string{"client", "gateway"} {
		for _, call := range []string{"AllocSPI", "Put", "Track", "InstallInbound", "InstallOutbound"} {
			t.Run(side+" "+call, func(t *testing.T) {
				inBubble(t, func(w *world) {
					gateway := w.site(gatewayAddr, 2, roadwarriors())
					client := w.site(clientAddr, 2, home("anna@example.org"))
					failing := client
					if side == "gateway" {
						failing = gateway
					}
					failing.breakCall(call, 1)
					if err := client.group.Initiate(context.Background(), "home"); err == nil {
						t.Error("the tunnel is up all the same")
					}
					w.after(time.Minute)
					if failing.held().fail[call] != 0 {
						t.Fatal("nothing has failed")
					}
					if _, err := gateway.group.Terminate(context.Background(), "*"); err != nil {
						t.Error(err)
					}
					w.after(4 * time.Minute)
					client.wantOrderly()
					gateway.wantOrderly()
					client.initiate()
					if up := gateway.status().Up; up != 1 {
						t.Errorf("then %d tunnels are up", up)
					}
				})
			})
		}
	}
}

// A move that fails does not cost the tunnel, is made good by the next, and
// leaves nothing.
func TestMoveFails(t *testing.T) {
	for _, call := range []string{"Move", "MoveOutbound"} {
		t.Run(call, func(t *testing.T) {
			inBubble(t, func(w *world) {
				n := w.behindNAT(clientAddr, natAddr, 7000)
				client, gateway := w.pair(2)
				gateway.breakCall(call, 1)
				for range 2 {
					w.mu.Lock()
					n.shift++
					w.mu.Unlock()
					client.transmit(client.inSPI(), "from elsewhere")
					w.after(10 * time.Second)
				}
				if gateway.held().fail[call] != 0 {
					t.Fatal("nothing has failed")
				}
				now := gateway.peers()[0].Remote
				if at := gateway.held().tracked[gateway.inSPI()].peer; at != now || now.Port() != 4500+7002 {
					t.Errorf("after the second move the peer is at %v, tracked at %v", now, at)
				}
				client.vanish()
				w.after(5 * time.Minute)
				gateway.wantOrderly()
			})
		})
	}
}

// An edge that refuses a removal does not stop the others, and its slot is not
// used again.
func TestRemovalFails(t *testing.T) {
	for call, left := range map[string]string{
		"RemoveOutbound": "1 outbound", "RemoveInbound": "1 inbound", "Untrack": "1 tracked, 0 records, 1 SPIs", "Delete": "1 records",
	} {
		t.Run(call, func(t *testing.T) {
			inBubble(t, func(w *world) {
				client, gateway := w.pair(1)
				gateway.breakCall(call, 1)
				client.stop()
				w.after(time.Second)
				if got := gateway.leftovers(); !strings.Contains(got, left) || strings.Count(got, "1 ") > strings.Count(left, "1 ") {
					t.Errorf("left: %s, want %s", got, left)
				}
				if n := gateway.counter(cEdgeErrors); n != 1 || gateway.status().Up != 0 {
					t.Errorf("%d removals failed; %+v", n, gateway.status())
				}
			})
		})
	}
}

// A step that always fails ends the SA instead of going on for ever.
func TestEverythingFails(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors())
		client := w.site(clientAddr, 2, home("anna@example.org"))
		for _, call := range []string{"Put", "Track", "InstallInbound", "InstallOutbound"} {
			gateway.breakCall(call, 1<<20)
		}
		if err := client.group.Initiate(context.Background(), "home"); err == nil {
			t.Error("the tunnel is up all the same")
		}
		w.after(5 * time.Minute)
		gateway.wantOrderly()
		client.wantOrderly()
	})
}

// A message that panics costs its SA and nothing else, whatever it was at.
func TestPanic(t *testing.T) {
	for _, call := range []string{"InstallInbound", "InstallOutbound", "Track", "Put"} {
		t.Run(call, func(t *testing.T) {
			inBubble(t, func(w *world) {
				gateway := w.site(gatewayAddr, 1, roadwarriors())
				other := w.site("10.7.0.3", 1, home("bert@example.org"))
				other.initiate()
				gateway.happened()
				gateway.panicIn(call)
				client := w.site(clientAddr, 1, home("anna@example.org"))
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				if err := client.group.Initiate(ctx, "home"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the client is told %v", err)
				}
				if n := gateway.counter(cPanics); n != 1 {
					t.Errorf("%d panics were counted", n)
				}
				var p *PanicError
				if e := gateway.lastEvent(); !errors.As(e.Err, &p) || !strings.Contains(string(p.Stack), call) {
					t.Errorf("the event says %v", e.Err)
				}
				w.after(4 * time.Minute)
				if st := gateway.status(); st.Up != 1 || st.Connecting != 0 || len(gateway.held().tracked) != 1 || gateway.held().spis != 1 ||
					len(gateway.planes[0].in)+len(gateway.planes[0].out) != 2 || gateway.held().records != 1 || st.Leases["office"] != 1 {
					t.Errorf("%+v; %s", st, gateway.leftovers())
				}
				client.initiate()
			})
		})
	}
}

// So do panics that come with ESP, whose tunnel goes, and with what is nobody's.
func TestPanicInDataPlane(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(2)
		gateway.panicIn("Transmit")
		gateway.transmit(gateway.inSPI(), "x")
		w.after(time.Second)
		if st := gateway.status(); st.Up != 1 || st.Counters["panics"] != 1 {
			t.Errorf("after Transmit: %+v", st)
		}
		gateway.panicIn("Receive")
		gateway.panicIn("RemoveOutbound") // in the cleaning up
		client.transmit(client.inSPI(), "x")
		w.after(time.Second)
		if st := gateway.status(); st.Up != 0 || st.Counters["panics"] != 3 || st.Leases["office"] != 0 {
			t.Errorf("after Receive: %+v", st)
		}
	})
}

// A key exchange that finds no room drops the request without a word or a
// trace; its retransmission is a new one.
func TestKeyExchangesAreShed(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 1, roadwarriors(), func(c *Config) { c.Workers, c.JobBytes = 0, 2*jobBytes })
		for i := range 3 {
			client := w.site(clientAddr, 1, home("anna@example.org"))
			init := client.capture(w, func() {
				go func() { _ = client.group.Initiate(context.Background(), "home") }() // ends with its group
			})
			gateway.group.DeliverIKE([]wire.Packet{init})
			synctest.Wait()
			st := gateway.status()
			if want := uint64(max(i, 0)); st.Connecting != 1 || st.Handshakes.HalfOpen != 1 || st.Counters["shed_full"] != want {
				t.Errorf("request %d: %+v", i, st)
			}
			client.stop()
		}
		if gateway.held().sent != 0 {
			t.Errorf("%d bytes were answered", gateway.held().sent)
		}
		w.after(time.Minute)
		gateway.wantOrderly()
	})
}

// Our own handshake that finds no room has failed.
func TestOwnKeyExchangeFindsNoRoom(t *testing.T) {
	inBubble(t, func(w *world) {
		client := w.site(clientAddr, 1, home("anna@example.org"), func(c *Config) { c.Workers, c.JobBytes = 0, 0 })
		if err := client.group.Initiate(context.Background(), "home"); !errors.Is(err, ErrBusy) {
			t.Errorf("the caller is told %v", err)
		}
		client.wantOrderly()
	})
}

// A full inbox drops and counts; nobody waits.
func TestInboxFull(t *testing.T) {
	for _, tt := range []struct {
		packets, bytes, size, want int
	}{{10, 1 << 20, 100, 10}, {100, 1000, 100, 10}, {100, 1000, 1001, 0}, {100, 1000, 0, 100}} {
		q := inbox{maxPackets: tt.packets, maxBytes: tt.bytes}
		for range 2 { // the second time with the memory of the first
			before := q.drops()
			for i := range 200 {
				data := make([]byte, tt.size)
				if tt.size > 1 {
					binary.BigEndian.PutUint16(data, uint16(i))
				}
				if ok := q.put(wire.Packet{Data: data}); ok != (i < tt.want) {
					t.Fatalf("%+v: packet %d: %v", tt, i, ok)
				}
				clear(data) // the caller's own
			}
			got := q.take(batch{})
			if len(got.packets) != tt.want || q.drops()-before != uint64(200-tt.want) {
				t.Errorf("%+v: %d queued, %d dropped", tt, len(got.packets), q.drops()-before)
			}
			for i, p := range got.packets {
				if tt.size > 1 && int(binary.BigEndian.Uint16(p.Data)) != i {
					t.Errorf("%+v: packet %d holds %x", tt, i, p.Data[:2])
				}
			}
			q.take(got)
		}
	}
}

// The inboxes of a group that does not run fill up, and its callers are told.
func TestNobodyWaits(t *testing.T) {
	w := &world{t: t, began: time.Now()}
	g := w.still(2)
	s := &site{w: w, addr: g.conf.Listen[0]}
	const each = 6000
	known, first, auth := initRequest(t, 1), initRequest(t, 1), initRequest(t, 1)
	known[15], auth[15] = 9, 9 // our SPI
	known[18], auth[18] = byte(wire.Informational), byte(wire.IKEAuth)
	for range each {
		g.DeliverIKE(packetsTo(s, clientAddr+":500", make([]byte, 16), first, known))
		for range 3 {
			g.DeliverIKE(packetsTo(s, clientAddr+":500", auth, first))
		}
		g.DeliverESP(packetsTo(s, clientAddr+":4500", make([]byte, 100), make([]byte, 3)))
		g.DeliverInner(0, make([]byte, 100))
		g.Drifted(7, elsewhere)
	}
	c := g.shards[0].counted()
	other := g.shards[1].counted()
	for i := range c {
		c[i] += other[i]
	}
	if c[cDroppedIKE] != each-ikeInboxPackets || c[cDroppedAuth] != 3*each-authInboxPackets || c[cDroppedFirst] != 0 || c[cDroppedESP] != each-espInboxPackets ||
		c[cDroppedInner] != each-espInboxPackets || c[cDroppedDrifts] != each-driftPackets || g.undeliverable.Load() != 2*each {
		t.Errorf("dropped %v; %d undeliverable", c[:cMalformed], g.undeliverable.Load())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var errs []error
	for range mailboxMessages + 1 {
		_, err := g.Terminate(ctx, "*")
		errs = append(errs, err)
	}
	if slices.Contains(errs[:mailboxMessages], ErrBusy) || errs[mailboxMessages] != ErrBusy {
		t.Errorf("the last caller is told %v", errs[mailboxMessages])
	}
}
