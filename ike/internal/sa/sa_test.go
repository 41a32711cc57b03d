package sa

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// TestLossyNetwork loses, repeats and reorders: handshakes, probes and deletes
// either succeed or fail cleanly, and nothing is left behind.
func TestLossyNetwork(t *testing.T) {
	up := 0
	for seed := range uint64(200) {
		w := newWorld(t)
		w.rng = rand.New(rand.NewPCG(seed, 7))
		w.loss, w.dup, w.jitter = 0.3, 0.2, 50*time.Millisecond
		ivs := w.watchIVs()
		w.initiate()
		w.run(200 * time.Second)
		if w.client.sa != nil && w.client.sa.State() == Up {
			up++
			w.do(w.client, Probe{})
			w.run(200 * time.Second)
			w.do(w.client, Terminate{})
		}
		w.run(200 * time.Second)
		if w.gateway.sa != nil { // its peer's DELETE never came, or it never heard of a handshake's end
			w.do(w.gateway, Dead{})
		}
		for _, n := range []*node{w.client, w.gateway} {
			if err := n.empty(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
		if ivs.reused > 0 {
			t.Errorf("seed %d: %d messages reuse an IV", seed, ivs.reused)
		}
	}
	if up < 150 {
		t.Errorf("%d of 200 handshakes succeeded", up)
	}
}

type ivWatch struct {
	seen   map[string][]byte
	reused int
}

// watchIVs sees every SK message that is sent: with the same sender and IV it
// must be the same message.
func (w *world) watchIVs() *ivWatch {
	v := &ivWatch{seen: map[string][]byte{}}
	w.drop = func(f flight) bool {
		if m, err := wire.Parse(f.packet.Data); err == nil {
			if sk, ok := wire.Find[*wire.Encrypted](m.Payloads); ok {
				key := fmt.Sprintf("%s %x %x %x", f.from.name, m.SPIi, m.SPIr, sk.Body[:8])
				if old, ok := v.seen[key]; ok && !bytes.Equal(old, f.packet.Data) {
					v.reused++
				}
				v.seen[key] = f.packet.Data
			}
		}
		return false
	}
	return v
}

// capture runs until a node has sent one more datagram, and keeps it from
// arriving.
func (w *world) capture(from *node, act func()) wire.Packet {
	w.t.Helper()
	var got *wire.Packet
	w.drop = func(f flight) bool {
		if f.from == from && got == nil {
			got = &f.packet
			return true
		}
		return false
	}
	act()
	w.run(50 * time.Millisecond)
	w.drop = nil
	if got == nil {
		w.t.Fatal("nothing was sent")
	}
	return *got
}

func state(n *node) []byte { return n.sa.rec.AppendBinary(nil) }

// TestTampered flips every bit of a request and of a response: none is
// accepted, none changes anything, none is answered.
func TestTampered(t *testing.T) {
	w := newWorld(t)
	w.establish()
	request := w.capture(w.client, func() { w.do(w.client, Probe{}) })
	response := w.capture(w.gateway, func() { w.arrive(w.gateway, request) })
	for _, c := range []struct {
		to *node
		p  wire.Packet
	}{{w.gateway, w.nextProbe()}, {w.client, response}} {
		before := state(c.to)
		for bit := range len(c.p.Data) * 8 {
			p := c.p
			p.Data = bytes.Clone(p.Data)
			p.Data[bit/8] ^= 1 << (bit % 8)
			var out Effects
			if err := c.to.sa.Handle(w.now, p, &out); err == nil {
				t.Fatalf("%s accepts a message with bit %d flipped", c.to.name, bit)
			}
			if len(out.Steps) > 0 || !bytes.Equal(state(c.to), before) {
				t.Fatalf("%s: bit %d flipped: %d steps, or the state has changed", c.to.name, bit, len(out.Steps))
			}
		}
	}
}

// nextProbe is a fresh request of a client whose SA is put back afterwards, so
// that the exchange before it stays open.
func (w *world) nextProbe() wire.Packet {
	saved := *w.client.sa
	w.client.sa.req = request{}
	p := w.capture(w.client, func() { w.do(w.client, Probe{}) })
	*w.client.sa = saved
	return p
}

// TestRepeated sends a request again and again: the answer is the same bytes,
// and no second sign of life.
func TestRepeated(t *testing.T) {
	w := newWorld(t)
	w.establish()
	request := w.capture(w.client, func() { w.do(w.client, Probe{}) })
	first := w.capture(w.gateway, func() { w.arrive(w.gateway, request) })
	before := w.gateway.sa.LastIKE()
	for range 3 {
		w.run(time.Second)
		again := w.capture(w.gateway, func() { w.arrive(w.gateway, request) })
		if !bytes.Equal(again.Data, first.Data) {
			t.Error("a repeated request got another answer")
		}
	}
	var none Effects
	changed := request
	changed.Data = bytes.Clone(request.Data)
	changed.Data[len(changed.Data)-1] ^= 1
	if err := w.gateway.sa.Handle(w.now, changed, &none); !errors.Is(err, ErrChanged) || len(none.Steps) > 0 {
		t.Errorf("another request with the same message ID: %v, %d steps", err, len(none.Steps))
	}
	if w.gateway.sa.LastIKE() != before {
		t.Error("a repeated request counted as a sign of life")
	}
	w.run(responseLife)
	var out Effects
	if err := w.gateway.sa.Handle(w.now, request, &out); !errors.Is(err, ErrBusy) || len(out.Steps) > 0 {
		t.Errorf("after %v the response should be forgotten: %v", responseLife, err)
	}
}

// TestRepeatedElsewhere: a request that comes again from another address may
// be anybody's recording; it gets no more bytes than it has.
func TestRepeatedElsewhere(t *testing.T) {
	w := newWorld(t)
	w.initiate()
	var auth wire.Packet
	w.drop = func(f flight) bool {
		if f.from == w.client && f.packet.Data[18] == byte(wire.IKEAuth) {
			auth = f.packet
		}
		return false
	}
	w.run(time.Second)
	w.gateway.sa.rec.Response = append(w.gateway.sa.rec.Response, make([]byte, 200)...)
	auth.Remote = gatewayAddr
	var out Effects
	if err := w.gateway.sa.Handle(w.now, auth, &out); !errors.Is(err, ErrLarger) || len(out.Steps) > 0 {
		t.Errorf("%v with %d steps", err, len(out.Steps))
	}
}

func TestRecord(t *testing.T) {
	w := newWorld(t)
	w.establish()
	for _, n := range []*node{w.client, w.gateway} {
		w.capture(n, func() { w.do(n, Probe{}) })
		b := state(n)
		if len(b) > RecordSize {
			t.Fatalf("a record needs %d bytes of %d", len(b), RecordSize)
		}
		var r Record
		if err := r.Decode(b, n.env.Policy); err != nil {
			t.Fatal(err)
		}
		if r.IV != r.IVMark || r.IV < n.sa.rec.IV {
			t.Errorf("a restored record would seal with %d, used up to %d", r.IV, n.sa.rec.IV)
		}
		want := n.sa.rec
		want.IV = want.IVMark
		if d := cmp.Diff(want, r, cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
			t.Error(d)
		}
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= 0x10
			if r.Decode(bad, n.env.Policy) == nil {
				t.Fatalf("byte %d changed, and nobody noticed", i)
			}
			if r.Decode(b[:i], n.env.Policy) == nil {
				t.Fatalf("cut to %d bytes, and nobody noticed", i)
			}
		}
	}
}

// TestRestoredRecordGoesOn: what is in the record is enough to seal and to
// open.
func TestRestoredRecordGoesOn(t *testing.T) {
	w := newWorld(t)
	w.establish()
	old := w.gateway.sa
	var r Record
	if err := r.Decode(w.gateway.record, w.gateway.env.Policy); err != nil {
		t.Fatal(err)
	}
	w.gateway.sa = &SA{env: old.env, rec: r}
	w.do(w.gateway, Probe{})
	w.run(time.Second)
	if w.gateway.last().Kind != ProbeAnswered {
		t.Errorf("after the probe: %v", w.gateway.last().Kind)
	}
}

// TestChildHasTheMTU: what the data plane gets of a tunnel, and what a restored one
// would, has the MTU of its own connection.
func TestChildHasTheMTU(t *testing.T) {
	w := newWorld(t)
	w.client.conn.MTU, w.gateway.conn.MTU = 1180, 1300
	w.establish()
	for _, n := range []*node{w.client, w.gateway} {
		told, ok := n.sa.Child()
		in, out := n.in[told.InSPI], n.out[told.InSPI]
		if !ok || in == nil || out == nil {
			t.Fatalf("the %s has no tunnel", n.name)
		}
		if want := n.conn.MTU; told.MTU != want || in.MTU != want || out.MTU != want {
			t.Errorf("MTU of the %s: %d, inbound %d, outbound %d; want %d", n.name, told.MTU, in.MTU, out.MTU, want)
		}
	}
}

func TestNoKeyIsPrinted(t *testing.T) {
	w := newWorld(t)
	w.establish()
	for _, n := range []*node{w.client, w.gateway} {
		child := *slices.Collect(maps.Values(n.in))[0]
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
			text := strings.ToLower(fmt.Sprintf(verb+verb+verb+verb, n.sa, *n.sa, &child, n.events))
			for _, k := range []*suite.Key{&n.sa.rec.Keys.D, &n.sa.rec.Keys.Ei, &n.sa.rec.Keys.Er, child.InEncr, child.OutEncr} {
				b := k.Bytes()
				dec := strings.Trim(fmt.Sprint(b), "[]")
				gosyntax := strings.Trim(fmt.Sprintf("%#v", b), "[]byte{}")
				for _, form := range []string{hex.EncodeToString(b), dec, gosyntax, string(b)} {
					if strings.Contains(text, form) {
						t.Fatalf("%s prints a key as %q in %q", verb, form, text)
					}
				}
			}
		}
	}
}

// TestNoSecretIsPrinted: neither the keys of the configuration nor what is agreed
// is, also within something else.
func TestNoSecretIsPrinted(t *testing.T) {
	key := []byte("swordfish-of-twenty-characters")
	secrets := []policy.Secret{{Remote: pattern("anna@example.org"), PSK: key}, {Local: identity("vpn.example.org"), Remote: pattern("*@example.org"), PSK: key}}
	set := policy.NewSet(nil, secrets)
	var out bytes.Buffer
	for _, v := range []any{secrets[0], &secrets[0], secrets, set, *set, Agreed{Secret: key}, &Agreed{Secret: key}, []Command{Agreed{Secret: key}}, struct{ S []policy.Secret }{secrets}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
	}
	text := strings.ToLower(out.String())
	for _, form := range []string{string(key), hex.EncodeToString(key), strings.Trim(fmt.Sprint(key), "[]"), fmt.Sprintf("%#v", key[:4])[7:20],
		strings.ToLower(base64.StdEncoding.EncodeToString(key))[:20]} {
		if strings.Contains(text, form) {
			t.Errorf("%q is printed", form)
		}
	}
	if !strings.Contains(text, "[secret of anna@example.org]") || !strings.Contains(text, "[secret of vpn.example.org and *@example.org]") || !strings.Contains(text, "[policy of 0 connections]") {
		t.Errorf("%s", text)
	}
}

// TestRepliesBeforeAuthAreNoLarger: whoever has proved nothing gets no more
// bytes than he sent.
func TestRepliesBeforeAuthAreNoLarger(t *testing.T) {
	for _, nonce := range []int{16, 20, 32, 64, 256} {
		for _, nat := range []bool{true, false} {
			w := newWorld(t)
			m := &wire.Message{Header: wire.Header{SPIi: 7, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator}}
			key, err := suite.Generate(wire.KEX25519, w.client.env.Rand)
			if err != nil {
				t.Fatal(err)
			}
			m.Payloads = []wire.Payload{&wire.SA{Proposals: offer(w.client.conn.Proposals, wire.ProtoIKE, nil)},
				&wire.KE{Group: wire.KEX25519, Data: key.Public()}, &wire.Nonce{Data: make([]byte, nonce)}}
			if nat {
				m.Payloads = append(m.Payloads, &wire.Notify{Kind: wire.NATDetectionSource, Data: make([]byte, 20)},
					&wire.Notify{Kind: wire.NATDetectionDest, Data: make([]byte, 20)})
			}
			request := wire.Packet{Local: gatewayAddr, Remote: clientAddr, Data: m.Append(nil)}
			answer := w.capture(w.gateway, func() { w.arrive(w.gateway, request) })
			if len(answer.Data) > len(request.Data) {
				t.Errorf("nonce %d, nat %v: %d bytes in, %d out", nonce, nat, len(request.Data), len(answer.Data))
			}
		}
	}
}

func TestBackoff(t *testing.T) {
	if got := policy.DefaultBackoff.Total().Round(time.Second); got != 165*time.Second {
		t.Errorf("it gives up after %v", got)
	}
}

// TestForgedInitAnswers: refusals and rubbish in the responder's name, from
// whoever can see the initiator's SPI, do not end a handshake.
func TestForgedInitAnswers(t *testing.T) {
	forge := func(ps ...wire.Payload) []byte {
		m := wire.Message{Header: wire.Header{SPIi: 0xc11e47, SPIr: 5, Exchange: wire.IKESAInit, Flags: wire.FlagResponse}, Payloads: ps}
		return m.Append(nil)
	}
	w := newWorld(t)
	w.initiate()
	sa := &wire.SA{Proposals: offer(w.client.conn.Proposals, wire.ProtoIKE, nil)}
	for _, data := range [][]byte{
		forge(&wire.Notify{Kind: wire.NoProposalChosen}),
		forge(&wire.Notify{Kind: wire.AuthenticationFailed}),
		forge(&wire.Notify{Kind: wire.InvalidKEPayload, Data: []byte{0, 14}}),
		forge(&wire.Notify{Kind: wire.InvalidKEPayload, Data: []byte{0}}),
		forge(&wire.Notify{Kind: wire.Cookie}),
		forge(sa, &wire.KE{Group: wire.KEX25519, Data: make([]byte, 32)}, &wire.Nonce{Data: make([]byte, 32)}), // low order
		forge(sa),
		forge(),
	} {
		w.arrive(w.client, wire.Packet{Local: clientAddr, Remote: gatewayAddr, Data: data})
	}
	w.run(5 * time.Second)
	if w.client.sa == nil || w.client.sa.State() != Up {
		t.Errorf("the handshake failed: %+v", w.client.events)
	}
}

// TestImpostor: a responder that does not hold the secret, or has another
// identity than the one that was called, gets no tunnel.
func TestImpostor(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(w *world)
	}{
		{"another secret", func(w *world) {
			w.gateway.onAdmit = func() { // behind the client's own proof
				w.gateway.env.Policy = policy.NewSet([]*policy.Connection{w.gateway.conn}, []policy.Secret{{Remote: pattern("%any"), PSK: []byte("what the impostor can guess")}})
			}
		}},
		{"another identity", func(w *world) {
			w.client.conn.RemoteID = pattern("*.example.org")
			w.client.env.Policy = policy.NewSet([]*policy.Connection{w.client.conn}, []policy.Secret{{Remote: pattern("%any"), PSK: []byte(testPSK)}})
			w.gateway.conn.LocalID = identity("vpn.example.net")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.make(w)
			w.initiate()
			w.run(time.Second)
			if e := w.client.last(); e.Kind != Closed || e.Reason != AuthFailed || w.client.empty() != nil {
				t.Errorf("%v, %v, %v", e.Kind, e.Reason, w.client.empty())
			}
		})
	}
}

// TestFollowsOnlyNATtedPeers: the side behind the NAT does not follow what
// comes from elsewhere. RFC 7296 §2.23
func TestFollowsOnlyNATtedPeers(t *testing.T) {
	w := newWorld(t)
	w.gateway.env.ForceEncap = true // so that it seems to be behind one, too
	w.establish()
	before := w.client.sa.Path()
	p := w.capture(w.gateway, func() { w.do(w.gateway, Probe{}) })
	p.Remote = netip.MustParseAddrPort("203.0.113.66:4500")
	w.arrive(w.client, p)
	if after := w.client.sa.Path(); after != before {
		t.Errorf("it followed to %v", after)
	}
}

// TestKeepaliveOnlyInSilence: what the data plane sends keeps the mapping open,
// too.
func TestKeepaliveOnlyInSilence(t *testing.T) {
	w := newWorld(t)
	w.client.env.LastSent = func(uint32) mono.Time { return w.now.Add(-time.Second) }
	w.establish()
	w.run(time.Minute)
	if slices.Contains(w.client.steps, "Keepalive") {
		t.Error("a keepalive went out although ESP did")
	}
	w.client.env.LastSent = func(uint32) mono.Time { return 0 }
	w.run(time.Minute)
	if !slices.Contains(w.client.steps, "Keepalive") {
		t.Error("no keepalive went out in a minute of silence")
	}
}

func FuzzHandle(f *testing.F) {
	f.Add(uint8(0), uint16(3), uint8(1), []byte{})
	f.Add(uint8(1), uint16(40), uint8(7), []byte("anything"))
	f.Fuzz(func(t *testing.T, when uint8, at uint16, flip uint8, junk []byte) {
		w := newWorld(t)
		w.initiate()
		w.run(time.Duration(when%8) * 5 * time.Millisecond)
		w.drop = func(fl flight) bool {
			if at < uint16(len(fl.packet.Data)) {
				fl.packet.Data[at] ^= flip
			}
			return false
		}
		for _, n := range []*node{w.gateway, w.client} {
			w.arrive(n, wire.Packet{Local: gatewayAddr, Remote: clientAddr, Data: append(make([]byte, at%64), junk...)})
		}
		w.run(time.Second)
		w.drop = nil
		w.run(mono.Time(400 * time.Second).Sub(0))
		for _, n := range []*node{w.client, w.gateway} {
			if n.sa != nil && n.sa.State() != Gone {
				w.do(n, Dead{})
			}
			if err := n.empty(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestPeerWithoutEncapsulation: who stays on port 500 although he sees a NAT
// would send bare ESP, which no socket of ours gets: he has no Child SA, and
// knows it.
func TestPeerWithoutEncapsulation(t *testing.T) {
	w := newWorld(t)
	w.natted = false
	w.gateway.env.ForceEncap = true
	w.client.env.NATTPort = 500
	w.initiate()
	w.run(50 * time.Millisecond)
	for _, n := range []*node{w.client, w.gateway} {
		i := slices.IndexFunc(n.events, func(e Event) bool { return e.Kind == Established })
		if i < 0 || n.events[i].Notify != wire.NoProposalChosen || n.events[i].Err == nil {
			t.Errorf("%s: %+v", n.name, n.events)
		}
		if len(n.in)+len(n.out)+len(n.tracked) > 0 {
			t.Errorf("%s has a Child SA", n.name)
		}
	}
}
