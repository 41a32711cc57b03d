package sa

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// askForCookie is the gateway's COOKIE, as it reaches the client.
func (w *world) askForCookie(data []byte) {
	m := wire.Message{Header: wire.Header{SPIi: w.client.sa.SPI(), Exchange: wire.IKESAInit, Flags: wire.FlagResponse},
		Payloads: []wire.Payload{&wire.Notify{Kind: wire.Cookie, Data: data}}}
	w.arrive(w.client, wire.Packet{Local: clientAddr, Remote: gatewayAddr, Data: m.Append(nil)})
}

// TestCookieOvertaken: whichever of a client's requests the gateway has answered
// first, without a cookie or with one, the client signs the last that it sent,
// and is let in. RFC 7296 §2.15
func TestCookieOvertaken(t *testing.T) {
	for _, cookies := range []int{1, 2, 3} {
		for accepted := range cookies + 1 {
			w := newWorld(t)
			var requests []flight
			w.drop = func(f flight) bool {
				first := f.from == w.client && f.packet.Data[18] == byte(wire.IKESAInit)
				if first {
					requests = append(requests, f)
				}
				return first
			}
			w.initiate()
			for n := range cookies {
				w.askForCookie(bytes.Repeat([]byte{byte(n + 1)}, 17))
			}
			if len(requests) != cookies+1 {
				t.Fatalf("%d requests, want %d", len(requests), cookies+1)
			}
			// The one that makes the SA, and then all in their order.
			w.wire = nil
			arrive := func(p wire.Packet) func() {
				return func() {
					p.Data = bytes.Clone(p.Data)
					w.arrive(w.gateway, p)
					clear(p.Data) // the reader's own
				}
			}
			sent := w.capture(w.gateway, arrive(requests[accepted].packet))
			for n, r := range requests {
				again := w.capture(w.gateway, arrive(r.packet))
				if !bytes.Equal(again.Data, sent.Data) {
					t.Errorf("request %d of %d: another answer", n, cookies+1)
				}
			}
			w.drop = nil
			w.arrive(w.client, wire.Packet{Local: clientAddr, Remote: gatewayAddr, Data: sent.Data})
			w.run(time.Second)
			if w.client.sa == nil || w.client.sa.State() != Up || w.gateway.sa == nil || w.gateway.sa.State() != Up {
				t.Errorf("%d cookies, SA made by request %d: %v", cookies, accepted, w.gateway.events)
			}
		}
	}
}

// TestCookieLost: the request with the cookie never comes, but the client has
// signed it, since it was sent last; and one cookie that comes again and again
// uses up none of its patience.
func TestCookieLost(t *testing.T) {
	w := newWorld(t)
	first := true
	w.drop = func(f flight) bool {
		lost := f.from == w.client && f.packet.Data[18] == byte(wire.IKESAInit) && !first
		first = first && f.from != w.client
		return lost
	}
	w.initiate()
	cookie := bytes.Repeat([]byte{7}, 17)
	for range 2 * maxCookies {
		w.askForCookie(cookie)
	}
	if w.client.sa.hs.cookies != 1 {
		t.Errorf("the same cookie counts %d times", w.client.sa.hs.cookies)
	}
	w.gateway.env.FailedAuth = func(mono.Time, netip.Addr, policy.ID) time.Duration {
		t.Error("AUTH over the request with the cookie is refused")
		return 0
	}
	w.gateway.cookies = [][]byte{bytes.Repeat([]byte{6}, 17), cookie}
	w.run(time.Second)
	if w.client.sa == nil || w.client.sa.State() != Up {
		t.Errorf("not up: %v", w.gateway.events)
	}
}

// TestAnotherRequest: what differs in more than its cookie is not the SA's
// request, and changes nothing. Of many versions a few are kept.
func TestAnotherRequest(t *testing.T) {
	w := newWorld(t)
	var request wire.Packet
	w.drop = func(f flight) bool {
		if f.from == w.client {
			request = f.packet
		}
		return true
	}
	w.initiate()
	w.arrive(w.gateway, request)
	m, err := wire.Parse(request.Data)
	if err != nil {
		t.Fatal(err)
	}
	try := func(ps ...wire.Payload) error {
		other := wire.Message{Header: m.Header, Payloads: ps}
		p := request
		p.Data = other.Append(nil)
		var out Effects
		err := w.gateway.sa.Handle(w.now, p, &out)
		if (err == nil) != (len(out.Steps) == 1) {
			t.Errorf("%v with %d steps", err, len(out.Steps))
		}
		return err
	}
	for i := range m.Payloads {
		without := slices.Delete(slices.Clone(m.Payloads), i, i+1)
		if err := try(without...); !errors.Is(err, ErrChanged) {
			t.Errorf("without payload %d: %v", i, err)
		}
	}
	if err := try(append(m.Payloads, &wire.Raw{T: wire.TypeVendor})...); !errors.Is(err, ErrChanged) {
		t.Errorf("with one more: %v", err)
	}
	cookie := &wire.Notify{Kind: wire.Cookie, Data: make([]byte, 17)}
	if err := try(append(slices.Clone(m.Payloads), cookie)...); !errors.Is(err, ErrChanged) {
		t.Errorf("with a cookie at the end: %v", err)
	}
	cookie.Data = make([]byte, maxCookie+1)
	if err := try(append([]wire.Payload{cookie}, m.Payloads...)...); !errors.Is(err, ErrChanged) {
		t.Errorf("with a cookie that is too long: %v", err)
	}
	for n := range 2 * maxVersions {
		cookie := &wire.Notify{Kind: wire.Cookie, Data: bytes.Repeat([]byte{byte(n)}, 17)}
		err := try(append([]wire.Payload{cookie}, m.Payloads...)...)
		if err != nil {
			t.Errorf("version %d: %v", n+2, err)
		}
	}
	if n := len(w.gateway.sa.hs.versions); n != maxVersions-1 {
		t.Errorf("%d versions are kept, want %d", n, maxVersions-1)
	}
}

// TestRefusedLater: whoever has failed often waits for his answer; meanwhile the
// SA takes nothing from him, and a right AUTH of anybody never waits.
func TestRefusedLater(t *testing.T) {
	w := newWorld(t)
	asked := 0
	w.gateway.env.FailedAuth = func(_ mono.Time, from netip.Addr, claimed policy.ID) time.Duration {
		asked++
		if from != natAddr || claimed != identity("anna@example.org") {
			t.Errorf("blamed: %v at %v", claimed, from)
		}
		return 5 * time.Second
	}
	w.client.env.Policy = policy.NewSet([]*policy.Connection{w.client.conn}, []policy.Secret{{Remote: pattern("%any"), PSK: []byte("another secret, as long as it")}})
	w.initiate()
	w.run(4 * time.Second)
	if w.client.sa == nil || w.client.sa.State() != AuthSent {
		t.Fatalf("the client has its answer: %v", w.client.events)
	}
	// Its next request, with a right AUTH even, is not looked at.
	second := w.capture(w.client, func() {
		w.client.sa.req = request{}
		var out Effects
		w.client.sa.start(w.now, authRequest, wire.IKEAuth, &out)
		w.carryOut(w.client, &out)
	})
	var out Effects
	if err := w.gateway.sa.Handle(w.now, second, &out); !errors.Is(err, ErrBusy) || len(out.Steps) > 0 {
		t.Errorf("another IKE_AUTH: %v, %d steps", err, len(out.Steps))
	}
	w.run(2 * time.Second)
	if asked != 1 || w.gateway.sa != nil && w.gateway.sa.State() != Gone {
		t.Errorf("asked %d times; the SA is still there", asked)
	}
	if last := w.gateway.last(); last.Kind != Closed || last.Reason != AuthFailed {
		t.Errorf("the last event is %+v", last)
	}
}
