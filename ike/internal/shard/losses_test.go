package shard

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

func (s *site) count(k sa.EventKind) (n int) {
	for _, ev := range s.held().events {
		if ev.Kind == k {
			n++
		}
	}
	return n
}

// TestClosedIsTold: an SA that ends while nothing can be stored is told as
// closed all the same, once, and leaves nothing but its record.
func TestClosedIsTold(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(w *world, client, gateway *site)
	}{
		{"the peer deletes it", func(w *world, client, gateway *site) { _, _ = client.group.Terminate(context.Background(), "*") }},
		{"we delete it", func(w *world, client, gateway *site) { _, _ = gateway.group.Terminate(context.Background(), "*") }},
		{"the peer dies", func(w *world, client, gateway *site) { client.vanish() }},
		{"we stop", func(w *world, client, gateway *site) { gateway.stop() }},
		{"the peer stops", func(w *world, client, gateway *site) { client.stop() }},
	} {
		for _, failures := range []int{1, 2, 1 << 20} {
			t.Run(c.name, func(t *testing.T) {
				inBubble(t, func(w *world) {
					client, gateway := w.pair(2)
					w.after(time.Second)
					gateway.breakCall("Put", failures)
					c.end(w, client, gateway)
					w.after(20 * time.Minute)
					if n := gateway.count(sa.Closed); n != 1 {
						t.Errorf("closed is told %d times: %v", n, gateway.held().events)
					}
					if left := gateway.leftovers(); left != "" {
						t.Errorf("left: %s", left)
					}
				})
			})
		}
	}
}

// TestMovesAreBounded: however often a peer's packets come from elsewhere, the
// map is written once a second at most, and of his moves one a minute is told;
// in the end he is where his last packet came from.
func TestMovesAreBounded(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.behindNAT(clientAddr, natAddr, 7000)
		client, gateway := w.pair(2)
		in := gateway.inSPI()
		const passes = 3 * time.Minute
		for i := range int(passes / (50 * time.Millisecond)) {
			w.mu.Lock()
			n.shift = 7000 + uint16(i%2)*11
			w.mu.Unlock()
			client.transmit(client.inSPI(), "x")
			w.after(50 * time.Millisecond)
		}
		w.mu.Lock()
		n.shift = 7777
		w.mu.Unlock()
		client.transmit(client.inSPI(), "the last one")
		w.after(2 * time.Second)
		most := int(passes/time.Second) + 3
		if got := gateway.held().calls["Move"]; got > most || got < 10 {
			t.Errorf("the map was written %d times, want at most %d", got, most)
		}
		told, all := 0, 0
		for _, ev := range gateway.held().events {
			if ev.Kind == sa.Moved {
				all += ev.Moves
				if ev.Moves > 0 {
					told++
				}
			}
		}
		if told < 3 || told > 4 || all < 50 {
			t.Errorf("told %d times of %d moves", told, all)
		}
		want := netip.AddrPortFrom(n.outer, 4500+7777)
		if at := gateway.held().tracked[in].peer; at != want || gateway.peers()[0].Remote != want {
			t.Errorf("tracked at %v, at %v, want %v", at, gateway.peers()[0].Remote, want)
		}
	})
}
