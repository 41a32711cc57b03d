package shard

import (
	"context"
	"errors"
	"testing"
	"time"
)

// ESP that nobody can authenticate raises the alarm when it has come for longer
// than a delay, also of a peer who answers every probe; it ends with the first
// packet that is authentic, and a while after the last that is not.
func TestAlarm(t *testing.T) {
	inBubble(t, func(w *world) {
		_, gateway := w.pair(2)
		in := gateway.inSPI()
		want := func(when, alarm string) {
			t.Helper()
			p := gateway.peers()[0]
			if p.Alarm != alarm || p.Child.Alarm != alarm {
				t.Errorf("%s: alarms %q and %q, want %q", when, p.Alarm, p.Child.Alarm, alarm)
			}
		}
		forge := func(d time.Duration) {
			for end := w.now().Add(d); w.now() < end; w.after(time.Second) {
				gateway.sees(in)
			}
		}
		forge(idle.Delay - time.Second)
		want("a delay has not passed", "")
		forge(2 * idle.Delay)
		if gateway.counter(cProbes) == 0 || *gateway.peers()[0].ProofMS > idle.Delay.Milliseconds() {
			t.Error("the peer was not probed, or did not answer")
		}
		want("he answers, and his ESP is no good", "unauthenticated")

		gateway.stampAll()
		want("a packet was authentic", "")
		forge(idle.Delay + 2*time.Second)
		want("again", "unauthenticated")
		w.after(alarmFor - 5*time.Second)
		want("the last was a minute ago", "unauthenticated")
		w.after(6 * time.Second)
		want("the last was more than a minute ago", "")
	})
}

// The first packet for long, between XDP and the data plane, is no alarm.
func TestAlarmIsConfirmed(t *testing.T) {
	inBubble(t, func(w *world) {
		_, gateway := w.pair(2)
		w.after(10 * idle.Delay)
		gateway.sees(gateway.inSPI())
		time.AfterFunc(lookAgain/2, gateway.stampAll)
		if alarm := gateway.peers()[0].Alarm; alarm != "" {
			t.Errorf("alarm %q", alarm)
		}

		w.after(10 * idle.Delay)
		gateway.sees(gateway.inSPI())
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(lookAgain/2, cancel)
		if _, err := gateway.group.Peers(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("whoever gives up waiting gets %v", err)
		}
		// One that goes meanwhile stays as it was seen.
		time.AfterFunc(lookAgain/10, func() { gateway.group.Terminate(context.Background(), "*") })
		if peers := gateway.peers(); len(peers) != 1 || peers[0].Alarm != "unauthenticated" || len(gateway.peers()) != 0 {
			t.Errorf("%+v", peers)
		}
	})
}
