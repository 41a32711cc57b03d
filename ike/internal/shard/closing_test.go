package shard

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// A gateway that stops says goodbye to all, at a pace, and leaves nothing.
func TestStopIsPaced(t *testing.T) {
	const tunnels = 600
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 1, roadwarriors())
		var conns []*policy.Connection
		for i := range tunnels {
			c := home(fmt.Sprintf("user%d@example.org", i))
			c[0].Name, c[0].Start = fmt.Sprint(i), true
			conns = append(conns, c...)
		}
		client := w.site(clientAddr, 1, conns)
		w.after(20 * time.Second)
		if up := gateway.status().Up; up != tunnels {
			t.Fatalf("%d tunnels are up", up)
		}
		most, burst, last := 0, 0, w.now()
		w.mu.Lock()
		w.tap = func(p wire.Packet) {
			if p.Local.Addr() != gateway.addr {
				return
			}
			if w.now() != last {
				burst, last = 0, w.now()
			}
			burst++
			most = max(most, burst)
		}
		w.mu.Unlock()
		began := w.now()
		gateway.stop()
		if d := w.now().Sub(began); d < closeSpread-closeStep || d > closeSpread+time.Second {
			t.Errorf("it took %v", d)
		}
		if want := tunnels / closeSteps; most != want {
			t.Errorf("%d DELETEs at once, want %d", most, want)
		}
		if left := gateway.leftovers(); left != "" || gateway.group.total.Load() != 0 {
			t.Errorf("left behind: %s", left)
		}
		if n := gateway.group.shards[0].count[cReclaimed]; n != 0 {
			t.Errorf("the shard had to clean up after %d SAs", n)
		}
		w.after(time.Second)
		client.stop() // it calls again
		if left := client.leftovers(); left != "" {
			t.Errorf("the client has left: %s", left)
		}
	})
}

// Peers that do not answer hold nobody up for longer than five seconds.
func TestStopWithoutAnswers(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(2)
		client.vanish()
		began := w.now()
		gateway.stop()
		if d := w.now().Sub(began); d < closeTime || d > closeTime+time.Millisecond {
			t.Errorf("it took %v", d)
		}
		if left := gateway.leftovers(); left != "" {
			t.Errorf("left behind: %s", left)
		}
		gateway.wantEvents("established", "child up", "retransmit", "closed: deleted")
	})
}

// Who stops begins nothing more, neither for a peer nor for a caller.
func TestStopBeginsNothing(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(1)
		client.vanish()
		gateway.cancel()
		w.after(time.Second)
		sent := gateway.held().sent
		late := w.site("10.7.0.3", 1, home("bert@example.org"))
		go func() { _ = late.group.Initiate(context.Background(), "home") }() // ends with its group
		w.after(time.Second)
		if gateway.held().sent != sent {
			t.Errorf("%d bytes were sent to a new peer", gateway.held().sent-sent)
		}
		synctest.Wait()
	})
}
