package shard

import (
	"crypto/rand"
	"net/netip"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// packetsTo are datagrams from an address to a site.
func packetsTo(s *site, from string, datas ...[]byte) (out []wire.Packet) {
	remote := netip.MustParseAddrPort(from)
	local := netip.AddrPortFrom(s.addr, 500)
	if remote.Port() != 500 {
		local = netip.AddrPortFrom(s.addr, 4500)
	}
	for _, d := range datas {
		out = append(out, wire.Packet{Local: local, Remote: remote, NATT: local.Port() == 4500, Data: d})
	}
	return out
}

// still is a group that does not run, in no bubble.
func (w *world) still(shards int) *Group {
	w.t.Helper()
	s := &site{w: w, addr: netip.MustParseAddr(gatewayAddr), calls: map[string]int{}, spis: map[uint32]bool{}}
	s.conf = Config{Edges: Edges{Tracker: s, DataPlane: func(int) DataPlane { return &plane{site: s} }, Sender: s,
		AllocSPI: s.alloc, FreeSPI: s.free, ESPShard: s.espShard}, Policy: policy.NewSet(nil, nil), Shards: shards,
		Listen: []netip.Addr{s.addr}, Rand: rand.Reader, Clock: w.now, MaxSAs: 100, Limits: halfopen.Limits{}.Auto(100)}
	g, err := NewGroup(s.conf)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// initRequest is a first message, from a client with that SPI.
func initRequest(t testing.TB, spi uint64, extra ...wire.Payload) []byte {
	t.Helper()
	private, err := suite.Generate(wire.KEX25519, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	proposal := ikeProposals("aes256gcm16-prfsha256-x25519")[0].Wire(1, wire.ProtoIKE, nil)
	m := wire.Message{Header: wire.Header{SPIi: spi, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator},
		Payloads: append(extra, &wire.SA{Proposals: []wire.Proposal{proposal}},
			&wire.KE{Group: wire.KEX25519, Data: private.Public()}, &wire.Nonce{Data: make([]byte, 32)})}
	return m.Append(nil)
}
