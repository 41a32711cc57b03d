package sa

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// refusalCase is a handshake that is refused, and what each side tells of it.
type refusalCase struct {
	name            string
	prepare         func(w *world)
	midway          func(w *world) // when the client waits for the answer to IKE_AUTH
	gateway, client string         // "": nothing is refused there
}

const (
	claims    = `roadwarriors, claims "anna@example.org", asks "vpn.example.org", agreed aes256gcm16-prfsha256-x25519`
	proven    = `roadwarriors, proven "anna@example.org", agreed aes256gcm16-prfsha256-x25519`
	authFails = `AUTHENTICATION_FAILED by the peer: home, agreed aes256gcm16-prfsha256-x25519`
	byGateway = `by the peer: home, proven "vpn.example.org", agreed aes256gcm16-prfsha256-x25519`
)

// setPolicy gives a node other connections or secrets.
func (n *node) setPolicy(conns []*policy.Connection, secrets ...policy.Secret) {
	n.env.Policy = policy.NewSet(conns, secrets)
}

func (n *node) only(secret string) {
	n.setPolicy([]*policy.Connection{n.conn}, policy.Secret{Remote: policy.Anybody, PSK: []byte(secret)})
}

// anotherFor adds a connection for one identity to the gateway's.
func (w *world) anotherFor(name, id string, change func(*policy.Connection)) {
	c := *w.gateway.conn
	c.Name, c.RemoteID = name, pattern(id)
	change(&c)
	w.gateway.setPolicy([]*policy.Connection{w.gateway.conn, &c}, policy.Secret{Remote: policy.Anybody, PSK: []byte(testPSK)})
}

// askFrom makes the client's IKE_AUTH another one, of the payloads that keep leaves.
func (w *world) askFrom(keep func([]wire.Payload) []wire.Payload) {
	w.drop = func(f flight) bool {
		if f.from != w.client || w.client.sa.State() != AuthSent {
			return false
		}
		w.drop = nil
		m, err := wire.Parse(f.packet.Data)
		if err != nil {
			w.t.Fatal(err)
		}
		ps, err := w.client.sa.rec.Suite.Open(f.packet.Data, m, &w.client.sa.rec.Keys.Ei, &w.client.sa.rec.Keys.Ai)
		if err != nil {
			w.t.Fatal(err)
		}
		f.packet.Data = w.client.sa.seal(wire.IKEAuth, 0, 1, keep(ps)...)
		w.wire = append(w.wire, f)
		return true
	}
}

func without(t wire.PayloadType) func([]wire.Payload) []wire.Payload {
	return func(ps []wire.Payload) (out []wire.Payload) {
		for _, p := range ps {
			if p.Type() != t {
				out = append(out, p)
			}
		}
		return out
	}
}

var identityRefusals = []refusalCase{
	{name: "no AUTH: EAP is wanted", prepare: func(w *world) { w.askFrom(without(wire.TypeAuth)) },
		gateway: "AUTHENTICATION_FAILED by rule no_proof: " + claims, client: authFails},
	{name: "no identity", prepare: func(w *world) { w.askFrom(without(wire.TypeIDi)) },
		gateway: "AUTHENTICATION_FAILED by rule no_proof: agreed aes256gcm16-prfsha256-x25519", client: authFails},
	{name: "a signature", prepare: func(w *world) {
		w.askFrom(func(ps []wire.Payload) []wire.Payload {
			a, _ := wire.Find[*wire.Auth](ps)
			a.Method = wire.AuthRSA
			return ps
		})
	}, gateway: "AUTHENTICATION_FAILED by rule no_proof: " + claims, client: authFails},
	{name: "nobody knows him", prepare: func(w *world) { w.client.conn.LocalID = identity("anna@example.net") },
		gateway: `AUTHENTICATION_FAILED by rule identity: claims "anna@example.net", asks "vpn.example.org", agreed aes256gcm16-prfsha256-x25519`,
		client:  authFails},
	{name: "an identity that is none", prepare: func(w *world) {
		w.client.conn.LocalID = policy.ID{Kind: wire.IDFQDN, Data: strings.Repeat("\n", 1000)}
	}, gateway: `AUTHENTICATION_FAILED by rule identity: claims 256 bytes, asks "vpn.example.org", agreed aes256gcm16-prfsha256-x25519`, client: authFails},
	{name: "another of us", prepare: func(w *world) {
		w.client.conn.RemoteID = pattern("mail.example.org")
		w.client.only(testPSK)
	}, gateway: `AUTHENTICATION_FAILED by rule own_identity: claims "anna@example.org", asks "mail.example.org", agreed aes256gcm16-prfsha256-x25519`,
		client: authFails},
	{name: "another address", prepare: func(w *world) {
		w.gateway.conn.Pins = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		other := *w.gateway.conn
		other.Name, other.RemoteID, other.Pins = "other", pattern("*@example.net"), nil
		w.gateway.setPolicy([]*policy.Connection{w.gateway.conn, &other}, policy.Secret{Remote: policy.Anybody, PSK: []byte(testPSK)})
	}, gateway: "AUTHENTICATION_FAILED by rule address: " + claims, client: authFails},
	{name: "a suite of another connection", prepare: func(w *world) {
		w.anotherFor("anna", "anna@example.org", func(c *policy.Connection) {
			c.Proposals = proposals(w.t, suite.ParseIKE, "aes256gcm16-prfsha384-ecp384")
		})
	}, gateway: "AUTHENTICATION_FAILED by rule suite: " + strings.Replace(claims, "roadwarriors", "anna", 1) + ", ours aes256gcm16-prfsha384-ecp384", client: authFails},
	{name: "no secret", prepare: func(w *world) { w.gateway.setPolicy([]*policy.Connection{w.gateway.conn}) },
		gateway: "AUTHENTICATION_FAILED by rule no_secret: " + claims, client: authFails},
	{name: "a wrong secret", prepare: func(w *world) { w.gateway.only("another secret, long enough to be one") },
		gateway: "AUTHENTICATION_FAILED by rule secret: " + claims, client: authFails},
}

var otherRefusals = []refusalCase{
	{name: "nothing in common", prepare: func(w *world) {
		w.client.conn.Proposals = proposals(w.t, suite.ParseIKE, "aes128gcm16-prfsha512-ecp384")
		w.client.conn.Backoff.Tries = 0
	}, gateway: "NO_PROPOSAL_CHOSEN by rule suite: offers aes128gcm16-prfsha512-ecp384, ours aes256gcm16-prfsha256-x25519",
		client: "NO_PROPOSAL_CHOSEN by the peer: home, ours aes128gcm16-prfsha512-ecp384"},
	{name: "a value that is none", prepare: func(w *world) {
		w.gateway.slow = true
		w.initiate()
		w.run(w.latency)
		w.gateway.slow = false
		w.do(w.gateway, Agreed{Err: errors.New("x25519: bad public value")})
	}, gateway: "by rule bad_ke: (x25519: bad public value)"},
	{name: "the responder's value is none", prepare: func(w *world) {
		w.client.slow = true
		w.initiate()
		w.do(w.client, w.client.late)
		w.run(3 * w.latency)
		w.do(w.client, Agreed{Private: w.client.late.Private, Err: fmt.Errorf("x25519: %w", suite.ErrPublic)})
		w.do(w.client, Agreed{Err: errors.New("too late")})
	}, client: "by rule bad_ke: home (x25519: bad public value)"},
	{name: "no place", prepare: func(w *world) { w.gateway.fail = "Admit" },
		gateway: "TEMPORARY_FAILURE by rule no_place: " + proven + " (made to fail)",
		client:  "TEMPORARY_FAILURE " + strings.TrimPrefix(authFails, "AUTHENTICATION_FAILED ")},

	{name: "he has one", prepare: func(w *world) { w.gateway.refuse = policy.NotUnique },
		gateway: "AUTHENTICATION_FAILED by rule not_unique: " + proven, client: authFails},
	{name: "he has his SAs", prepare: func(w *world) { w.gateway.refuse = policy.TooManySAs },
		gateway: "TEMPORARY_FAILURE by rule share_sas: " + proven, client: "TEMPORARY_FAILURE " + strings.TrimPrefix(authFails, "AUTHENTICATION_FAILED ")},
	{name: "he has his leases", prepare: func(w *world) { w.gateway.refuse = policy.TooManyLeases },
		gateway: "INTERNAL_ADDRESS_FAILURE by rule share_leases: " + proven, client: "INTERNAL_ADDRESS_FAILURE " + byGateway},

	{name: "ESP", prepare: func(w *world) { w.client.conn.Child.Proposals = proposals(w.t, suite.ParseESP, "aes128-sha256") },
		gateway: "NO_PROPOSAL_CHOSEN by rule esp_suite: " + proven + ", offers aes128-sha256, ours aes256gcm16-esn aes256gcm16",
		client:  "NO_PROPOSAL_CHOSEN " + byGateway + ", ours aes128-sha256"},
	{name: "his selectors", prepare: func(w *world) { w.client.conn.Child.Local = []wire.Selector{prefix("10.9.9.9/32")} },
		gateway: "TS_UNACCEPTABLE by rule selectors: " + proven + ", wants 10.0.0.0-10.255.255.255 from 10.9.9.9-10.9.9.9, may from 10.99.0.2-10.99.0.2",
		client:  "TS_UNACCEPTABLE " + byGateway + ", may 10.9.9.9-10.9.9.9 from 10.0.0.0-10.255.255.255"},
	{name: "our selectors", prepare: func(w *world) { w.client.conn.Child.Remote = []wire.Selector{prefix("172.16.0.0/16")} },
		gateway: "TS_UNACCEPTABLE by rule selectors: " + proven + ", wants 172.16.0.0-172.16.255.255 from 0.0.0.0-255.255.255.255, may 10.0.0.0-10.255.255.255",
		client:  "TS_UNACCEPTABLE " + byGateway + ", may 0.0.0.0-255.255.255.255 from 172.16.0.0-172.16.255.255"},
	{name: "no selectors", prepare: func(w *world) { w.askFrom(without(wire.TypeTSi)) },
		gateway: "INVALID_SYNTAX by rule selectors: " + proven, client: "INVALID_SYNTAX " + byGateway},
	{name: "no address", prepare: func(w *world) { w.gateway.lease = nil },
		gateway: "INTERNAL_ADDRESS_FAILURE by rule no_address: " + proven, client: "INTERNAL_ADDRESS_FAILURE " + byGateway},
	{name: "not asked for an address", prepare: func(w *world) { w.client.conn.VIPs = nil },
		gateway: "FAILED_CP_REQUIRED by rule not_asked: " + proven, client: "FAILED_CP_REQUIRED " + byGateway},
	{name: "no ESP in UDP", prepare: func(w *world) {
		w.natted, w.gateway.env.ForceEncap = false, true
		w.drop = func(f flight) bool { // he stays on port 500
			if f.from != w.client || f.packet.Local.Port() == gatewayAddr.Port() {
				return false
			}
			f.packet.Local, f.packet.Remote = gatewayAddr, clientAddr
			w.wire = append(w.wire, f)
			return true
		}
	}, gateway: "NO_PROPOSAL_CHOSEN by rule no_encapsulation: " + proven, client: "NO_PROPOSAL_CHOSEN " + byGateway + ", ours aes256gcm16-esn aes256gcm16"},
	{name: "no slot", prepare: func(w *world) { w.gateway.nextSPI = 0 },
		gateway: "NO_ADDITIONAL_SAS by rule no_place: " + proven, client: "NO_ADDITIONAL_SAS " + byGateway},

	{name: "the responder is another", prepare: func(w *world) {
		w.client.conn.RemoteID = pattern("*.example.org")
		w.client.only(testPSK)
		w.gateway.conn.LocalID = identity("vpn.example.net")
	}, client: `AUTHENTICATION_FAILED by rule identity: home, claims "vpn.example.net", agreed aes256gcm16-prfsha256-x25519`,
		gateway: `AUTHENTICATION_FAILED by the peer: ` + proven},
	{name: "the responder has another secret", midway: func(w *world) { w.client.only("another secret, long enough to be one") },
		client:  `AUTHENTICATION_FAILED by rule secret: home, claims "vpn.example.org", agreed aes256gcm16-prfsha256-x25519`,
		gateway: `AUTHENTICATION_FAILED by the peer: ` + proven},
	{name: "the secret is gone", midway: func(w *world) { w.client.setPolicy(nil) },
		client:  `AUTHENTICATION_FAILED by rule no_secret: home, claims "vpn.example.org", agreed aes256gcm16-prfsha256-x25519`,
		gateway: `AUTHENTICATION_FAILED by the peer: ` + proven},
	{name: "the answer is wider", midway: func(w *world) { w.client.conn.Child.Remote = []wire.Selector{prefix("10.1.0.0/16")} },
		client: `by rule selectors: home, proven "vpn.example.org", agreed aes256gcm16-prfsha256-x25519, wants 10.99.0.2-10.99.0.2 from 10.0.0.0-10.255.255.255, ` +
			`may from 10.1.0.0-10.1.255.255 (the peer's traffic selectors go beyond ours)`},
	{name: "the answer is another suite", midway: func(w *world) { w.client.conn.Child.Proposals = proposals(w.t, suite.ParseESP, "aes128-sha256") },
		client: `by rule esp_suite: home, proven "vpn.example.org", agreed aes256gcm16-prfsha256-x25519, offers aes256gcm16-esn, ours aes128-sha256 ` +
			`(the answer is none of our proposals: not within number 1)`},
	{name: "an address that is nobody's", prepare: func(w *world) { w.gateway.lease = []netip.Addr{netip.MustParseAddr("127.0.0.1")} },
		client: `by rule no_address: home, proven "vpn.example.org", agreed aes256gcm16-prfsha256-x25519 ` +
			`(the peer gave 127.0.0.1 as our virtual address, a loopback address)`},
}

// TestRefusals: each refusal is one event at each end that has to do with it, and
// has all that is needed to help.
func TestRefusals(t *testing.T) {
	for _, c := range append(identityRefusals, otherRefusals...) {
		t.Run(c.name, func(t *testing.T) {
			w, _ := c.play(t)
			if got := refusalsOf(w.gateway); got != c.gateway {
				t.Errorf("the gateway tells\n%s, want\n%s", got, c.gateway)
			}
			if got := refusalsOf(w.client); got != c.client {
				t.Errorf("the client tells\n%s, want\n%s", got, c.client)
			}
		})
	}
}

// TestEveryRuleRefuses: no rule is missing above.
func TestEveryRuleRefuses(t *testing.T) {
	var all strings.Builder
	for _, c := range append(identityRefusals, otherRefusals...) {
		all.WriteString(c.gateway)
	}
	for i := range policy.Rules {
		if rule := policy.Rule(i + 1); !strings.Contains(all.String(), "by rule "+rule.String()+":") {
			t.Errorf("nobody is refused by %v", rule)
		}
	}
}

// TestRefusedAlike: whatever the rule, a peer who is not taken for who he says that
// he is gets one answer, of the same size and at the same time.
func TestRefusedAlike(t *testing.T) {
	const want = "IKE_AUTH response 1 {N(AUTHENTICATION_FAILED)} 65 bytes  @0.030"
	for _, c := range identityRefusals {
		_, log := c.play(t)
		answers := 0
		for line := range strings.Lines(log) {
			if _, answer, ok := strings.Cut(line, "gateway send IKE_AUTH"); ok {
				answers++
				if got := "IKE_AUTH" + strings.TrimSpace(answer); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
					t.Errorf("%s: the answer is %s", c.name, got)
				}
			}
		}
		if answers != 1 {
			t.Errorf("%s: %d answers:\n%s", c.name, answers, log)
		}
	}
}

func (c *refusalCase) play(t *testing.T) (*world, string) {
	w := newWorld(t)
	w.log = &strings.Builder{}
	if c.prepare != nil {
		c.prepare(w)
	}
	if w.client.sa == nil {
		w.initiate()
	}
	for c.midway != nil && w.client.sa.State() != AuthSent {
		w.run(time.Millisecond)
	}
	if c.midway != nil {
		c.midway(w)
	}
	w.run(2 * time.Second)
	return w, w.log.String()
}

// refusalsOf are a node's, one a line.
func refusalsOf(n *node) string {
	var all []string
	for _, e := range n.events {
		if e.Kind == Refusing {
			all = append(all, describeRefusal(e))
		}
	}
	return strings.Join(all, "\n")
}

func describeRefusal(e Event) string {
	r := e.Refusal
	head := "by rule " + r.Rule.String() + ":"
	if r.ByPeer {
		head = "by the peer:"
	}
	if e.Notify != 0 {
		head = e.Notify.String() + " " + head
	}
	var facts []string
	add := func(format string, args ...any) { facts = append(facts, fmt.Sprintf(format, args...)) }
	if r.Conn != nil {
		add("%s", r.Conn.Name)
	}
	switch {
	case len(r.Claimed.Data) > policy.MaxID:
		add("claims %d bytes", len(r.Claimed.Data))
	case r.Proven:
		add("proven %q", r.Claimed)
	case r.Claimed != policy.ID{}:
		add("claims %q", r.Claimed)
	}
	if (r.Asked != policy.ID{}) {
		add("asks %q", r.Asked)
	}
	if (r.Agreed != suite.Choice{}) {
		add("agreed %v", r.Agreed)
	}
	if len(r.Offer) > 0 {
		add("offers %s", strings.Join(suite.DescribeOffer(r.Offer), " "))
	}
	if len(r.Ours) > 0 {
		add("ours %s", strings.Trim(fmt.Sprint(r.Ours), "[]"))
	}
	if len(r.Own)+len(r.Theirs) > 0 {
		add("wants %s from %s", ranges(r.Own), ranges(r.Theirs))
	}
	if len(r.MayOwn)+len(r.MayTheirs) > 0 {
		add("may%s", strings.TrimSuffix(strings.ReplaceAll(" "+ranges(r.MayOwn)+" from "+ranges(r.MayTheirs), "  ", " "), " from "))
	}
	s := head + " " + strings.Join(facts, ", ")
	if e.Err != nil {
		s = strings.TrimSpace(s) + fmt.Sprintf(" (%v)", e.Err)
	}
	return s
}
