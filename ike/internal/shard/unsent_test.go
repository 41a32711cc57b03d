package shard

import (
	"context"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/sa"
)

// TestUnsent: a peer is not dead for questions that never left this host; once they
// do again he answers. A host that never sends again gives him up in the end.
func TestUnsent(t *testing.T) {
	const round = 165 * time.Second
	t.Run("for a while", func(t *testing.T) {
		inBubble(t, func(w *world) {
			client, gateway := w.pair(2)
			gateway.breakCall("Send", 1<<20)
			w.after(idle.Delay + 3*round)
			if st := gateway.status(); st.Up != 1 || gateway.counter(cDead) != 0 || gateway.counter(cSendErrors) < 10 {
				t.Errorf("%+v, %d dead, %d not sent", st, gateway.counter(cDead), gateway.counter(cSendErrors))
			}
			gateway.breakCall("Send", 0)
			gateway.happened()
			w.after(round)
			if n := gateway.count(sa.ProbeAnswered); n == 0 || gateway.status().Up != 1 {
				t.Errorf("%d answers, %+v", n, gateway.status())
			}
			client.vanish()
			w.after(idle.Delay + 2*round)
			gateway.wantOrderly()
		})
	})
	t.Run("the last tries leave", func(t *testing.T) {
		inBubble(t, func(w *world) {
			client, gateway := w.pair(2)
			gateway.breakCall("Send", 2)
			client.vanish()
			w.after(idle.Delay + round + 10*time.Second)
			if gateway.status().Up != 1 {
				t.Error("he is dead for tries some of which have not left")
			}
			w.after(round)
			gateway.wantOrderly()
		})
	})
	t.Run("for ever", func(t *testing.T) {
		inBubble(t, func(w *world) {
			_, gateway := w.pair(2)
			gateway.breakCall("Send", 1<<20)
			w.after(idle.Delay + 10*time.Minute + round + 10*time.Second)
			if st := gateway.status(); st.Up != 0 || gateway.counter(cDead) != 1 {
				t.Errorf("%+v", st)
			}
			gateway.wantOrderly()
		})
	})
}

// TestUnsentAndTerminated: who is told to end a tunnel does not wait until something
// can be sent.
func TestUnsentAndTerminated(t *testing.T) {
	inBubble(t, func(w *world) {
		_, gateway := w.pair(2)
		gateway.breakCall("Send", 1<<20)
		w.after(idle.Delay + 10*time.Second)
		if n, err := gateway.group.Terminate(context.Background(), "*"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		w.after(165 * time.Second)
		gateway.wantOrderly()
	})
}

// TestUnsentIsSaid: who looks for what is wrong with the peer is told that it is
// this host, be it a call or a tunnel that was up.
func TestUnsentIsSaid(t *testing.T) {
	const host = ": not every message to the peer could be sent from this host"
	for _, up := range []bool{false, true} {
		inBubble(t, func(w *world) {
			w.site(gatewayAddr, 2, roadwarriors())
			client := w.site(clientAddr, 2, started())
			want := "handshake timeout" + host
			if up {
				want = "dead" + host
				w.after(2 * time.Minute)
			}
			client.breakCall("Send", 1<<20)
			for range 30 * 60 {
				if st := client.status(); len(st.Down) == 1 && st.Down[0].CallInMS != nil {
					break
				}
				w.after(time.Second)
			}
			if st := client.status(); len(st.Down) != 1 || st.Down[0].Why != want {
				t.Errorf("up %v: %+v, want %q", up, st.Down, want)
			}
		})
	}
}
