package shard

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Messages go to the shard that our SPI names, first messages by source and
// SPI, so that a retransmission finds the same.
func TestOwner(t *testing.T) {
	g := (&world{t: t, began: time.Now()}).still(4)
	from := netip.MustParseAddr("203.0.113.9")
	for i := range uint64(8) {
		spi := i<<shardShift | 0xabcdef
		request := wire.Header{SPIi: 99, SPIr: spi, Exchange: wire.Informational, Flags: wire.FlagInitiator}
		answer := wire.Header{SPIi: spi, SPIr: 99, Exchange: wire.Informational, Flags: wire.FlagResponse}
		for _, h := range []wire.Header{request, answer} {
			if got := g.ikeOwner(h, from).index; got != int(i)%4 {
				t.Errorf("%016x goes to shard %d", spi, got)
			}
		}
	}
	first := wire.Header{Exchange: wire.IKESAInit, Flags: wire.FlagInitiator}
	hosts := map[int]int{}
	for i := range uint64(400) {
		first.SPIi = i
		owner := g.ikeOwner(first, from)
		hosts[owner.index]++
		if g.ikeOwner(first, from) != owner {
			t.Fatal("a retransmission goes elsewhere")
		}
		a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1")
		if g.ikeOwner(first, a) != g.ikeOwner(first, b) {
			t.Fatal("one /64 is two sources")
		}
	}
	for i := range 4 {
		if hosts[i] < 50 {
			t.Errorf("of 400 first messages shard %d gets %d", i, hosts[i])
		}
	}
	s := g.shards[3]
	for range 100 {
		if spi := s.newSPI(); spi>>shardShift != 3 {
			t.Fatalf("shard 3 makes SPI %016x", spi)
		}
	}
}

// A shard that does not exist is nobody's, whatever the function says.
func TestESPOwnerOutOfRange(t *testing.T) {
	w := &world{t: t, began: time.Now()}
	for _, owner := range []int{-1, 2, 1 << 20} {
		g := w.still(2)
		g.conf.Edges.ESPShard = func(uint32) int { return owner }
		g.DeliverESP([]wire.Packet{{Data: make([]byte, 100)}})
		g.Drifted(7, elsewhere)
		if g.undeliverable.Load() != 2 {
			t.Errorf("owner %d was taken", owner)
		}
	}
}

func TestNumberOfShards(t *testing.T) {
	for n, ok := range map[int]bool{0: false, 1: true, MaxShards: true, MaxShards + 1: false} {
		w := &world{t: t, began: time.Now()}
		c := w.still(1).conf
		c.Shards = n
		if _, err := NewGroup(c); (err == nil) != ok {
			t.Errorf("%d shards: %v", n, err)
		}
	}
}

func TestSnapshot(t *testing.T) {
	inBubble(t, func(w *world) {
		w.behindNAT(clientAddr, natAddr, 7000)
		client, gateway := w.pair(2)
		w.after(time.Second)
		client.transmit(client.inSPI(), "traffic")
		w.after(10 * time.Second)
		in := gateway.inSPI()
		peers := gateway.peers()
		if len(peers) != 1 {
			t.Fatalf("%+v", peers)
		}
		p := peers[0]
		p.SPI, p.PeerSPI, p.Shard, p.Child.InSPI, p.Child.OutSPI = "", "", 0, "", ""
		got, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		const want = `{"connection":"roadwarriors","identity":"anna@example.org","state":"established","role":"responder",` +
			`"local":"198.51.100.1:4500","remote":"198.51.100.254:11500","local_natted":false,"peer_natted":true,` +
			`"spi":"","peer_spi":"","suite":"aes256gcm16-prfsha256-x25519","shard":0,"up_ms":11030,"heard_ms":11010,` +
			`"round_trip_ms":11010,"proof_ms":9990,"proof":"esp","next_ms":18990,"outstanding":false,"tries":0,"max_tries":5,` +
			`"child":{"connection":"roadwarriors","identity":"anna@example.org","remote":"198.51.100.254:11500","spi_in":"",` +
			`"spi_out":"","suite":"aes256gcm16-esn","local_ts":["10.0.0.0/8"],"remote_ts":["10.99.0.1/32"],"up_ms":11030,` +
			`"idle_ms":9990,"proof_ms":9990,"proof":"esp","next_ms":18990,"outstanding":false,"tries":0,"max_tries":5}}`
		if string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		for match, n := range map[Match]int{"*": 1, "roadwarriors": 1, "anna@example.org": 1, "198.51.100.254": 1,
			"198.51.100.254:11500": 1, Match(peers[0].SPI): 1, Match(espSPI(in)): 1, "": 0, "anna": 0, "00000000": 0} {
			hits := 0
			for _, s := range gateway.group.shards {
				found, err := ask(context.Background(), s, func(mono.Time) int { return len(s.matching(match)) })
				if err != nil {
					t.Fatal(err)
				}
				hits += found
			}
			if hits != n {
				t.Errorf("%q selects %d, want %d", match, hits, n)
			}
		}
	})
}

func TestSelectorNames(t *testing.T) {
	for want, sel := range map[string]wire.Selector{
		"10.0.0.0/8":           prefix("10.0.0.0/8"),
		"0.0.0.0/0":            prefix("0.0.0.0/0"),
		"10.0.0.1/32[6/80]":    {Protocol: 6, StartPort: 80, EndPort: 80, Start: netip.MustParseAddr("10.0.0.1"), End: netip.MustParseAddr("10.0.0.1")},
		"10.0.0.1-10.0.0.2":    {EndPort: 65535, Start: netip.MustParseAddr("10.0.0.1"), End: netip.MustParseAddr("10.0.0.2")},
		"2001:db8::/32[17]":    {Protocol: 17, EndPort: 65535, Start: netip.MustParseAddr("2001:db8::"), End: lastOf(netip.MustParsePrefix("2001:db8::/32"))},
		"10.0.0.0/31[0/1-9]":   {StartPort: 1, EndPort: 9, Start: netip.MustParseAddr("10.0.0.0"), End: netip.MustParseAddr("10.0.0.1")},
		"::/0[58/opaque]":      {Protocol: 58, StartPort: 65535, Start: netip.IPv6Unspecified(), End: lastOf(netip.MustParsePrefix("::/0"))},
		"10.0.0.0-10.0.0.2":    {EndPort: 65535, Start: netip.MustParseAddr("10.0.0.0"), End: netip.MustParseAddr("10.0.0.2")},
		"10.0.0.128/25[1/0-8]": {Protocol: 1, EndPort: 8, Start: netip.MustParseAddr("10.0.0.128"), End: netip.MustParseAddr("10.0.0.255")},
	} {
		if got := SelectorNames([]wire.Selector{sel})[0]; got != want {
			t.Errorf("%+v is shown as %s, want %s", sel, got, want)
		}
	}
}

// Every counter has a name of its own.
func TestCounterNames(t *testing.T) {
	seen := map[string]bool{}
	for i, name := range counterNames {
		if name == "" || seen[name] || strings.ContainsAny(name, " -") {
			t.Errorf("counter %d is called %q", i, name)
		}
		seen[name] = true
	}
}

// How long work has waited for the loop can be seen.
func TestLag(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors())
		gateway.group.shards[1].post(func(mono.Time) { time.Sleep(70 * time.Millisecond) })
		w.after(time.Second)
		if lag := gateway.status().LagMaxUS; lag[0] != 0 || lag[1] != 70000 {
			t.Errorf("lag %v", lag)
		}
	})
}

// What the shards report holds no key: the snapshot of events is made of plain
// facts. The test knows the keys from the data plane.
func TestEventsHoldNoKeys(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(1)
		var keys []string
		for _, c := range gateway.planes[0].in {
			keys = append(keys, fmt.Sprintf("%x", c.InEncr.Bytes()), fmt.Sprint(c.InEncr.Bytes()), string(c.OutEncr.Bytes()))
		}
		client.stop()
		synctest.Wait()
		if r := gateway.group.shards[0].record; len(r) == 0 || slices.ContainsFunc(r[:cap(r)], func(b byte) bool { return b != 0 }) {
			t.Error("the last record is still in memory")
		}
		var shown strings.Builder
		for _, ev := range gateway.held().events {
			fmt.Fprintf(&shown, "%+v %#v\n", ev, ev.Child)
			if ev.Kind == sa.ChildUp && ev.Child == nil {
				t.Error("the Child SA is not described")
			}
		}
		for _, k := range keys {
			if len(k) < 30 || strings.Contains(shown.String(), k) {
				t.Error("an event shows a key")
			}
		}
	})
}

// One turn does a share of everything: less of what costs more.
func TestTurnTakesShares(t *testing.T) {
	w := &world{t: t, began: time.Now()}
	s := w.still(1).shards[0]
	to := func(x wire.ExchangeType) wire.Packet {
		m := wire.Message{Header: wire.Header{SPIi: 1, SPIr: 2, Exchange: x, Flags: wire.FlagInitiator}}
		return wire.Packet{Data: m.Append(nil)}
	}
	told, begun := 0, 0
	for range 1000 {
		s.group.DeliverIKE([]wire.Packet{to(wire.Informational), to(wire.IKEAuth)})
		s.first.offer(func(mono.Time) { begun++ })
		s.post(func(mono.Time) { told++ })
		s.group.DeliverESP([]wire.Packet{{Data: make([]byte, 20)}})
		s.group.DeliverInner(0, make([]byte, 20))
		s.group.Drifted(7, elsewhere)
	}
	for turns := 1; s.turn(w.now()); turns++ {
		calls := s.edges.Sender.(*site).calls
		small, large := min(share*turns, 1000), min(handshakeShare*turns, 1000)
		if s.count[cUnknownSPI] != uint64(small+large) || told != large || begun != large || s.count[cUnknownESP] != uint64(small) ||
			s.count[cDriftsUnknown] != uint64(small) || calls["Transmit"] != small {
			t.Fatalf("after turn %d: %v, %d sealed, %d told, %d begun", turns, s.count, calls["Transmit"], told, begun)
		}
	}
	if s.count[cUnknownSPI] != 2000 || s.count[cUnknownESP] != 1000 || told != 1000 || begun != 1000 {
		t.Errorf("at the end: %v", s.count)
	}
	if handshakeShare > share {
		t.Error("what costs more has the larger share")
	}
	for _, put := range []func(){
		func() { s.group.DeliverIKE([]wire.Packet{to(wire.Informational)}) },
		func() { s.group.DeliverIKE([]wire.Packet{to(wire.IKEAuth)}) },
		func() { s.first.offer(func(mono.Time) {}) },
		func() { s.post(func(mono.Time) {}) },
		func() { s.group.DeliverESP([]wire.Packet{{Data: make([]byte, 20)}}) },
		func() { s.group.DeliverInner(0, make([]byte, 20)) },
	} {
		for range share + 1 {
			put()
		}
		if !s.turn(w.now()) {
			t.Error("more is waiting, but the loop would sleep")
		}
		for s.turn(w.now()) {
		}
	}
	// Since when something waits is told by the first that came.
	s.wokenAt.Store(0)
	s.rouse()
	since := s.wokenAt.Load()
	time.Sleep(time.Millisecond)
	s.rouse()
	if since == 0 || s.wokenAt.Load() != since {
		t.Error("the second has taken the first one's place")
	}
	for range share + 1 {
		s.group.Drifted(7, elsewhere)
	}
	if !s.turn(w.now()) || s.turn(w.now()) || s.count[cDriftsUnknown] != 1000+share+1 {
		t.Errorf("drifts alone: %v", s.count)
	}
}

// The memory of a flood goes when the flood has gone.
func TestInboxGivesMemoryBack(t *testing.T) {
	q := stream{inbox: inbox{maxPackets: 4096, maxBytes: 8 << 20}}
	for range 4096 {
		q.put(wire.Packet{Data: make([]byte, 1500)})
	}
	for q.waiting() {
		q.some(share, func(wire.Packet) {})
	}
	for range 4 {
		q.put(wire.Packet{Data: make([]byte, 100)})
		q.some(share, func(wire.Packet) {})
	}
	if kept := cap(q.taken.memory) + cap(q.filling.memory); kept > 2*spareMemory {
		t.Errorf("%d bytes are kept", kept)
	}
}
