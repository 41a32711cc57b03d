package shard

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/dpd"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

var elsewhere = netip.MustParseAddrPort("203.0.113.9:4500")

// nothingTo fails the test if anything goes to an address.
func (w *world) nothingTo(at netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tap = func(p wire.Packet) {
		if p.Remote == at {
			w.t.Errorf("%d bytes go to %v", len(p.Data), at)
		}
	}
}

// Whoever forges packets from elsewhere has the peer asked, at once and then
// once a pause; where he was. Nothing moves.
func TestDriftsAreProbed(t *testing.T) {
	inBubble(t, func(w *world) {
		w.behindNAT(clientAddr, natAddr, 7000)
		client, gateway := w.pair(4)
		w.nothingTo(elsewhere)
		in := gateway.inSPI()
		was := gateway.held().tracked[in]
		w.after(time.Second)
		gateway.happened()
		began := w.now()
		const tries = 101 // as many seconds
		for range tries {
			client.transmit(client.inSPI(), "he lives, as his traffic proves")
			gateway.group.Drifted(in, elsewhere)
			w.after(time.Second)
		}
		var drifts, probes []mono.Time
		for _, ev := range gateway.held().events {
			switch ev.Kind {
			case sa.Drift:
				drifts = append(drifts, ev.At)
				if ev.From != elsewhere || ev.Path.Remote != was.peer {
					t.Errorf("from %v, while the peer is at %v", ev.From, ev.Path.Remote)
				}
			case sa.ProbeSent:
				probes = append(probes, ev.At)
				if ev.Path.Remote != was.peer {
					t.Errorf("probed at %v, want %v", ev.Path.Remote, was.peer)
				}
			case sa.ProbeAnswered:
			default:
				t.Errorf("event %v", ev.Kind)
			}
		}
		want := []mono.Time{began, began.Add(dpd.DriftPause), began.Add(2 * dpd.DriftPause), began.Add(3 * dpd.DriftPause)}
		if !slices.Equal(drifts, want) || !slices.Equal(probes, want) {
			t.Errorf("drifts at %v, probes at %v, want %v", drifts, probes, want)
		}
		if gateway.held().tracked[in] != was {
			t.Errorf("tracked at %v, was %v", gateway.held().tracked[in], was)
		}
		if all, sent, because := gateway.counter(cDrifts), gateway.counter(cProbes), gateway.counter(cProbesDrift); all != tries || sent != 4 || because != 4 {
			t.Errorf("%d drifts, %d probes, %d of them because of one", all, sent, because)
		}
	})
}

// The NAT gives a peer another mapping. The word of it comes before the packet:
// the probe is lost at the old one, and goes to the new one as soon as the
// packet has been authenticated.
func TestDriftBeforeItsPacket(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.behindNAT(clientAddr, natAddr, 7000)
		client, gateway := w.pair(4)
		in := gateway.inSPI()
		w.after(time.Second)
		gateway.happened()
		sent := len(gateway.held().sentIKE)
		w.mu.Lock()
		n.shift += 11
		w.mu.Unlock()
		mapping := netip.AddrPortFrom(n.outer, 4500+n.shift)
		gateway.group.Drifted(in, mapping)
		client.transmit(client.inSPI(), "here I am")
		w.after(4 * w.latency)
		gateway.wantEvents("drift", "probe sent", "moved", "probe answered")
		if probe := gateway.held().sentIKE[sent:]; len(probe) != 2 || !slices.Equal(probe[0], probe[1]) {
			t.Errorf("sent %d messages, want the probe twice", len(probe))
		}
		if got := gateway.held().tracked[in].peer; got != mapping {
			t.Errorf("tracked at %v, want %v", got, mapping)
		}
		// Another packet that was seen before the move was known: nobody asks
		// for that.
		gateway.group.Drifted(in, mapping)
		w.after(w.latency)
		gateway.wantEvents()
	})
}

// The same, but the packet comes first: the probe goes to the new mapping.
func TestDriftBehindItsPacket(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.behindNAT(clientAddr, natAddr, 7000)
		client, gateway := w.pair(2)
		gateway.happened()
		w.mu.Lock()
		n.shift += 11
		w.mu.Unlock()
		client.transmit(client.inSPI(), "here I am")
		w.after(2 * w.latency)
		gateway.group.Drifted(gateway.inSPI(), netip.AddrPortFrom(n.outer, 4500+n.shift))
		w.after(2 * w.latency)
		gateway.wantEvents("moved", "drift", "probe sent", "probe answered")
	})
}

// A hint of a tunnel that is gone or going, or that is being asked already, has
// nobody asked.
func TestDriftsWithoutProbe(t *testing.T) {
	for name, c := range map[string]struct {
		mode   dpd.Mode
		before func(client, gateway *site)
		drift  bool // it is told all the same
		probes uint64
	}{
		"idle, for comparison": {mode: dpd.Idle, drift: true, probes: 1},
		"on demand":            {mode: dpd.OnDemand, drift: true, probes: 1},
		"periodic":             {mode: dpd.Periodic, drift: true, probes: 1},
		"off":                  {mode: dpd.Off, drift: true},
		"being asked": {mode: dpd.Idle, drift: true, before: func(client, gateway *site) {
			client.vanish()
			_, _ = gateway.group.Probe(context.Background(), "*")
		}},
		"being deleted": {mode: dpd.Idle, before: func(client, gateway *site) {
			client.vanish()
			_, _ = gateway.group.Terminate(context.Background(), "*")
		}},
		"to be deleted": {mode: dpd.Idle, drift: true, before: func(client, gateway *site) {
			client.vanish()
			_, _ = gateway.group.Probe(context.Background(), "*")
			_, _ = gateway.group.Terminate(context.Background(), "*")
		}},
		"gone": {mode: dpd.Idle, before: func(_, gateway *site) {
			_, _ = gateway.group.Terminate(context.Background(), "*")
			gateway.w.after(time.Second)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				conns := roadwarriors()
				conns[0].DPD.Mode = c.mode
				gateway := w.site(gatewayAddr, 2, conns)
				client := w.site(clientAddr, 1, home("anna@example.org"))
				client.initiate()
				w.nothingTo(elsewhere)
				in := gateway.inSPI()
				if c.before != nil {
					c.before(client, gateway)
				}
				gateway.happened()
				sent := len(gateway.held().sentIKE)
				gateway.group.Drifted(in, elsewhere)
				w.after(time.Second)
				events := gateway.happened()
				told, messages := slices.Contains(events, "drift"), len(gateway.held().sentIKE)-sent
				if told != c.drift || uint64(messages) != c.probes || gateway.counter(cProbesDrift) != c.probes {
					t.Errorf("%d messages, events %q", messages, events)
				}
				if unknown := gateway.counter(cDriftsUnknown); (unknown == 0) != c.drift {
					t.Errorf("%d hints were of no tunnel", unknown)
				}
			})
		})
	}
}

// An SPI that is no tunnel's has nobody asked, whoever else is there.
func TestDriftOfNobody(t *testing.T) {
	inBubble(t, func(w *world) {
		_, gateway := w.pair(4)
		in := gateway.inSPI()
		gateway.happened()
		for _, spi := range []uint32{in + 4, in + 1, in ^ 1<<slotBits, 0} { // the first is of the same shard
			gateway.group.Drifted(spi, elsewhere)
		}
		w.after(time.Second)
		gateway.wantEvents()
		if unknown, sent := gateway.counter(cDriftsUnknown), gateway.counter(cProbes); unknown != 4 || sent != 0 {
			t.Errorf("%d were of no tunnel, %d probes", unknown, sent)
		}
	})
}
