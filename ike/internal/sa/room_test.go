package sa

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// TestRoom: whatever is agreed, a request and an answer that stand in a record at
// once fit the room that was asked for beside the first one. On a full tmpfs there
// is no other, and what is not stored is not sent.
func TestRoom(t *testing.T) {
	var ike []string
	for _, prf := range []string{"prfsha256", "prfsha384", "prfsha512"} {
		for _, encr := range []string{"aes128gcm16", "aes192gcm16", "aes256gcm16", "chacha20poly1305"} {
			ike = append(ike, encr+"-"+prf+"-x25519")
		}
		for _, integ := range []string{"sha256", "sha384", "sha512"} {
			for _, encr := range []string{"aes128", "aes192", "aes256"} {
				ike = append(ike, encr+"-"+integ+"-"+prf+"-x25519")
			}
		}
	}
	exact := false
	for _, ike := range ike {
		for _, esp := range []string{"aes128gcm16", "chacha20poly1305", "aes256gcm16-esn", "aes256-sha512-esn"} {
			for _, id := range []int{0, 40, 80, policy.MaxID} {
				for side := range 2 {
					w := newWorld(t)
					w.agreeOn(proposals(t, suite.ParseIKE, ike), proposals(t, suite.ParseESP, esp), id)
					n := []*node{w.client, w.gateway}[side]
					roomy, longest := w.growth(n)
					if longest > roomy {
						t.Errorf("%s, %s, %s, identities of %d bytes: there was room for %d bytes, and %d are needed", n.name, ike, esp, id, roomy, longest)
					}
					exact = exact || longest == roomy
				}
			}
		}
	}
	if !exact {
		t.Error("nobody needs all of the room")
	}
}

// TestLargestRecord: with all that can be configured, of the longest, at once, a
// record still fits; the messages of IKE_SA_INIT are not in it.
func TestLargestRecord(t *testing.T) {
	all := "aes256-aes192-aes128-sha512-sha384-sha256-prfsha512-prfsha384-prfsha256-modp4096-modp3072-modp2048-ecp521-ecp384-ecp256-x25519"
	esp := "aes256-aes192-aes128-sha512-sha384-sha256-esn-noesn"
	for side := range 2 {
		w := newWorld(t)
		w.agreeOn(proposals(t, suite.ParseIKE, all), proposals(t, suite.ParseESP, esp), policy.MaxID)
		for i := range uint8(maxSelectors) {
			w.gateway.conn.Child.Local = append(w.gateway.conn.Child.Local, single(netip.AddrFrom4([4]byte{10, 1, i, 1})))
		}
		w.gateway.conn.Child.Local = w.gateway.conn.Child.Local[1:]
		w.client.conn.VIPs = append(w.client.conn.VIPs, netip.IPv6Unspecified())
		w.gateway.lease = append(w.gateway.lease, netip.MustParseAddr("2001:db8::2"))
		n := []*node{w.client, w.gateway}[side]
		roomy, longest := w.growth(n)
		if n.sa.rec.Suite.KE != wire.KEMODP4096 || n.sa.rec.Child.NLocal+n.sa.rec.Child.NRemote < maxSelectors+2 {
			t.Fatalf("not the largest: %+v, %d and %d selectors", n.sa.rec.Suite, n.sa.rec.Child.NLocal, n.sa.rec.Child.NRemote)
		}
		if longest > roomy || roomy > RecordSize {
			t.Errorf("%s: there was room for %d bytes, and %d are needed", n.name, roomy, longest)
		}
	}
}

// agreeOn gives both sides these proposals, and identities of so many bytes; 0 leaves
// those as they are.
func (w *world) agreeOn(ike, esp []suite.Proposal, id int) {
	for _, n := range []*node{w.client, w.gateway} {
		n.conn.Proposals, n.conn.Child.Proposals = ike, esp
	}
	client, gateway := "anna@example.org", "vpn.example.org"
	if id > 0 {
		client = strings.Repeat("x", id-len("@example.org")) + "@example.org"
		gateway = strings.Repeat("x.", id)[:id-len("x.example.org")] + "x.example.org"
	}
	w.client.conn.LocalID, w.client.conn.RemoteID = identity(client), pattern(gateway)
	w.gateway.conn.LocalID = identity(gateway)
	w.client.env.Policy = policy.NewSet([]*policy.Connection{w.client.conn}, []policy.Secret{{Remote: pattern(gateway), PSK: []byte(testPSK)}})
	w.gateway.env.Policy = policy.NewSet([]*policy.Connection{w.gateway.conn}, []policy.Secret{{Remote: pattern("*@example.org"), PSK: []byte(testPSK)}})
}

// growth establishes the SAs, and gives the length of a node's first record with
// the room beside it, and that of the longest that comes of each request of ours
// beside each answer.
func (w *world) growth(n *node) (roomy, longest int) {
	w.t.Helper()
	w.establish()
	roomy = len(n.record) + n.room
	if n.records != 1 || n.record == nil {
		w.t.Fatalf("%d records were stored, the last of %d bytes", n.records, len(n.record))
	}
	peer := w.client
	if n == w.client {
		peer = w.gateway
	}
	w.drop = func(flight) bool { return true }
	for _, command := range []Command{Probe{}, Terminate{}} {
		before := n.records
		w.do(n, command)
		if n.records == before || n.sa.rec.Request == nil {
			w.t.Fatalf("no request is stored: %s", n.sa.State())
		}
		longest = max(longest, len(n.record))
		for _, of := range []func() []byte{
			func() []byte { return w.ask(peer, wire.Informational) },
			func() []byte { return w.ask(peer, wire.CreateChildSA) },
			func() []byte { return w.ask(peer, wire.Informational, &wire.Raw{T: 200, Critical: true}) },
		} {
			p := wire.Packet{Local: n.sa.Path().Local, Remote: n.sa.Path().Remote, NATT: true, Data: of()}
			before := n.records
			if w.arrive(n, p); n.records == before || n.sa.rec.Request == nil || n.sa.rec.Response == nil {
				w.t.Fatalf("no answer is stored beside the request: %s", n.sa.State())
			}
			longest = max(longest, len(n.record))
		}
		n.sa.req, n.sa.rec.Request = request{}, nil // as if it had been answered
	}
	return roomy, longest
}

// ask makes a request of a node that it does not wait for.
func (w *world) ask(n *node, ex wire.ExchangeType, ps ...wire.Payload) []byte {
	n.sa.rec.NextRequest++
	return n.sa.seal(ex, 0, n.sa.rec.NextRequest-1, ps...)
}
