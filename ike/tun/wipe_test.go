package tun

import (
	"encoding/binary"
	"testing"

	"github.com/ikepulse/ikepulse/ike/esp"
)

// TestWiped: a tunnel has its own copies of the keys, and a direction that is
// removed has none any more, whoever still holds it.
func TestWiped(t *testing.T) {
	_, gateway, _, c := twoSides(t)
	gateway.install(c)
	for _, k := range []interface{ Wipe() }{c.InEncr, c.InInteg, c.OutEncr, c.OutInteg} {
		k.Wipe() // as its SA does, at any time
	}
	var in *esp.Inbound
	var out *esp.Outbound
	gateway.mustDo(func(h *Shard) error {
		in, out = h.tunnels[c.InSPI].in, h.tunnels[c.InSPI].out
		return nil
	})
	packet, forged := ip4("10.0.0.1", "10.99.0.7"), binary.BigEndian.AppendUint32(nil, c.InSPI)
	forged = append(forged, make([]byte, 96)...)
	forged[7] = 1 // its number
	seals := func() bool { return works(func() { _, _ = out.Seal(nil, packet) }) }
	opens := func() bool { return works(func() { _, _, _ = in.Open(nil, forged, 0) }) }
	if !seals() || !opens() {
		t.Fatal("the tunnel does not work to begin with")
	}
	gateway.mustDo(func(h *Shard) error { return h.RemoveOutbound(c.InSPI, c.OutSPI) })
	if seals() || !opens() {
		t.Error("removed outbound: it can seal, or not open")
	}
	gateway.mustDo(func(h *Shard) error { return h.RemoveInbound(c.InSPI, c.OutSPI) })
	if opens() {
		t.Error("removed inbound: it can open")
	}
}

// works is false if f finds no keys.
func works(f func()) (ok bool) {
	defer func() { ok = recover() == nil }()
	f()
	return
}
