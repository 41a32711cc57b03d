package sa

import (
	"testing"
	"time"
)

// TestToldToEndAndFails: whatever step fails of an SA that was told to end before
// it stood, the peer hears of the end: of one DELETE, which he expects.
func TestToldToEndAndFails(t *testing.T) {
	for _, step := range []string{"Admit", "Persist", "Track", "InstallInbound", "InstallOutbound"} {
		for side := range 2 {
			w := newWorld(t)
			n := []*node{w.client, w.gateway}[side]
			n.onAdmit = func() { w.do(n, Terminate{}) }
			n.fail = step
			if step == "Admit" { // which is not carried out then
				w.initiate()
				for w.client.sa.State() != AuthSent {
					w.run(w.latency)
				}
				w.do(w.client, Terminate{})
			} else {
				w.initiate()
			}
			w.run(10 * time.Second) // with a retransmission
			if n.fail != "" {
				t.Fatalf("%s, %s has not failed", n.name, step)
			}
			if w.client.sa != nil || w.gateway.sa != nil {
				t.Errorf("%s, %s: the client has %v, the gateway %v", n.name, step, w.client.sa, w.gateway.sa)
			}
			for _, n := range []*node{w.client, w.gateway} {
				if err := n.empty(); err != nil {
					t.Errorf("%s, %s: %v", n.name, step, err)
				}
			}
		}
	}
}
