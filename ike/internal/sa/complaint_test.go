package sa

import (
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// TestForgedComplaintsAreFew: whoever sees a handshake can forge its answers, of
// as many kinds as there are; a few of them are told, and the handshake goes on.
func TestForgedComplaintsAreFew(t *testing.T) {
	w := newWorld(t)
	w.initiate()
	for i := range 1000 {
		m := wire.Message{Header: wire.Header{SPIi: 0xc11e47, SPIr: 5, Exchange: wire.IKESAInit, Flags: wire.FlagResponse},
			Payloads: []wire.Payload{&wire.Notify{Kind: wire.NotifyType(100 + i)}}}
		w.arrive(w.client, wire.Packet{Local: clientAddr, Remote: gatewayAddr, Data: m.Append(nil)})
	}
	told := 0
	for _, e := range w.client.events {
		if e.Kind == Refusing {
			told++
		}
	}
	if told != maxComplaints {
		t.Errorf("%d complaints were told, want %d", told, maxComplaints)
	}
	w.run(5 * time.Second)
	if w.client.sa == nil || w.client.sa.State() != Up {
		t.Errorf("the handshake failed: %+v", w.client.events)
	}
}
