package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// TestChildless: an IKE SA without its Child SA is no tunnel. It is shown as what it
// is, and not counted as up.
func TestChildless(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors())
		conns := home("anna@example.org")
		conns[0].VIPs = nil // so that he gets no Child SA
		client := w.site(clientAddr, 1, conns)
		go func() { _ = client.group.Initiate(context.Background(), "home") }() // ends with the SA
		w.after(3*w.latency + w.latency/2)
		client.vanish() // what he deletes it with is lost
		w.after(time.Second)
		st, peers := gateway.status(), gateway.peers()
		if st.Up != 0 || st.Childless != 1 || len(peers) != 1 || peers[0].State != "no child" {
			t.Errorf("%d up, %d childless: %+v", st.Up, st.Childless, peers)
		}
		if st.Counters["refused_not_asked"] != 1 || client.status().Counters["refused_by_peer_address"] != 1 {
			t.Errorf("counted: %v", st.Counters)
		}
		client.comeBack()
	})
}

// TestRefusalCounters: each rule has a counter, and no two have one name.
func TestRefusalCounters(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range counterNames {
		if seen[name] || name == "" {
			t.Errorf("two counters are %q", name)
		}
		seen[name] = true
	}
	if len(counterNames) != int(numCounters) {
		t.Fatalf("%d names of %d counters", len(counterNames), numCounters)
	}
	for rule, want := range map[policy.Rule]string{
		policy.NoSuite: "suite", policy.BadKE: "bad_ke", policy.NoProof: "no_proof", policy.NoIdentity: "identity",
		policy.NoOwnIdentity: "own_identity", policy.WrongAddress: "address", policy.NoSecret: "no_secret", policy.WrongSecret: "secret",
		policy.NotUnique: "not_unique", policy.TooManySAs: "share_sas", policy.NoPlace: "no_place", policy.NoESPSuite: "esp_suite",
		policy.NoSelectors: "selectors", policy.NoAddress: "no_address", policy.TooManyLeases: "share_leases", policy.NotAsked: "not_asked",
		policy.NoEncapsulation: "no_encapsulation",
	} {
		if got := counterNames[refusalCounter(sa.Event{Refusal: &sa.Refusal{Rule: rule}})]; got != "refused_"+want {
			t.Errorf("%v is counted as %s", rule, got)
		}
	}
	for notify, want := range map[wire.NotifyType]string{
		wire.AuthenticationFailed: "auth", wire.NoProposalChosen: "suite", wire.TSUnacceptable: "selectors",
		wire.InternalAddressFailure: "address", wire.FailedCPRequired: "address", wire.TemporaryFailure: "other", 0: "other",
	} {
		if got := counterNames[refusalCounter(sa.Event{Notify: notify, Refusal: &sa.Refusal{ByPeer: true}})]; got != "refused_by_peer_"+want {
			t.Errorf("%v of the peer is counted as %s", notify, got)
		}
	}
}

// TestDiscardCounters: why a message is discarded is counted, each reason by itself.
func TestDiscardCounters(t *testing.T) {
	for err, want := range map[error]string{
		sa.ErrState: "state", sa.ErrRole: "role", sa.ErrWindow: "window", sa.ErrChanged: "changed", sa.ErrBusy: "busy", sa.ErrLarger: "larger",
		sa.ErrOffer: "offer", fmt.Errorf("%w: it has 2 proposals", suite.ErrAnswer): "offer", suite.ErrAuthentication: "icv",
		&wire.SyntaxError{}: "syntax", &wire.CriticalError{}: "syntax", errors.New("another"): "syntax",
	} {
		var c counters
		c.discard(err)
		if i := slices.Index(c[:], 1); i < 0 || counterNames[i] != "ike_discarded_"+want {
			t.Errorf("%v is counted by %v", err, c)
		}
	}
}

// TestDiscardsAreCounted: what an SA on the wire discards is in the status.
func TestDiscardsAreCounted(t *testing.T) {
	inBubble(t, func(w *world) {
		_, gateway := w.pair(2)
		var to Peer
		for _, p := range gateway.peers() {
			to = p
		}
		h := wire.Header{SPIr: to.spi, Exchange: wire.Informational, Flags: wire.FlagInitiator, MessageID: 2}
		if _, err := fmt.Sscanf(to.PeerSPI, "%x", &h.SPIi); err != nil {
			t.Fatal(err)
		}
		deliver := func(change func(*wire.Header)) {
			m := wire.Message{Header: h, Payloads: []wire.Payload{&wire.Raw{T: wire.TypeSK, Data: make([]byte, 40)}}}
			change(&m.Header)
			gateway.group.DeliverIKE(packetsTo(gateway, clientAddr+":4500", m.Append(nil)))
		}
		deliver(func(*wire.Header) {})                                 // not authentic
		deliver(func(h *wire.Header) { h.MessageID = 9 })              // too new
		deliver(func(h *wire.Header) { h.SPIi++ })                     // of nobody
		deliver(func(h *wire.Header) { h.MessageID = 1 })              // the last request, changed
		deliver(func(h *wire.Header) { h.Flags |= wire.FlagResponse }) // that nobody has asked for
		w.after(time.Second)
		got := gateway.status().Counters
		for name, want := range map[string]uint64{"icv": 1, "window": 2, "role": 1, "changed": 1, "state": 0, "syntax": 0} {
			if n := got["ike_discarded_"+name]; n != want {
				t.Errorf("%s: %d, want %d", name, n, want)
			}
		}
	})
}
