package shard

import (
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
)

// A peer that comes again after a crash replaces its old SA, in whichever shard
// that is, keeps its address, and what the old SA leaves late is not its own.
func TestInitialContactReplacesInAnotherShard(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(4)
		crossed := false
		for i := range 20 {
			before := gateway.peers()[0]
			gateway.happened()
			client.vanish()
			client = w.site(clientAddr, 1, home("anna@example.org"))
			client.initiate()
			w.after(time.Second)
			gateway.wantEventsInAnyOrder("child up", "closed: replaced", "established")
			st, peers := gateway.status(), gateway.peers()
			if st.Up != 1 || st.Leases["office"] != 1 || len(gateway.held().tracked) != 1 || gateway.held().records != 1 {
				t.Fatalf("round %d: %+v; %s", i, st, gateway.leftovers())
			}
			if was, is := before.Child.RemoteTS[0], peers[0].Child.RemoteTS[0]; was != is {
				t.Errorf("round %d: the address was %s and is %s", i, was, is)
			}
			crossed = crossed || before.Shard != peers[0].Shard
		}
		if !crossed {
			t.Error("20 SAs were all in one shard")
		}
		client.stop()
		w.after(time.Second)
		gateway.wantOrderly()
	})
}

// Another identity replaces nobody.
func TestInitialContactOfAnother(t *testing.T) {
	inBubble(t, func(w *world) {
		_, gateway := w.pair(2)
		w.site("10.7.0.3", 1, home("bert@example.org")).initiate()
		if st := gateway.status(); st.Up != 2 || st.Leases["office"] != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// A message that panics costs the registrar nothing but that message.
func TestRegistrarPanic(t *testing.T) {
	r := &registrar{clock: func() mono.Time { return 1 }}
	r.do(func(mono.Time) { panic("made to panic") })
	if r.panics != 1 {
		t.Errorf("%d panics", r.panics)
	}
}
