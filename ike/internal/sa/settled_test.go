package sa

import (
	"testing"
	"time"
)

// deliverUntilUp calls, and does nothing but deliver messages until a node's SA stands.
func (w *world) deliverUntilUp(n *node) {
	w.initiate()
	for n.sa == nil || n.sa.State() != Up {
		w.now = w.now.Add(w.latency)
		w.deliver()
	}
}

// TestSettledByWhatComesNext: a message that follows the handshake at once finds no
// memory of it, and so its record has the room that was asked for.
func TestSettledByWhatComesNext(t *testing.T) {
	for side := range 2 {
		for _, command := range []Command{Probe{}, Terminate{}} {
			w := newWorld(t)
			n := []*node{w.client, w.gateway}[side]
			w.deliverUntilUp(n)
			roomy := len(n.record) + n.room
			w.do(n, command)
			if n.sa.hs != nil || n.sa.rec.Request == nil || len(n.sa.rec.Keys.Pi.Bytes()) != 0 {
				t.Errorf("%s, %T: memory of the handshake %v, request %x", n.name, command, n.sa.hs != nil, n.sa.rec.Request)
			}
			if len(n.record) > roomy {
				t.Errorf("%s, %T: a record of %d bytes, and there was room for %d", n.name, command, len(n.record), roomy)
			}
		}
	}
}

// TestSettledByAMessage: the same of a message of the peer.
func TestSettledByAMessage(t *testing.T) {
	w := newWorld(t)
	w.deliverUntilUp(w.client)
	w.do(w.gateway, Probe{})
	w.now = w.now.Add(w.latency)
	w.deliver()
	if w.client.sa.hs != nil {
		t.Error("there is memory of the handshake still")
	}
}

// TestDisplacedBeforeAdmission: an SA whose place another one takes while its own
// admission is waited for ends at both ends.
func TestDisplacedBeforeAdmission(t *testing.T) {
	for side := range 2 {
		w := newWorld(t)
		n := []*node{w.client, w.gateway}[side]
		n.onAdmit = func() { w.do(n, Displace{}) }
		w.initiate()
		w.run(time.Second)
		if w.client.sa != nil || w.gateway.sa != nil {
			t.Errorf("%s is displaced: the client has %v, the gateway %v", n.name, w.client.sa, w.gateway.sa)
		}
		for _, n := range []*node{w.client, w.gateway} {
			if err := n.empty(); err != nil {
				t.Errorf("%s: %v", n.name, err)
			}
		}
	}
}
