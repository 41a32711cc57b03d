package shard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/dpd"
	"github.com/ikepulse/ikepulse/ike/internal/halfopen"
	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// crowd is a site that is many clients, with so many of them at each address.
func (w *world) crowd(clients, perAddress int) *site {
	w.t.Helper()
	base := home("anna@example.org")[0]
	var conns []*policy.Connection
	var addrs []netip.Addr
	for i := range clients {
		if i%perAddress == 0 {
			addrs = append(addrs, netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24|uint32(i/perAddress+1)))))
		}
		conn := *base
		conn.Name, conn.LocalID = fmt.Sprintf("client%d", i), identity(fmt.Sprintf("client%d@example.org", i))
		conn.Backoff.Tries = 9 // patient, since the network is bad
		conn.Locals = addrs[len(addrs)-1:]
		conns = append(conns, &conn)
	}
	s := w.site(addrs[0].String(), 4, conns, func(c *Config) { c.Listen, c.MaxSAs, c.Workers = addrs, clients, 2 })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addrs {
		w.sites[a] = s
	}
	return s
}

// burstPause lets the demand for cookies end between two bursts.
const burstPause = 15 * time.Second

// come has all clients call in so many bursts of a second each, and tells how
// each has ended.
func (s *site) come(bursts int) (outcomes map[string]int) {
	outcomes = map[string]int{}
	done := make(chan error)
	for i := range s.conf.Policy.Connections {
		go func() { // ends with its outcome
			inBurst := len(s.conf.Policy.Connections) / bursts
			time.Sleep(time.Duration(i/inBurst)*burstPause + time.Second*time.Duration(i%inBurst)/time.Duration(inBurst))
			name := s.conf.Policy.Connections[i].Name
			err := s.group.Initiate(context.Background(), name)
			for ; errors.Is(err, ErrBusy); err = s.group.Initiate(context.Background(), name) {
				time.Sleep(10 * time.Millisecond)
			}
			done <- err
		}()
	}
	for range s.conf.Policy.Connections {
		why := "up"
		if err := <-done; err != nil {
			why = err.Error()
		}
		outcomes[why]++
	}
	return outcomes
}

// surgeSize is how many clients come at once.
func surgeSize() int {
	if testing.Short() || raceDetector {
		return 2000
	}
	return 20000
}

// TestSurge: everybody comes at once over a network that loses, repeats and
// reorders, with the usual retransmissions, and the demand for cookies begins
// and ends again and again meanwhile. All come up; nobody is told that his AUTH
// is wrong.
func TestSurge(t *testing.T) {
	clients := surgeSize()
	for _, tt := range []struct {
		name       string
		perAddress int
		bursts     int
	}{
		{"an address each", 1, 1},
		{"again and again", 1, 8},
		{"200 at an address", 200, 1},
		{"one address", clients, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.quiet = true
				w.latency, w.jitter, w.loss, w.dup = 5*time.Millisecond, 300*time.Millisecond, 0.02, 0.1
				if tt.perAddress > 1 {
					// Who is late has lost his place to those who wait at the
					// same address, and must begin anew.
					w.loss = 0
				}
				conns := roadwarriors()
				conns[0].DPD.Mode = dpd.Off
				gateway := w.site(gatewayAddr, 4, conns, func(c *Config) {
					c.MaxSAs, c.Limits.CookiesFrom = clients, clients/40
				})
				crowd := w.crowd(clients, tt.perAddress)
				stop := make(chan struct{})
				crossed := make(chan int)
				go func() { crossed <- gateway.crossings(stop) }() // ends with stop
				outcomes := crowd.come(tt.bursts)
				close(stop)
				st := gateway.status()
				if len(outcomes) != 1 || outcomes["up"] != clients || st.Up != clients || st.Counters["auth_failed"] != 0 || st.Counters["panics"] != 0 {
					t.Errorf("of %d clients: %v; the gateway has %d up, %d AUTHs failed", clients, outcomes, st.Up, st.Counters["auth_failed"])
				}
				if n := <-crossed; n < 2*tt.bursts-1 || st.Counters["cookies_demanded"] == 0 {
					t.Errorf("the threshold was crossed %d times, %d cookies demanded: too little to try anything", n, st.Counters["cookies_demanded"])
				}
				w.after(time.Minute)
				if st := gateway.status(); st.Handshakes.HalfOpen != 0 || st.Connecting != 0 || st.Taken != clients {
					t.Errorf("a minute later: %+v", st.Handshakes)
				}
			})
		})
	}
}

// crossings counts how often the number of half-open SAs crosses the threshold
// of cookies, until stop.
func (s *site) crossings(stop chan struct{}) (n int) {
	above := false
	for {
		select {
		case <-stop:
			return n
		case <-time.After(5 * time.Millisecond):
		}
		if h := s.group.handshakes(); (h.HalfOpen >= h.CookiesFrom) != above {
			above = !above
			n++
		}
	}
}

// TestSurgeIsTold: a surge is told once when it begins and once when it is over,
// with what it has cost.
func TestSurgeIsTold(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors(), func(c *Config) { c.Limits.CookiesFrom = 10 })
		for i := range uint64(5) { // of which two are asked for a cookie
			gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.9:500", initRequest(t, 1000+i)))
		}
		w.after(time.Minute)
		for i := range uint64(30) {
			gateway.group.DeliverIKE(packetsTo(gateway, fmt.Sprintf("203.0.113.%d:500", 10+i), initRequest(t, i+1)))
		}
		w.after(5 * time.Second)
		w.site(clientAddr, 1, home("anna@example.org")).initiate()
		told := func() []Surge {
			gateway.mu.Lock()
			defer gateway.mu.Unlock()
			return gateway.surges
		}
		if got := told(); len(got) != 1 || got[0].Over || got[0].HalfOpen != 10 {
			t.Fatalf("told %+v", got)
		}
		w.after(5 * time.Minute)
		got := told()
		if len(got) != 2 {
			t.Fatalf("told %+v", got)
		}
		end := got[1]
		if !end.Over || end.HalfOpen != 11 || end.Lasted < 15*time.Second || end.Lasted > 17*time.Second ||
			end.Counters["cookies_demanded"] != 21 || end.Counters["established"] != 1 || end.Counters["auth_failed"] != 0 {
			t.Errorf("at the end: %+v", end)
		}
	})
}

// TestBadValuesFromOneSource: thousands of public values that are none cost a
// few key exchanges and no more, with and without a cookie.
func TestBadValuesFromOneSource(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors())
		for i := range uint64(1000) {
			m, err := wire.Parse(initRequest(t, i+1))
			if err != nil {
				t.Fatal(err)
			}
			ke, _ := wire.Find[*wire.KE](m.Payloads)
			ke.Data = ke.Data[:31]
			bad := m.Append(nil)
			gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.9:500", bad))
			// His cookie, as if he had been given it.
			nonce, _ := wire.Find[*wire.Nonce](m.Payloads)
			cookie := gateway.group.gate.cookies.Make(w.now(), m.SPIi, nonce.Data, netip.MustParseAddrPort("203.0.113.9:500"))
			m.Payloads = append([]wire.Payload{&wire.Notify{Kind: wire.Cookie, Data: cookie}}, m.Payloads...)
			gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.9:500", m.Append(nil)))
			w.after(5 * time.Millisecond)
		}
		st := gateway.status()
		if n := st.Counters["bad_public_values"]; n != 3*64 { // at 0, 2 and 4 s
			t.Errorf("%d values were tried, want %d", n, 3*64)
		}
		if st.Connecting != 0 || st.Handshakes.HalfOpen != 64 || st.Counters["cookies_demanded"] < 900 {
			t.Errorf("%+v", st)
		}
		// Meanwhile his neighbour behind the same NAT gets in.
		w.behindNAT(clientAddr, "203.0.113.9", 7000)
		w.site(clientAddr, 1, home("anna@example.org")).initiate()
		w.after(10 * time.Second)
		if st := gateway.status(); st.Handshakes.HalfOpen != 0 {
			t.Errorf("ten seconds later: %+v", st.Handshakes)
		}
	})
}

// TestSmallGateway: a gateway for few tunnels is not locked by somebody who
// spoofs a few first messages a second.
func TestSmallGateway(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors(), func(c *Config) { c.MaxSAs, c.Limits = 256, halfopen.Limits{}.Auto(256) })
		stop := make(chan struct{})
		spoofing := make(chan int)
		go func() { // ends with stop
			for n := 0; ; n++ {
				select {
				case <-stop:
					spoofing <- n
					return
				case <-time.After(time.Second / 13):
					gateway.group.DeliverIKE(packetsTo(gateway, fmt.Sprintf("203.%d.%d.9:500", n/250, n%250), initRequest(t, uint64(n+1))))
				}
			}
		}()
		w.after(2 * time.Minute)
		for i := range 40 {
			client := w.site(fmt.Sprintf("10.7.1.%d", i+1), 1, home(fmt.Sprintf("client%d@example.org", i)))
			client.initiate()
			w.after(time.Second)
		}
		close(stop)
		n := <-spoofing
		if st := gateway.status(); st.Up != 40 || st.Counters["table_full"] != 0 || st.Handshakes.HalfOpen > 32 || n < 2000 {
			t.Errorf("%d spoofed: %d up, %d refused for want of room, %d half-open", n, st.Up, st.Counters["table_full"], st.Handshakes.HalfOpen)
		}
	})
}

// TestHalfOpenIsEvicted: at the limit of one source whoever shows a cookie takes
// the place of somebody who was answered two seconds ago, and that one's SA goes.
func TestHalfOpenIsEvicted(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors(), func(c *Config) { c.Limits.PerSource = 2 })
		for i := range uint64(2) {
			gateway.group.DeliverIKE(packetsTo(gateway, clientAddr+":4000", initRequest(t, i+1)))
			w.after(500 * time.Millisecond)
		}
		client := w.site(clientAddr, 1, home("anna@example.org"))
		began := time.Now()
		client.initiate() // its first tries find nobody old enough
		st := gateway.status()
		if took := time.Since(began); took < time.Second || took > 5*time.Second {
			t.Errorf("up after %v", took)
		}
		if st.Up != 1 || st.Connecting != 1 || st.Handshakes.HalfOpen != 1 || st.Counters["half_open_evicted"] != 1 || st.Counters["half_open_source_full"] == 0 {
			t.Errorf("%d up, %d connecting, %+v; %d evicted, %d turned away", st.Up, st.Connecting, st.Handshakes,
				st.Counters["half_open_evicted"], st.Counters["half_open_source_full"])
		}
		// That handshake was completed, so there may be one more now.
		for i := range uint64(4) {
			gateway.group.DeliverIKE(packetsTo(gateway, clientAddr+":4001", gateway.withCookie(initRequest(t, 100+i), clientAddr+":4001")))
		}
		w.after(time.Millisecond)
		if h := gateway.status().Handshakes; h.HalfOpen != 3 || h.Sources[0].Allowed != 3 || h.Sources[0].TurnedAway == 0 {
			t.Errorf("after one was completed: %+v", h)
		}
	})
}

// TestNeighbourWhoCompletesNothing: somebody behind the same NAT begins more
// handshakes with a cookie than there are places, and completes none; the others
// get in all the same, though one of them has been let have more.
func TestNeighbourWhoCompletesNothing(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors())
		w.behindNAT(clientAddr, natAddr, 1000)
		anna := w.site(clientAddr, 1, home("anna@example.org"))
		anna.initiate()
		anna.vanish()
		stop := make(chan struct{})
		defer close(stop)
		go func() { // ends with stop
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Second / 25):
					from := fmt.Sprintf("%s:%d", natAddr, 20000+n)
					gateway.group.DeliverIKE(packetsTo(gateway, from, gateway.withCookie(initRequest(t, uint64(n+1)), from)))
				}
			}
		}()
		w.after(30 * time.Second)
		for i := range 20 {
			client := w.site(clientAddr, 1, home(fmt.Sprintf("client%d@example.org", i)))
			began := time.Now()
			client.initiate()
			if took := time.Since(began); took > 12*time.Second {
				t.Errorf("client %d is up after %v", i, took)
			}
			client.vanish()
		}
	})
}

// TestWrongOffersCostCookies: a flood of first messages with a group that we do
// not take is no way round the cookies.
func TestWrongOffersCostCookies(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors())
		for i := range uint64(5000) {
			m, err := wire.Parse(initRequest(t, i+1))
			if err != nil {
				t.Fatal(err)
			}
			offer, _ := wire.Find[*wire.SA](m.Payloads)
			offer.Proposals = []wire.Proposal{ikeProposals("aes128gcm16-prfsha256-ecp256")[0].Wire(1, wire.ProtoIKE, nil)}
			gateway.group.DeliverIKE(packetsTo(gateway, fmt.Sprintf("203.%d.%d.9:500", i/250, i%250), m.Append(nil)))
			synctest.Wait()
		}
		from := gateway.status().Handshakes.CookiesFrom
		if st := gateway.status(); st.Counters["cookies_demanded"] != 5000-uint64(from) || st.Connecting != 0 {
			t.Errorf("%d cookies demanded, %d connecting", st.Counters["cookies_demanded"], st.Connecting)
		}
		w.after(2 * time.Second)
		if st := gateway.status(); st.Handshakes.HalfOpen != 0 {
			t.Errorf("%+v", st.Handshakes)
		}
		w.site(clientAddr, 1, home("anna@example.org")).initiate()
	})
}

// TestManyWhoCompleteNothing: a hundred real addresses show cookies for more
// than can be computed, and complete nothing; those who will get in beside them.
func TestManyWhoCompleteNothing(t *testing.T) {
	inBubble(t, func(w *world) {
		w.quiet = true
		gateway := w.site(gatewayAddr, 2, roadwarriors(), func(c *Config) { c.Workers = 1 })
		gateway.group.workers.rand = slowly{gateway.conf.Rand, 5 * time.Millisecond} // 200 a second
		stop := make(chan struct{})
		defer close(stop)
		template := initRequest(t, 7)
		go func() { // ends with stop
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond): // 500 a second
					from := fmt.Sprintf("203.0.113.%d:%d", 1+n%100, 1024+n/100)
					data := bytes.Clone(template)
					binary.BigEndian.PutUint64(data, uint64(n+1))
					gateway.group.DeliverIKE(packetsTo(gateway, from, gateway.withCookie(data, from)))
				}
			}
		}()
		w.after(time.Minute)
		if h := gateway.status().Handshakes; h.Waiting < 1000 {
			t.Fatalf("only %d wait", h.Waiting)
		}
		crowd := w.crowd(200, 1)
		began := time.Now()
		if got := crowd.come(1); got["up"] != 200 || time.Since(began) > patience/2 {
			t.Errorf("they end as %v, after %v", got, time.Since(began))
		}
	})
}

// withCookie is a first message as its sender, who was asked, sends it again.
func (s *site) withCookie(data []byte, from string) []byte {
	first, err := wire.ScanFirst(data)
	if err != nil {
		s.w.t.Fatal(err)
	}
	return first.WithCookie(nil, s.group.gate.cookies.Make(s.w.now(), first.SPIi, first.Nonce, netip.MustParseAddrPort(from)))
}

// TestPlaceIsLost: an SA whose place has gone to another makes room for the same
// message, and the news of it hits nobody else.
func TestPlaceIsLost(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 1, roadwarriors())
		first := packetsTo(gateway, "203.0.113.9:500", initRequest(t, 1))
		gateway.group.DeliverIKE(first)
		w.after(time.Millisecond)
		s := gateway.group.shards[0]
		lost := s.table.slab[0].pending.place
		gateway.group.gate.done(lost)
		gateway.group.DeliverIKE(first)
		w.after(time.Millisecond)
		if st := gateway.status(); st.Connecting != 1 || st.Handshakes.HalfOpen != 1 {
			t.Errorf("%d connecting, %+v", st.Connecting, st.Handshakes)
		}
		gateway.group.evict(lost)
		w.after(time.Millisecond)
		if st := gateway.status(); st.Connecting != 1 || st.Handshakes.HalfOpen != 1 {
			t.Errorf("after the late news: %d connecting, %+v", st.Connecting, st.Handshakes)
		}
		// Where a shard takes no more, nothing is kept.
		s.first.max = 0
		gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.10:500", initRequest(t, 2)))
		gateway.group.DeliverIKE(first)
		gateway.group.DeliverIKE(first)
		w.after(time.Millisecond)
		if st := gateway.status(); st.Handshakes.HalfOpen != 1 || st.Counters["ike_first_dropped"] != 3 {
			t.Errorf("%+v, %d dropped", st.Handshakes, st.Counters["ike_first_dropped"])
		}
	})
}

// TestTinyFirst: a cookie is never answered to less than it takes.
func TestTinyFirst(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 1, roadwarriors())
		gateway.group.gate.press(w.now())
		n := uint64(0)
		w.attack(gateway, "203.0.113.9:500", func() []byte {
			if n++; n == 10 {
				return nil
			}
			m := wire.Message{Header: wire.Header{SPIi: n, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator},
				Payloads: []wire.Payload{&wire.Nonce{Data: make([]byte, 16)}}}
			return m.Append(nil)
		})
		if st := gateway.status(); st.Counters["answers_withheld"] != 9 || st.Counters["ike_sent"] != 0 {
			t.Errorf("%d withheld, %d sent", st.Counters["answers_withheld"], st.Counters["ike_sent"])
		}
	})
}

// TestFirstTooLong: a first message above 4 kB is dropped unread.
func TestFirstTooLong(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors())
		for i, n := range []int{maxFirst, maxFirst + 1, 65000} {
			bare := len(initRequest(t, 1, &wire.Raw{T: wire.TypeVendor}))
			data := initRequest(t, uint64(i+1), &wire.Raw{T: wire.TypeVendor, Data: make([]byte, n-bare)})
			if len(data) != n {
				t.Fatalf("made %d bytes, want %d", len(data), n)
			}
			gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.9:500", data))
		}
		w.after(time.Second)
		if st := gateway.status(); st.Handshakes.HalfOpen != 1 || st.Counters["first_too_long"] != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// TestFailuresBackOff: whoever guesses waits longer and longer for each answer,
// and the true one beside him, from the same address, waits for nothing.
func TestFailuresBackOff(t *testing.T) {
	inBubble(t, func(w *world) {
		w.site(gatewayAddr, 2, roadwarriors())
		guesser := w.site(clientAddr, 1, home("anna@example.org"), func(c *Config) {
			c.Policy = policy.NewSet(c.Policy.Connections, []policy.Secret{{Remote: pattern("%any"), PSK: []byte("a guess, as long as it has to be")}})
		})
		var waits []time.Duration
		for range 8 {
			began := time.Now()
			if err := guesser.group.Initiate(context.Background(), "home"); err == nil || !strings.Contains(err.Error(), "AUTHENTICATION_FAILED") {
				t.Fatalf("the guess ends with %v", err)
			}
			waits = append(waits, time.Since(began).Round(time.Second))
		}
		if fmt.Sprint(waits) != "[0s 0s 0s 1s 2s 4s 8s 16s]" {
			t.Errorf("waited %v", waits)
		}
		guesser.vanish()
		anna := w.site(clientAddr, 1, home("anna@example.org"))
		began := time.Now()
		anna.initiate()
		if d := time.Since(began); d > time.Second {
			t.Errorf("the true one waited %v", d)
		}
		// And what was guessed before is forgotten.
		anna.vanish()
		guesser.comeBack()
		began = time.Now()
		if err := guesser.group.Initiate(context.Background(), "home"); err == nil || time.Since(began) > time.Second {
			t.Errorf("the next guess ends with %v after %v", err, time.Since(began))
		}
	})
}

// TestCookieSurvivesAnotherGroup: a client that has shown its cookie and is told
// of another group keeps it, and is asked for no second one. RFC 7296 §2.6.1
func TestCookieSurvivesAnotherGroup(t *testing.T) {
	inBubble(t, func(w *world) {
		conns := roadwarriors()
		conns[0].Proposals = ikeProposals("aes256gcm16-prfsha256-ecp256")
		gateway := w.site(gatewayAddr, 2, conns, func(c *Config) { c.Limits.CookiesFrom = 1 })
		gateway.group.gate.press(w.now())
		var kinds []string
		w.tap = func(p wire.Packet) {
			m, err := wire.Parse(p.Data)
			if err != nil || m.Exchange != wire.IKESAInit {
				return
			}
			what := fmt.Sprint(m.Flags&wire.FlagResponse != 0)
			for _, pl := range m.Payloads {
				switch pl := pl.(type) {
				case *wire.KE:
					what += fmt.Sprintf(" KE %d", pl.Group)
				case *wire.Notify:
					if pl.Kind == wire.Cookie || pl.Kind == wire.InvalidKEPayload {
						what += " " + pl.Kind.String()
					}
				}
			}
			kinds = append(kinds, what)
		}
		mine := home("anna@example.org")
		mine[0].Proposals = ikeProposals("aes256gcm16-prfsha256-x25519-ecp256")
		w.site(clientAddr, 1, mine).initiate()
		want := []string{"false KE 31", "true COOKIE", "false COOKIE KE 31", "true INVALID_KE_PAYLOAD", "false COOKIE KE 19", "true KE 19"}
		if !slices.Equal(kinds, want) || gateway.status().Counters["cookies_demanded"] != 1 {
			t.Errorf("exchanged %q, want %q", kinds, want)
		}
	})
}

// TestCookieIsAnsweredBeforeTheInbox: a loop that is busy keeps nobody from his
// cookie.
func TestCookieIsAnsweredBeforeTheInbox(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 1, roadwarriors(), func(c *Config) { c.Limits.CookiesFrom = 1 })
		gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.8:500", initRequest(t, 1)))
		synctest.Wait()
		release := make(chan struct{})
		gateway.group.shards[0].post(func(mono.Time) { <-release })
		synctest.Wait()
		before := gateway.held().sent
		gateway.group.DeliverIKE(packetsTo(gateway, "203.0.113.9:500", initRequest(t, 2)))
		if gateway.held().sent == before {
			t.Error("no cookie while the loop is busy")
		}
		close(release)
	})
}
