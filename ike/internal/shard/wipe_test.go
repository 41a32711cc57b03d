package shard

import (
	"crypto/rand"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// childKeys are where the SAs of a site have the keys of their Child SAs.
func (s *site) childKeys() (keys [][]byte) {
	for _, p := range s.planes {
		p.mu.Lock()
		for _, c := range p.in {
			keys = append(keys, c.InEncr.Bytes(), c.OutEncr.Bytes())
		}
		p.mu.Unlock()
	}
	return keys
}

func wiped(key []byte) bool { return !slices.ContainsFunc(key, func(b byte) bool { return b != 0 }) }

// TestWiped: an SA that goes without being asked leaves no keys either.
func TestWiped(t *testing.T) {
	for name, end := range map[string]func(w *world, client, gateway *site){
		"the end, and nobody answers": func(_ *world, client, gateway *site) {
			client.vanish()
			gateway.stop()
		},
		"a panic": func(w *world, client, gateway *site) {
			gateway.panicIn("Receive")
			client.transmit(client.inSPI(), "boom")
			w.after(time.Second)
		},
		"a panic, and another in the removal": func(w *world, client, gateway *site) {
			gateway.panicIn("Receive")
			gateway.panicIn("RemoveOutbound")
			client.transmit(client.inSPI(), "boom")
			w.after(time.Second)
		},
		"dead": func(w *world, client, _ *site) {
			client.vanish()
			w.after(10 * time.Minute)
		},
		"replaced": func(w *world, client, _ *site) {
			client.vanish()
			w.site("10.7.0.3", 1, home("anna@example.org")).initiate()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				client, gateway := w.pair(2)
				keys := gateway.childKeys()
				if len(keys) != 2 || slices.ContainsFunc(keys, wiped) {
					t.Fatalf("%d keys to look for", len(keys))
				}
				end(w, client, gateway)
				for i, k := range keys {
					if !wiped(k) {
						t.Errorf("key %d is still there", i)
					}
				}
			})
		})
	}
}

// TestAgreedTooLate: a key exchange whose SA is gone leaves nothing either.
func TestAgreedTooLate(t *testing.T) {
	inBubble(t, func(w *world) {
		client := w.site(clientAddr, 1, home("anna@example.org"))
		private, err := suite.Generate(wire.KEMODP2048, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		secret := []byte("what both have computed")
		s := client.group.shards[0]
		s.post(func(now mono.Time) { s.agreed(now, 0xdead, sa.Agreed{Private: private, Secret: secret}) })
		synctest.Wait()
		if !wiped(secret) {
			t.Error("the shared secret is still there")
		}
	})
}
