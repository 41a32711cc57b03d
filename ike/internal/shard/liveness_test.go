package shard

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// A silent peer is probed when its evidence is as old as the delay, answers,
// and is probed again a delay after its answer.
func TestProbeAndAnswer(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(4)
		up := gateway.eventAt(sa.Established)
		gateway.happened()
		first := tick(up.Add(idle.Delay))
		w.after(first.Sub(w.now()) - 1)
		gateway.wantEvents()
		w.after(time.Second)
		if at := gateway.eventAt(sa.ProbeSent); at != first {
			t.Errorf("probed at %v, want %v", at, first)
		}
		answered := first.Add(2 * w.latency)
		if at := gateway.eventAt(sa.ProbeAnswered); at != answered {
			t.Errorf("answered at %v, want %v", at, answered)
		}
		gateway.happened()
		w.after(idle.Delay)
		// The judgement that the first probe set looks too early, and waits
		// for the rest.
		if at := gateway.eventAt(sa.ProbeSent); at != tick(answered.Add(idle.Delay)) {
			t.Errorf("probed again at %v, want %v", at, tick(answered.Add(idle.Delay)))
		}
		if client.counter(cProbes) != 0 || gateway.counter(cProbes) != 2 {
			t.Errorf("probes: client %d, gateway %d", client.counter(cProbes), gateway.counter(cProbes))
		}
	})
}

// A peer that is gone is declared dead at an instant that can be computed, and
// nothing of it is left.
func TestDead(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(4)
		client.transmit(client.inSPI(), "the last that is heard")
		w.after(5 * time.Second)
		heard := mono.Time(gateway.held().stamps[gateway.inSPI()].auth)
		if heard == 0 {
			t.Fatal("nothing was heard")
		}
		client.vanish()
		gateway.happened()
		sent := len(gateway.held().sentIKE)
		at := tick(heard.Add(idle.Delay))
		for n := range policy.DefaultBackoff.Tries + 1 {
			at = tick(at.Add(policy.DefaultBackoff.Wait(n)))
		}
		w.after(at.Sub(w.now()) - 1)
		gateway.wantEvents("probe sent", "retransmit", "retransmit", "retransmit", "retransmit", "retransmit")
		w.after(time.Millisecond)
		if got := gateway.eventAt(sa.Closed); got != at {
			t.Errorf("dead at %v, want %v", got, at)
		}
		if e := gateway.lastEvent(); e.IdleFor != at.Sub(heard) {
			t.Errorf("silent for %v, want %v", e.IdleFor, at.Sub(heard))
		}
		gateway.wantEvents("unanswered", "closed: dead")
		probe := gateway.held().sentIKE[sent:]
		if len(probe) != 6 || len(slices.CompactFunc(probe, slices.Equal)) != 1 {
			t.Errorf("sent %d messages, of which not all are alike", len(probe))
		}
		gateway.wantOrderly()
		if dead, probes := gateway.counter(cDead), gateway.counter(cProbes); dead != 1 || probes != 1 {
			t.Errorf("%d dead after %d probes", dead, probes)
		}
	})
}

// A thousand tunnels whose traffic proves their life cost no probe in three
// delays, and no call of an edge but the reading of mapped evidence. When it
// stops, all are probed.
func TestThousandLiveTunnels(t *testing.T) {
	const tunnels = 1000
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 4, roadwarriors())
		var conns []*policy.Connection
		for i := range tunnels {
			c := home(fmt.Sprintf("user%d@example.org", i))
			c[0].Name, c[0].Start = fmt.Sprint(i), true
			conns = append(conns, c...)
		}
		client := w.site(clientAddr, 4, conns)
		w.after(20 * time.Second)
		if st := gateway.status(); st.Up != tunnels || st.Counters["cookies_demanded"] == 0 {
			t.Fatalf("%+v", st)
		}
		gateway.took()
		client.took()
		stop := time.Now().Add(3*idle.Delay + time.Second)
		for time.Now().Before(stop) {
			gateway.stampAll()
			w.after(7 * time.Second)
		}
		calls := gateway.took()
		// A judgement a delay, or some more often when a stamp came late.
		if n := calls["Evidence"]; n < 3*tunnels || n > 6*tunnels {
			t.Errorf("evidence was read %d times", n)
		}
		delete(calls, "Evidence")
		if len(calls) > 0 || gateway.counter(cProbes) > 0 {
			t.Errorf("edges were called: %v; %d probes", calls, gateway.counter(cProbes))
		}
		if calls := client.took(); len(calls) > 0 {
			t.Errorf("the client did %v", calls)
		}
		w.after(idle.Delay)
		if n := gateway.counter(cProbes); n != tunnels {
			t.Errorf("%d probes for %d silent tunnels", n, tunnels)
		}
	})
}

// stampAll makes every tunnel have been heard just now.
func (s *site) stampAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := int64(s.w.now())
	for spi := range s.tracked {
		s.stamps[spi] = evidence{now, now}
	}
}

// sees makes a packet have been seen just now that nobody has authenticated.
func (s *site) sees(spi uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stamps[spi] = evidence{int64(s.w.now()), s.stamps[spi].auth}
}

// What was seen and not authenticated postpones nothing.
func TestHintIsNoEvidence(t *testing.T) {
	inBubble(t, func(w *world) {
		_, gateway := w.pair(2)
		in := gateway.inSPI()
		for range 31 {
			gateway.sees(in)
			w.after(time.Second)
		}
		if n := gateway.counter(cProbes); n != 1 {
			t.Errorf("%d probes, want 1", n)
		}
	})
}

// However much ESP there is, an IKE round trip is asked for now and then.
func TestMaxSuppress(t *testing.T) {
	inBubble(t, func(w *world) {
		_, gateway := w.pair(2)
		up := gateway.eventAt(sa.Established)
		for w.now() < up.Add(idle.MaxSuppress+10*time.Second) {
			gateway.stampAll()
			w.after(5 * time.Second)
		}
		if at := gateway.eventAt(sa.ProbeSent); at != tick(up.Add(idle.MaxSuppress)) || gateway.counter(cProbes) != 1 {
			t.Errorf("%d probes, the last at %v, want %v", gateway.counter(cProbes), at, tick(up.Add(idle.MaxSuppress)))
		}
	})
}

// Any outstanding request is the probe: a delay that expires while a DELETE
// waits for its answer sends nothing.
func TestDelayExpiresDuringDelete(t *testing.T) {
	inBubble(t, func(w *world) {
		short := roadwarriors()
		short[0].DPD.Delay = 3 * time.Second // less than the first retransmission
		gateway := w.site(gatewayAddr, 2, short)
		client := w.site(clientAddr, 1, home("anna@example.org"))
		client.initiate()
		client.vanish()
		sent := len(gateway.held().sentIKE)
		if n, err := gateway.group.Terminate(context.Background(), "anna@example.org"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		w.after(3 * time.Second)
		if got := gateway.held().sentIKE[sent:]; len(got) != 1 {
			t.Errorf("%d messages are out, want the DELETE alone", len(got))
		}
		w.after(3 * time.Minute)
		got := gateway.held().sentIKE[sent:]
		if len(got) != 6 || len(slices.CompactFunc(got, slices.Equal)) != 1 || gateway.counter(cProbes) != 0 {
			t.Errorf("%d messages, %d probes; want the DELETE six times", len(got), gateway.counter(cProbes))
		}
		gateway.wantOrderly()
	})
}

// A probe on demand takes the place of the one that would have come.
func TestProbeByHand(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(2)
		client.happened()
		w.after(20 * time.Second)
		if n, err := gateway.group.Probe(context.Background(), "*"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		w.after(time.Second)
		answered := gateway.eventAt(sa.ProbeAnswered)
		w.after(idle.Delay)
		if at := gateway.eventAt(sa.ProbeSent); at != tick(answered.Add(idle.Delay)) {
			t.Errorf("probed at %v, want %v", at, tick(answered.Add(idle.Delay)))
		}
	})
}

// A peer that has died is called again if that is wanted, and only then.
func TestRestart(t *testing.T) {
	for _, restart := range []bool{true, false} {
		inBubble(t, func(w *world) {
			gateway := w.site(gatewayAddr, 2, roadwarriors())
			conns := home("anna@example.org")
			conns[0].DPD, conns[0].Restart = idle, restart
			client := w.site(clientAddr, 3, conns)
			client.initiate()
			gateway.vanish()
			w.after(4 * time.Minute)
			gateway.comeBack()
			w.after(10 * time.Minute)
			if up := client.status().Up; (up == 1) != restart {
				t.Errorf("restart %v: %d tunnels are up", restart, up)
			}
		})
	}
}

// A failed handshake of a connection that is to be up is begun again, after
// pauses that grow to a limit.
func TestRedial(t *testing.T) {
	inBubble(t, func(w *world) {
		conns := home("anna@example.org")
		conns[0].Start = true
		conns[0].Backoff = policy.Backoff{Timeout: time.Second, Base: 1, Tries: 1}
		var begun []mono.Time
		client := w.site(clientAddr, 2, conns)
		w.after(time.Hour)
		for _, ev := range client.held().events {
			if ev.Kind == sa.Connecting {
				begun = append(begun, ev.At)
			}
		}
		if len(begun) < 10 {
			t.Fatalf("begun %d times", len(begun))
		}
		for i := 1; i < len(begun); i++ {
			pause := begun[i].Sub(begun[i-1]) - 2*time.Second // the handshake itself
			want := min(firstPause<<(i-1), lastPause)
			if pause > want+4*time.Millisecond || pause < want*7/8 {
				t.Errorf("pause %d is %v, want %v or a little less", i, pause, want)
			}
		}
		w.site(gatewayAddr, 2, roadwarriors())
		w.after(lastPause + time.Minute)
		if up := client.status().Up; up != 1 {
			t.Errorf("%d tunnels are up", up)
		}
		// One that a person has ended stays down.
		if _, err := client.group.Terminate(context.Background(), "home"); err != nil {
			t.Fatal(err)
		}
		w.after(time.Hour)
		if st := client.status(); st.Up+st.Connecting != 0 {
			t.Errorf("after its end: %+v", st)
		}
	})
}

// What a person ends in the middle of its handshake is not begun again, until
// he says so.
func TestTerminateHandshake(t *testing.T) {
	inBubble(t, func(w *world) {
		conns := home("anna@example.org")
		conns[0].Start = true
		client := w.site(clientAddr, 2, conns)
		w.after(time.Second)
		if n, err := client.group.Terminate(context.Background(), "home"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		w.after(time.Hour)
		client.wantEvents("connecting", "closed: deleted")
		client.wantOrderly()
		w.site(gatewayAddr, 1, roadwarriors())
		client.initiate()
	})
}

func TestInitiateFails(t *testing.T) {
	inBubble(t, func(w *world) {
		w.site(gatewayAddr, 1, roadwarriors())
		conns := home("anna@example.org")
		nowhere := home("bert@example.org")
		nowhere[0].Name, nowhere[0].Hosts = "nowhere", nil
		six := home("cleo@example.org")
		six[0].Name, six[0].Hosts = "six", []policy.Host{{Addr: netip.MustParseAddr("2001:db8::1")}}
		wrong := home("dora@example.net")
		wrong[0].Name = "wrong"
		client := w.site(clientAddr, 2, slices.Concat(conns, nowhere, six, wrong))
		for name, want := range map[string]string{
			"home": "", "nobody": ErrUnknown.Error(), "nowhere": errNoRemote.Error(), "six": errNoLocal.Error(),
			"wrong": "authentication failed: the peer says AUTHENTICATION_FAILED",
		} {
			err := client.group.Initiate(context.Background(), name)
			if got := fmt.Sprint(err); got != want && (want != "" || err != nil) {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := client.group.Initiate(ctx, "home"); err != nil && err != context.Canceled {
			t.Error(err)
		}
		client.stop()
		if err := client.group.Initiate(context.Background(), "home"); err != ErrStopped {
			t.Errorf("after the end: %v", err)
		}
	})
}

// NAT keepalives go out from behind the NAT only, and only when nothing else
// does.
func TestKeepalive(t *testing.T) {
	inBubble(t, func(w *world) {
		w.behindNAT(clientAddr, natAddr, 7000)
		gateway := w.site(gatewayAddr, 2, roadwarriors())
		conns := home("anna@example.org")
		conns[0].NATKeepalive = 4 * time.Second
		client := w.site(clientAddr, 2, conns)
		client.initiate()
		for range 20 {
			client.transmit(client.inSPI(), "traffic")
			w.after(time.Second)
		}
		if n := gateway.held().calls["Keepalive"]; n != 0 {
			t.Errorf("%d keepalives beside traffic", n)
		}
		w.after(21 * time.Second)
		if n := gateway.held().calls["Keepalive"]; n < 4 || n > 5 || client.held().calls["Keepalive"] != 0 {
			t.Errorf("%d keepalives reached the gateway, %d the client", n, client.held().calls["Keepalive"])
		}
	})
}

// A probe of the peer that comes while a full ESP inbox is worked off is
// answered long before its end.
func TestESPDoesNotStarveIKE(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(1)
		s, in := gateway.group.shards[0], gateway.inSPI()
		probe := client.capture(w, func() { _, _ = client.group.Probe(context.Background(), "*") })
		const comes = 100
		answered := 0
		gateway.mu.Lock()
		gateway.onReceive = func(n int) {
			if n == comes {
				s.ike.put(probe)
			}
		}
		gateway.mu.Unlock()
		w.mu.Lock()
		w.tap = func(p wire.Packet) { answered = len(gateway.held().inner) }
		w.mu.Unlock()
		for range espInboxPackets {
			s.esp.put(packetsTo(gateway, clientAddr+":4500", espPacket(in, []byte("flood")))[0])
		}
		s.rouse()
		synctest.Wait()
		if len(gateway.held().inner) != espInboxPackets || answered < comes || answered > comes+share {
			t.Errorf("answered after %d packets of %d", answered, len(gateway.held().inner))
		}
	})
}

// capture gives the datagram that something makes the site send, in place of
// its receiver.
func (s *site) capture(w *world, do func()) (got wire.Packet) {
	w.mu.Lock()
	w.drop = func(p wire.Packet) bool {
		got = p
		return p.Local.Addr() == s.addr
	}
	w.mu.Unlock()
	do()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop = nil
	got.Local, got.Remote = got.Remote, got.Local
	return got
}
