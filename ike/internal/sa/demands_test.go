package sa

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// demand has the gateway ask for something, sealed and authentic.
func (w *world) demand(ex wire.ExchangeType, ps ...wire.Payload) {
	var out Effects
	w.gateway.sa.start(w.now, probeRequest, ex, &out, ps...)
	w.carryOut(w.gateway, &out)
	w.run(100 * time.Millisecond)
}

// notify is one without a meaning here, or with one that may be claimed.
func notify(r *rand.Rand) wire.Payload {
	n := &wire.Notify{Kind: wire.NotifyType(r.IntN(1 << 16)), Data: make([]byte, r.IntN(200))}
	if n.Kind == wire.AuthenticationFailed { // by which a peer may end what is his
		n.Kind++
	}
	if r.IntN(2) == 0 {
		n.Protocol, n.SPI = wire.ProtoESP, binary.BigEndian.AppendUint32(nil, r.Uint32())
	}
	return n
}

// TestDemands: a gateway that has the secret asks its client for whatever there
// is, again and again. Each time it gets one small answer; the client keeps the
// tunnel, the addresses, the path and the memory that it had.
func TestDemands(t *testing.T) {
	w := newWorld(t)
	w.establish()
	r := rand.New(rand.NewPCG(7, 7))
	client, gateway := w.client, w.gateway
	ours, theirs := client.sa.rec.Child.InSPI, client.sa.rec.Child.OutSPI
	esp := func(spis ...uint32) wire.Payload { return &wire.Delete{Protocol: wire.ProtoESP, SPIs: spis} }
	offered := func() []wire.Payload {
		return []wire.Payload{
			&wire.SA{Proposals: offer(gateway.conn.Child.Proposals, wire.ProtoESP, spiBytes(r.Uint32()))}, &wire.Nonce{Data: make([]byte, 32)},
			&wire.TS{T: wire.TypeTSi, Selectors: []wire.Selector{all4}}, &wire.TS{T: wire.TypeTSr, Selectors: []wire.Selector{all4}}}
	}
	address := func(kind wire.CPType) wire.Payload {
		return &wire.CP{Kind: kind, Attrs: []wire.CPAttr{
			{Type: wire.CPInternalIP4Address, Value: netip.MustParseAddr("10.7.0.1").AsSlice()},
			{Type: wire.CPInternalIP4DNS, Value: netip.MustParseAddr("10.66.0.53").AsSlice()}}}
	}
	var answer int
	w.drop = func(f flight) bool {
		if f.from == client {
			answer = max(answer, len(f.packet.Data))
		}
		return false
	}
	was, record := fmt.Sprint(client.in, client.out, client.tracked, client.moved), len(state(client))
	events := len(client.events)
	for _, d := range []struct {
		name string
		what func() (wire.ExchangeType, []wire.Payload)
	}{
		{"notifies", func() (wire.ExchangeType, []wire.Payload) {
			var ps []wire.Payload
			for range 1 + r.IntN(40) {
				ps = append(ps, notify(r))
			}
			return wire.Informational, ps
		}},
		{"deletes of others' SPIs", func() (wire.ExchangeType, []wire.Payload) {
			spis := []uint32{ours, 0, ^uint32(0)} // what we receive on is not the gateway's to name
			for range r.IntN(300) {
				if spi := r.Uint32(); spi != theirs {
					spis = append(spis, spi)
				}
			}
			return wire.Informational, []wire.Payload{esp(spis...), &wire.Delete{Protocol: wire.ProtoAH, SPIs: []uint32{theirs}}}
		}},
		{"Child SAs", func() (wire.ExchangeType, []wire.Payload) { return wire.CreateChildSA, offered() }},
		{"a rekeying of the Child SA", func() (wire.ExchangeType, []wire.Payload) {
			return wire.CreateChildSA, append(offered(), &wire.Notify{Kind: wire.RekeySA, Protocol: wire.ProtoESP, SPI: spiBytes(theirs)})
		}},
		{"a rekeying of the IKE SA", func() (wire.ExchangeType, []wire.Payload) {
			spi := binary.BigEndian.AppendUint64(nil, r.Uint64())
			return wire.CreateChildSA, []wire.Payload{&wire.SA{Proposals: offer(gateway.conn.Proposals, wire.ProtoIKE, spi)},
				&wire.Nonce{Data: make([]byte, 32)}, &wire.KE{Group: 31, Data: make([]byte, 32)}}
		}},
		{"addresses", func() (wire.ExchangeType, []wire.Payload) {
			kinds := []wire.CPType{wire.CFGRequest, wire.CFGReply, wire.CFGSet}
			return wire.Informational, []wire.Payload{address(kinds[r.IntN(3)])}
		}},
		{"a move", func() (wire.ExchangeType, []wire.Payload) {
			hash := make([]byte, 20)
			return wire.Informational, []wire.Payload{&wire.Notify{Kind: wire.UpdateSAAddresses},
				&wire.Notify{Kind: wire.NATDetectionSource, Data: hash}, &wire.Notify{Kind: wire.NATDetectionDest, Data: hash}}
		}},
		{"authentication", func() (wire.ExchangeType, []wire.Payload) {
			return wire.IKEAuth, append(offered(), address(wire.CFGReply), &wire.Notify{Kind: wire.InitialContact})
		}},
		{"an exchange of another kind", func() (wire.ExchangeType, []wire.Payload) { return wire.ExchangeType(38 + r.IntN(200)), nil }},
	} {
		for range 200 {
			if client.sa == nil || gateway.sa == nil {
				t.Fatalf("%s: an SA is gone: %+v", d.name, client.last())
			}
			ex, ps := d.what()
			before, received := gateway.received, client.received
			answer = 0
			w.demand(ex, ps...)
			if gateway.received != before+1 || client.received != received+1 {
				t.Fatalf("%s: %d requests have come, and %d answers went", d.name, client.received-received, gateway.received-before)
			}
			if answer > 120 {
				t.Errorf("%s: an answer of %d bytes", d.name, answer)
			}
		}
		if now := fmt.Sprint(client.in, client.out, client.tracked, client.moved); now != was {
			t.Errorf("%s: the client has %s, had %s", d.name, now, was)
		}
		if now := len(state(client)); now > record+200 { // the answer that is kept
			t.Errorf("%s: the record has %d bytes, had %d", d.name, now, record)
		}
	}
	if n := len(client.events) - events; n != 0 {
		t.Errorf("%d events: %+v", n, client.last())
	}
	w.demand(wire.Informational, esp(theirs))
	if len(client.in)+len(client.out) != 0 || client.last().Kind != ChildGone {
		t.Error("what the gateway may delete stays")
	}
}

// TestFragmentsWithoutEnd: fragments are not taken yet, so none is kept, and
// none costs the peer an answer.
func TestFragmentsWithoutEnd(t *testing.T) {
	w := newWorld(t)
	w.establish()
	before := state(w.client)
	var packet wire.Packet
	w.drop = func(f flight) bool {
		if f.from == w.gateway {
			packet = f.packet
		}
		return true
	}
	w.demand(wire.Informational, &wire.Notify{Kind: 65000})
	const nextPayload = 16
	packet.Data[nextPayload] = byte(wire.TypeSKF)
	for i := range 5000 {
		binary.BigEndian.PutUint16(packet.Data[wire.HeaderLen+4:], uint16(i+1)) // of
		binary.BigEndian.PutUint16(packet.Data[wire.HeaderLen+6:], 65535)
		var out Effects
		if err := w.client.sa.Handle(w.now, packet, &out); err == nil || len(out.Steps) != 0 {
			t.Fatalf("fragment %d: %v, %d steps", i, err, len(out.Steps))
		}
	}
	if string(state(w.client)) != string(before) {
		t.Error("the record has changed")
	}
}
