package ike

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/shard"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

var update = flag.Bool("update", false, "rewrite testdata/refusals.txt with what is said now")

// refusalRow is a refusal, and what it is in a line of the log.
type refusalRow struct {
	what   string
	by     sa.Refusal
	notify wire.NotifyType
	err    string
	called bool // we have
}

func testConnections(t *testing.T) (roadwarriors, berlin *policy.Connection, set *policy.Set) {
	c := gatewayConfig()
	c.Connections[0].Proposals = []string{"aes256gcm16-prfsha384-x25519", "aes256-sha256-ecp256"}
	c.Connections = append(c.Connections, Connection{Name: "berlin", LocalID: "vpn.example.org", RemoteID: "berlin.example.org",
		Hosts: []Host{{Addr: netip.MustParseAddr("203.0.113.7")}}, Proposals: c.Connections[0].Proposals, ESPProposals: c.Connections[0].ESPProposals,
		VirtualIPs: []netip.Addr{netip.IPv4Unspecified()}, DPD: c.Connections[0].DPD, Child: Child{Name: "lan", RemoteTS: []Selector{{Dynamic: true}}}})
	set, err := c.policy()
	if err != nil {
		t.Fatal(err)
	}
	return set.Connections[0], set.Connections[1], set
}

func id(t *testing.T, s string) policy.ID {
	id, err := policy.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// offered is a proposal of the peer's, of the numbers that it has on the wire.
func offered(proto wire.ProtocolID, numbers ...uint16) wire.Proposal {
	p := wire.Proposal{Number: 1, Protocol: proto}
	for i := 0; i < len(numbers); i += 3 {
		p.Transforms = append(p.Transforms, wire.Transform{Type: wire.TransformType(numbers[i]), ID: numbers[i+1], KeyBits: numbers[i+2]})
	}
	return p
}

func network(s string) wire.Selector {
	p := netip.MustParsePrefix(s)
	return wire.Selector{EndPort: 65535, Start: p.Masked().Addr(), End: lastOf(p)}
}

func refusalRows(t *testing.T) []refusalRow {
	rw, berlin, _ := testConnections(t)
	anna, vpn := id(t, "anna@example.org"), id(t, "vpn.example.org")
	agreed := suite.Choice{Encr: wire.EncrAESGCM16, KeyBits: 256, PRF: wire.PRFHMACSHA384, KE: wire.KEX25519}
	windows := []wire.Proposal{offered(wire.ProtoIKE, 1, 3, 0, 3, 2, 0, 2, 2, 0, 4, 2, 0), offered(wire.ProtoIKE, 1, 12, 256, 3, 2, 0, 2, 2, 0, 4, 2, 0)}
	var many []wire.Proposal
	for i := range uint16(60) {
		many = append(many, offered(wire.ProtoIKE, 1, 1000+i, 0, 3, 2, 0, 2, 2, 0, 4, 2, 0))
	}
	claim := func(rule policy.Rule, conn *policy.Connection, who policy.ID) sa.Refusal {
		return sa.Refusal{Rule: rule, Conn: conn, Claimed: who, Asked: vpn, Agreed: agreed}
	}
	child := func(rule policy.Rule) sa.Refusal {
		return sa.Refusal{Rule: rule, Conn: rw, Claimed: anna, Proven: true, Agreed: agreed}
	}
	peer := sa.Refusal{ByPeer: true, Conn: berlin, Agreed: agreed}
	with := func(r sa.Refusal, change func(*sa.Refusal)) sa.Refusal { change(&r); return r }
	const failed = wire.AuthenticationFailed
	rows := []refusalRow{
		{"IKE suites", sa.Refusal{Rule: policy.NoSuite, Offer: windows, Ours: rw.Proposals}, wire.NoProposalChosen, "", false},
		{"many suites", sa.Refusal{Rule: policy.NoSuite, Offer: many, Ours: rw.Proposals}, wire.NoProposalChosen, "", false},
		{"public value", sa.Refusal{Rule: policy.BadKE}, 0, "x25519: bad public value", false},
		{"nobody", claim(policy.NoIdentity, nil, id(t, "anna@example.net")), failed, "", false},
		{"another of us", with(claim(policy.NoOwnIdentity, nil, anna), func(r *sa.Refusal) { r.Asked = id(t, "mail.example.org") }), failed, "", false},
		{"address", claim(policy.WrongAddress, berlin, id(t, "berlin.example.org")), failed, "", false},
		{"suite of another", with(claim(policy.NoSuite, rw, anna), func(r *sa.Refusal) { r.Ours = rw.Proposals }), failed, "", false},
		{"no secret", claim(policy.NoSecret, rw, anna), failed, "", false},
		{"wrong secret", claim(policy.WrongSecret, rw, anna), failed, "", false},
		{"EAP", claim(policy.NoProof, rw, anna), failed, "", false},
		{"EAP without a name", sa.Refusal{Rule: policy.NoProof, Agreed: agreed}, failed, "", false},
		{"unique", child(policy.NotUnique), failed, "", false},
		{"SAs", child(policy.TooManySAs), failed, "", false},
		{"leases", child(policy.TooManyLeases), wire.InternalAddressFailure, "", false},
		{"capacity", child(policy.NoPlace), wire.TemporaryFailure, "", false},
		{"ESP suites", with(child(policy.NoESPSuite), func(r *sa.Refusal) {
			r.Offer, r.Ours = []wire.Proposal{offered(wire.ProtoESP, 1, 12, 256, 3, 2, 0, 5, 0, 0), offered(wire.ProtoESP, 1, 3, 0, 3, 2, 0, 5, 0, 0)}, rw.Child.Proposals
		}), wire.NoProposalChosen, "", false},
		{"his side", with(child(policy.NoSelectors), func(r *sa.Refusal) {
			r.Own, r.Theirs, r.MayTheirs = []wire.Selector{network("10.0.0.0/8")}, []wire.Selector{network("10.9.9.9/32")}, []wire.Selector{network("10.99.3.17/32")}
		}), wire.TSUnacceptable, "", false},
		{"our side", with(child(policy.NoSelectors), func(r *sa.Refusal) {
			r.Own, r.Theirs, r.MayOwn = []wire.Selector{network("172.16.0.0/12")}, []wire.Selector{network("10.99.3.17/32")}, []wire.Selector{network("10.0.0.0/8"), network("2001:db8::/32")}
		}), wire.TSUnacceptable, "", false},
		{"no side", child(policy.NoSelectors), wire.InvalidSyntax, "", false},
		{"addresses", child(policy.NoAddress), wire.InternalAddressFailure, "", false},
		{"not asked", child(policy.NotAsked), wire.FailedCPRequired, "", false},
		{"encapsulation", child(policy.NoEncapsulation), wire.NoProposalChosen, "", false},

		{"the responder is another", claim(policy.NoIdentity, berlin, id(t, "mail.example.org")), failed, "", true},
		{"his secret is another", claim(policy.WrongSecret, berlin, id(t, "berlin.example.org")), failed, "", true},
		{"he gives a bad address", with(child(policy.NoAddress), func(r *sa.Refusal) { r.Conn, r.Claimed = berlin, id(t, "berlin.example.org") }), 0,
			"the peer gave 127.0.0.1 as our virtual address, a loopback address", true},
		{"he answers wider", with(child(policy.NoSelectors), func(r *sa.Refusal) {
			r.Conn, r.Claimed = berlin, id(t, "berlin.example.org")
			r.Own, r.Theirs = []wire.Selector{network("10.99.3.17/32")}, []wire.Selector{network("0.0.0.0/0")}
			r.MayTheirs = []wire.Selector{network("10.20.0.0/16")}
		}), 0, "the peer's traffic selectors go beyond ours", true},

		{"he does not believe us", peer, failed, "", true},
		{"nor our suites", with(peer, func(r *sa.Refusal) { r.Agreed, r.Ours = suite.Choice{}, berlin.Proposals }), wire.NoProposalChosen, "", true},
		{"nor for ESP", with(peer, func(r *sa.Refusal) { r.Ours = berlin.Child.Proposals }), wire.NoProposalChosen, "", true},
		{"nor our networks", with(peer, func(r *sa.Refusal) {
			r.MayOwn, r.MayTheirs = []wire.Selector{network("10.0.0.0/8")}, []wire.Selector{network("10.20.0.0/16")}
		}), wire.TSUnacceptable, "", true},
		{"no address for us", peer, wire.InternalAddressFailure, "", true},
		{"we ask for none", peer, wire.FailedCPRequired, "", true},
		{"no Child SA", peer, 0, "", true},
		{"he called and does not believe us", sa.Refusal{ByPeer: true, Conn: rw, Claimed: anna, Proven: true, Agreed: agreed}, failed, "", false},
	}
	for _, hostile := range []struct {
		name string
		who  policy.ID
	}{
		{"hostile: lines", policy.ID{Kind: wire.IDFQDN, Data: "anna\nlevel=ERROR msg=\"all is lost\""}},
		{"hostile: terminal", policy.ID{Kind: wire.IDRFC822, Data: "\x1b[2J\x1b]0;owned\x07@example.org"}},
		{"hostile: format", policy.ID{Kind: wire.IDKeyID, Data: "%s%n%!d(string=x)"}},
		{"hostile: NUL", policy.ID{Kind: wire.IDFQDN, Data: "anna\x00.example.org"}},
		{"hostile: long", policy.ID{Kind: wire.IDFQDN, Data: strings.Repeat("x", 256)}},
		{"hostile: unicode", policy.ID{Kind: wire.IDFQDN, Data: strings.Repeat("\u202e", 60)}},
		{"hostile: quotes", policy.ID{Kind: wire.IDFQDN, Data: `" for connection berlin: wrong secret`}},
		{"hostile: bytes", policy.ID{Kind: wire.IDDERDN, Data: strings.Repeat("\xff", 128)}},
		{"128 bytes", id(t, strings.Repeat("x", 116)+"@example.org")},
		{"a name", policy.ID{Kind: wire.IDDERDN, Data: unhex(t, "301c310b3009060355040613024445310d300b06035504030c04616e6e61")}},
		{"a private address", id(t, "192.168.1.44")},
	} {
		rows = append(rows, refusalRow{hostile.name, claim(policy.NoIdentity, nil, hostile.who), failed, "", false})
	}
	return rows
}

func unhex(t *testing.T, s string) string {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRefusalLines: what an operator reads of each refusal. Nothing that a peer has
// said can make two lines of one, or a line of any length.
func TestRefusalLines(t *testing.T) {
	_, _, set := testConnections(t)
	var b strings.Builder
	for _, row := range refusalRows(t) {
		ev := shard.Event{Kind: sa.Refusing, Refusal: &row.by, Notify: row.notify, Role: sa.Responder,
			Path: sa.Path{Remote: netip.MustParseAddrPort("203.0.113.9:500")}}
		if row.called {
			ev.Role, ev.Path.Remote = sa.Initiator, netip.MustParseAddrPort("203.0.113.7:500")
		}
		if row.err != "" {
			ev.Err = errors.New(row.err)
		}
		line := newRefusal(ev, set).String()
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) || len(line) > 600 {
			t.Errorf("%s: %q", row.what, line)
		}
		fmt.Fprintf(&b, "# %s\n%s\n", row.what, line)
	}
	const file = "testdata/refusals.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Error(d)
	}
}
