package shard

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
	"github.com/ikepulse/ikepulse/test/require"
)

// attacker counts what goes to an address and what comes back.
type attacker struct {
	s       *site
	from    netip.AddrPort
	in, out int
}

// attack has an address throw datagrams at a site, and checks that it never
// gets more bytes than it has sent.
func (w *world) attack(s *site, from string, next func() []byte) *attacker {
	w.t.Helper()
	a := &attacker{s: s, from: netip.MustParseAddrPort(from)}
	w.mu.Lock()
	old := w.tap
	w.tap = func(p wire.Packet) {
		if p.Remote == a.from {
			a.out += len(p.Data)
			if a.out > a.in {
				w.t.Errorf("%d bytes came in, %d went out: % x", a.in, a.out, p.Data)
			}
		}
	}
	w.mu.Unlock()
	for data := next(); data != nil; data = next() {
		a.in += len(data)
		s.group.DeliverIKE(packetsTo(s, from, data))
		synctest.Wait()
		if w.t.Failed() {
			break
		}
	}
	w.mu.Lock()
	w.tap = old
	w.mu.Unlock()
	return a
}

// All exchange types and flags, out of any state: nothing comes of them.
func TestEveryHeader(t *testing.T) {
	for _, state := range []string{"unknown", "half-open", "established"} {
		t.Run(state, func(t *testing.T) {
			inBubble(t, func(w *world) {
				client, gateway := w.pair(2)
				peer := client.peers()[0]
				var spii, spir uint64 = 0x1111, 1<<shardShift | 0x2222
				switch state {
				case "established":
					fmt.Sscanf(peer.SPI, "%x", &spii)
					fmt.Sscanf(peer.PeerSPI, "%x", &spir)
				case "half-open":
					gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.8:500", initRequest(t, spii)))
					w.after(time.Millisecond)
					for _, p := range gateway.peers() {
						if p.State == "half-open" {
							fmt.Sscanf(p.SPI, "%x", &spir)
						}
					}
				}
				before := gateway.status()
				n := 0
				a := w.attack(gateway, "203.0.113.9:500", func() []byte {
					if n == 1<<16 {
						return nil
					}
					m := wire.Message{Header: wire.Header{SPIi: spii, SPIr: spir, Exchange: wire.ExchangeType(n >> 8),
						Flags: wire.Flags(n)}, Payloads: []wire.Payload{&wire.Raw{T: wire.TypeVendor, Data: make([]byte, 60)}}}
					if n++; n%2 == 0 {
						time.Sleep(5 * time.Millisecond)
					}
					return m.Append(nil)
				})
				// The half-open one has run out of time meanwhile.
				after := gateway.status()
				if after.Up != 1 || after.Connecting != 0 || after.Handshakes.HalfOpen != 0 || after.Up != before.Up {
					t.Errorf("before %+v, after %+v", before, after)
				}
				if state != "established" && a.out == 0 {
					t.Error("no request outside of any SA was answered")
				}
				if n := gateway.counter(cPanics); n != 0 {
					t.Errorf("%d panics", n)
				}
				// A tunnel that anybody speaks to still works.
				gateway.happened()
				_, _ = gateway.group.Probe(context.Background(), "*")
				w.after(time.Second)
				gateway.wantEvents("probe sent", "probe answered")
			})
		})
	}
}

// Versions: 1 gets no byte, 3 is told so, seldom; an answer gets none.
func TestVersions(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors())
		message := func(version uint8, flags wire.Flags) []byte {
			m := initRequest(t, 77)
			m[17], m[19] = version, byte(flags)
			return m
		}
		bare := (&wire.Message{Header: wire.Header{SPIi: 77, Flags: wire.FlagInitiator}}).Append(nil)
		bare[17] = 0x30
		var answers [][]byte
		w.tap = func(p wire.Packet) { answers = append(answers, p.Data) }
		for _, tt := range []struct {
			data []byte
			want int
		}{
			{message(0x10, wire.FlagInitiator), 0},
			{message(0x00, wire.FlagInitiator), 0},
			{message(0x30, wire.FlagInitiator|wire.FlagResponse), 0},
			{message(0x30, wire.FlagInitiator)[:28], 0}, // not as long as it says
			{bare, 0}, // shorter than the answer
			{message(0x30, wire.FlagInitiator), 1},
			{message(0x30, wire.FlagInitiator), 0}, // again within a second
		} {
			answers = nil
			gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.9:500", tt.data))
			synctest.Wait()
			if len(answers) != tt.want {
				t.Fatalf("version %02x flags %02x, %d bytes: %d answers, want %d", tt.data[17], tt.data[19], len(tt.data), len(answers), tt.want)
			}
			if tt.want == 1 {
				m, err := wire.Parse(answers[0])
				if err != nil || m.Version != 0x20 || m.Flags != wire.FlagResponse || m.SPIi != 77 {
					t.Errorf("%+v %v", m, err)
				} else if _, ok := wire.FindNotify(m.Payloads, wire.InvalidMajorVersion); !ok {
					t.Errorf("%+v", m.Payloads)
				}
			}
		}
		gateway.wantOrderly()
	})
}

// A request for an SA that is not there is told so, once a second and source.
func TestUnknownSPI(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 4, roadwarriors())
		m := wire.Message{Header: wire.Header{SPIi: 5, SPIr: 3 << shardShift, Exchange: wire.Informational,
			Flags: wire.FlagInitiator, MessageID: 9}, Payloads: []wire.Payload{&wire.Raw{T: wire.TypeVendor, Data: make([]byte, 8)}}}
		request := m.Append(nil)
		var answers []wire.Packet
		w.tap = func(p wire.Packet) { answers = append(answers, p) }
		for range 100 {
			for shard := range 4 {
				request[8] = byte(shard)
				gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.9:4500", request))
			}
			w.after(100 * time.Millisecond)
		}
		if len(answers) != 10 {
			t.Fatalf("%d answers in 10 s", len(answers))
		}
		got, err := wire.Parse(answers[0].Data)
		if err != nil || got.MessageID != 9 || got.SPIi != 5 || got.Flags != wire.FlagResponse || !answers[0].NATT {
			t.Errorf("%+v %v", got, err)
		} else if _, ok := wire.FindNotify(got.Payloads, wire.InvalidIKESPI); !ok {
			t.Errorf("%+v", got.Payloads)
		}
		// From an original responder the answer has the other flag.
		w.after(time.Second)
		answers, request[19] = nil, 0
		gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.9:4500", request))
		w.after(time.Millisecond)
		if len(answers) != 1 || answers[0].Data[19] != byte(wire.FlagResponse|wire.FlagInitiator) {
			t.Errorf("%v", answers)
		}
	})
}

// heap is what is alive.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Junk of every length, and first messages by the thousand that nobody follows
// up: when it is over, nothing is left of it, in the tables or on the heap.
func TestFloodLeavesNothing(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(2)
		rng := mathrand.New(mathrand.NewPCG(3, 4))
		good := initRequest(t, 99)
		flood := func() {
			for i := range 3000 {
				junk := make([]byte, rng.IntN(300))
				for j := range junk {
					junk[j] = byte(rng.Uint32())
				}
				from := fmt.Sprintf("203.0.113.%d:%d", i%250+1, 1024+i)
				init := bytes.Clone(good)
				binary.BigEndian.PutUint64(init, rng.Uint64()|1)
				cut := init[:rng.IntN(len(init))]
				gateway.group.DeliverIKE(packetsTo(gateway, from, junk, init, cut))
				gateway.group.DeliverESP(packetsTo(gateway, from, junk))
				synctest.Wait()
			}
			if st := gateway.status(); st.Handshakes.HalfOpen == 0 || st.Handshakes.HalfOpen > st.Handshakes.CookiesFrom || st.Counters["cookies_demanded"] == 0 {
				t.Errorf("in the flood: %+v", st)
			}
			w.after(time.Minute)
			gateway.mu.Lock()
			gateway.events, gateway.sentIKE = nil, nil
			gateway.mu.Unlock()
		}
		flood() // the tables and queues have grown to their sizes
		w.after(time.Minute)
		before := heap()
		flood()
		w.after(time.Minute)
		if grown := heap() - before; grown > 256<<10 {
			t.Errorf("the heap has grown by %d bytes", grown)
		}
		if st := gateway.status(); st.Up != 1 || st.Connecting != 0 || st.Handshakes.HalfOpen != 0 || st.Counters["panics"] != 0 {
			t.Errorf("%+v", st)
		}
		client.stop()
		w.after(time.Second)
		gateway.wantOrderly()
	})
}

// Beyond a threshold a first message leaves nothing until its sender has shown
// that the address is his; whoever does gets in, in the middle of a flood.
func TestCookies(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors(), func(c *Config) { c.Limits.CookiesFrom = 10 })
		n := uint64(0)
		w.attack(gateway, "203.0.113.9:500", func() []byte {
			if n++; n > 200 {
				return nil
			}
			return initRequest(t, n)
		})
		for i := range uint64(100) {
			gateway.group.DeliverIKE(packetsTo(gateway, fmt.Sprintf("203.0.113.%d:500", 10+i), initRequest(t, i+1)))
		}
		w.after(time.Millisecond)
		st := gateway.status()
		if st.Handshakes.HalfOpen != 10 || st.Connecting != 10 || st.Counters["cookies_demanded"] != 200-3+100-7 {
			t.Errorf("%+v", st)
		}
		// A cookie that is wrong is none.
		gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.9:500",
			initRequest(t, 5000, &wire.Notify{Kind: wire.Cookie, Data: make([]byte, 17)})))
		w.after(time.Millisecond)
		if st := gateway.status(); st.Handshakes.HalfOpen != 10 {
			t.Errorf("with a wrong cookie: %+v", st)
		}
		w.site(clientAddr, 1, home("anna@example.org")).initiate()
		if st := gateway.status(); st.Up != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// There is an end to the number of tunnels, and handshakes take no place of
// theirs: neither those of strangers, nor those of clients who come too late.
func TestTableFull(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors(), func(c *Config) { c.MaxSAs = 3 })
		for i := range uint64(10) {
			gateway.group.DeliverIKE(packetsTo(gateway, fmt.Sprintf("203.0.113.%d:500", 10+i), initRequest(t, i+1)))
		}
		w.after(time.Millisecond)
		if st := gateway.status(); st.Handshakes.HalfOpen != 10 || st.Counters["table_full"] != 0 {
			t.Errorf("%+v", st)
		}
		// Five at once begin, since there is room; three find it still there.
		outcome := make(chan error)
		for i := range 5 {
			client := w.site(fmt.Sprintf("10.7.0.%d", 10+i), 1, home(fmt.Sprintf("client%d@example.org", i)))
			go func() { outcome <- client.group.Initiate(context.Background(), "home") }() // ends with its outcome
		}
		refused := 0
		for range 5 {
			if err := <-outcome; err != nil {
				refused++
				if !strings.Contains(err.Error(), "TEMPORARY_FAILURE") {
					t.Errorf("refused with %v", err)
				}
			}
		}
		if st := gateway.status(); st.Up != 3 || refused != 2 || st.Counters["table_full"] != 2 || st.Counters["auth_failed"] != 0 {
			t.Errorf("%d refused: %+v", refused, st)
		}
		// Now nobody is even begun with.
		gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.99:500", initRequest(t, 99)))
		w.after(time.Millisecond)
		if st := gateway.status(); st.Connecting != 10 || st.Counters["table_full"] != 3 {
			t.Errorf("%+v", st)
		}
		// Who goes leaves room.
		if n, err := gateway.group.Terminate(context.Background(), Match(gateway.peersUp()[0])); n != 1 || err != nil {
			t.Fatalf("terminated %d, %v", n, err)
		}
		w.after(time.Second)
		w.site("10.7.0.30", 1, home("late@example.org")).initiate()
	})
}

// peersUp are the identities of those who are connected.
func (s *site) peersUp() (ids []string) {
	for _, p := range s.peers() {
		if p.State == "established" {
			ids = append(ids, p.Identity)
		}
	}
	return ids
}

// A retransmitted first message is the same SA, gets the same bytes, and costs
// no second key exchange; from elsewhere, or with other content, it is another.
func TestRetransmittedInit(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 4, roadwarriors())
		var answers [][]byte
		w.tap = func(p wire.Packet) { answers = append(answers, p.Data) }
		first, other := initRequest(t, 42), initRequest(t, 42)
		for _, tt := range []struct {
			from string
			data []byte
			want int
		}{{"203.0.113.9:500", first, 1}, {"203.0.113.9:500", first, 1}, {"203.0.113.9:501", first, 2}, {"203.0.113.9:500", other, 3}} {
			gateway.group.DeliverIKE(packetsTo(gateway, tt.from, tt.data))
			w.after(time.Millisecond)
			if st := gateway.status(); st.Handshakes.HalfOpen != tt.want {
				t.Errorf("from %s: %d half-open, want %d", tt.from, st.Handshakes.HalfOpen, tt.want)
			}
		}
		if len(answers) != 4 || !bytes.Equal(answers[0], answers[1]) || bytes.Equal(answers[1], answers[2]) || bytes.Equal(answers[1], answers[3]) {
			t.Errorf("%d answers, not as they should be", len(answers))
		}
		w.after(time.Minute)
		gateway.wantOrderly()
	})
}

// An address that has proved nothing gets no more bytes than came from it,
// whatever an SA would like to send.
func TestCredit(t *testing.T) {
	w := &world{t: t, began: time.Now(), sites: map[netip.Addr]*site{}, rng: mathrand.New(mathrand.NewPCG(1, 1))}
	s := w.still(1).shards[0]
	sent := s.edges.Sender.(*site)
	e := &entry{sa: sa.NewResponder(&s.env, 1), pending: &pending{}}
	from := packetsTo(sent, "203.0.113.9:500", make([]byte, 100))[0]
	reply := func(to string, n int) bool {
		before := sent.sent
		p := packetsTo(sent, to, make([]byte, n))[0]
		s.send(e, p)
		return sent.sent > before
	}
	e.pending.credited(from)
	if !reply("203.0.113.9:500", 60) || reply("203.0.113.9:500", 41) || reply("203.0.113.10:500", 1) || !reply("203.0.113.9:500", 40) {
		t.Error("100 bytes came in, and not just as many went out")
	}
	// What one address has sent is no credit for another.
	e.pending.credited(from)
	from.Remote = netip.MustParseAddrPort("203.0.113.10:500")
	e.pending.credited(from)
	if !reply("203.0.113.10:500", 100) || reply("203.0.113.10:500", 1) || reply("203.0.113.9:500", 1) {
		t.Error("the credit went to another address")
	}
	e.pending.proven = true
	if !reply("203.0.113.9:500", 1000) || s.count[cWithheld] != 4 {
		t.Errorf("%d were withheld", s.count[cWithheld])
	}
}

// Messages as they were seen in the world, good, cut off and malformed.
func TestCases(t *testing.T) {
	file, err := os.Open(filepath.Join(require.Cases(t), "ike_messages.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var messages [][]byte
	for d := json.NewDecoder(file); d.More(); {
		var m struct {
			Raw string `json:"raw"`
		}
		if err := d.Decode(&m); err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(m.Raw)
		if err != nil || len(b) == 0 {
			t.Fatalf("%q: %v", m.Raw, err)
		}
		messages = append(messages, b)
	}
	inBubble(t, func(w *world) {
		client, gateway := w.pair(2)
		for i, m := range messages {
			cut := len(m)
			a := w.attack(gateway, fmt.Sprintf("203.0.113.9:%d", 1024+i), func() []byte {
				if cut <= 0 {
					return nil
				}
				b := m[:cut]
				cut -= 1 + len(m)/16
				return b
			})
			if m[17]>>4 == 1 && a.out > 0 {
				t.Errorf("message %d of version 1 got %d bytes", i, a.out)
			}
			time.Sleep(time.Second)
		}
		w.after(time.Minute)
		if st := gateway.status(); st.Up != 1 || st.Connecting != 0 || st.Handshakes.HalfOpen != 0 || st.Counters["panics"] != 0 {
			t.Errorf("after %d messages: %+v", len(messages), st)
		}
		client.stop()
		w.after(time.Second)
		gateway.wantOrderly()
	})
}
