package ike

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/shard"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Refusal is why one of the two does not take the other, or gives him no Child SA.
// What a peer has said is escaped and cut in it.
type Refusal struct {
	By     string         `json:"by"`               // "us" or "peer"
	Rule   string         `json:"rule,omitempty"`   // of ours; the counter is refused_RULE
	Notify string         `json:"notify,omitempty"` // what the other was told, or told us
	Remote netip.AddrPort `json:"remote"`
	// Initiator: we have called the peer.
	Initiator bool `json:"initiator"`
	// Unauthenticated: the refusal came from the address that we call, and anybody
	// may have sent it; the handshake goes on.
	Unauthenticated bool   `json:"unauthenticated,omitempty"`
	Connection      string `json:"connection,omitempty"`
	// Claimed is who the peer says that he is, and Proven that he has proved it.
	// ClaimedKind is given where no configuration can have such an identity.
	Claimed     string `json:"claimed,omitempty"`
	ClaimedKind string `json:"claimed_kind,omitempty"`
	Proven      bool   `json:"proven"`
	Asked       string `json:"asked,omitempty"`    // as whom he wants us
	OurIDs      string `json:"our_ids,omitempty"`  // who we are to him
	Expected    string `json:"expected,omitempty"` // who he is by the connection
	// Secret is whose the configuration says that the key is which we have for the
	// two, by the peer and, if that says so, by us.
	Secret      string `json:"secret,omitempty"`
	SecretLocal string `json:"secret_local,omitempty"`

	Offer     []string     `json:"offer,omitempty"`  // his
	Ours      []string     `json:"ours,omitempty"`   // what we take, or have offered
	Agreed    string       `json:"agreed,omitempty"` // for IKE, before
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Pools     []string     `json:"pools,omitempty"`
	Limit     int          `json:"limit,omitempty"` // of what one identity may have

	WantsLocal    []string `json:"wants_local,omitempty"` // what he wants on our side, or we there
	WantsRemote   []string `json:"wants_remote,omitempty"`
	AllowedLocal  []string `json:"allowed_local,omitempty"` // what the connection has of a side where nothing fits
	AllowedRemote []string `json:"allowed_remote,omitempty"`

	Error  string `json:"error,omitempty"`
	Advice string `json:"advice,omitempty"`
}

// newRefusal makes of the fact what a person can read.
func newRefusal(ev shard.Event, set *policy.Set) *Refusal {
	f := ev.Refusal
	r := &Refusal{By: "us", Remote: ev.Path.Remote, Initiator: ev.Role == sa.Initiator, Claimed: shown(f.Claimed), ClaimedKind: kindOf(f.Claimed),
		Proven: f.Proven, Asked: shown(f.Asked), Offer: suite.DescribeOffer(f.Offer), Ours: proposalNames(f.Ours),
		WantsLocal: shard.SelectorNames(f.Own), WantsRemote: shard.SelectorNames(f.Theirs),
		AllowedLocal: shard.SelectorNames(f.MayOwn), AllowedRemote: shard.SelectorNames(f.MayTheirs)}
	if f.Agreed != (suite.Choice{}) {
		r.Agreed = f.Agreed.String()
	}
	if ev.Notify != 0 {
		r.Notify = ev.Notify.String()
	}
	if ev.Err != nil {
		r.Error = clip(ev.Err.Error())
	}
	switch {
	case f.ByPeer:
		r.By, r.Unauthenticated = "peer", r.Agreed == ""
	default:
		r.Rule = f.Rule.String()
	}
	if f.Rule == policy.NoOwnIdentity {
		var names []string
		for _, id := range set.Ours(f.Claimed) {
			names = append(names, id.String())
		}
		r.OurIDs = some(names, " or ")
	}
	if c := f.Conn; c != nil {
		r.describe(c, f.Rule)
		r.describeSecret(f, ev.Notify, set)
	}
	return r
}

// describe adds what the connection has to do with it.
func (r *Refusal) describe(c *policy.Connection, rule policy.Rule) {
	r.Connection, r.OurIDs, r.Expected = c.Name, c.LocalID.String(), c.RemoteID.String()
	switch rule {
	case policy.WrongAddress:
		r.Addresses = c.Pins
	case policy.NoAddress, policy.NotAsked, policy.TooManyLeases:
		r.Pools = c.Pools
	}
	switch rule {
	case policy.TooManySAs:
		r.Limit = c.MaxSAs
	case policy.TooManyLeases:
		r.Limit = c.MaxLeases
	}
	if r.By == "peer" {
		r.Addresses = c.VIPs
	}
}

// describeSecret names the key where it may be another than the peer's.
func (r *Refusal) describeSecret(f *sa.Refusal, notify wire.NotifyType, set *policy.Set) {
	peer := f.Claimed
	switch {
	case f.Rule == policy.WrongSecret:
	case f.ByPeer && notify == wire.AuthenticationFailed && r.Initiator:
		peer, _ = f.Conn.RemoteID.Exact()
	default:
		return
	}
	shared, _ := set.Shared(f.Conn.LocalID, peer)
	r.Secret, r.SecretLocal = shared.Remote.String(), shared.Local.String()
}

func proposalNames(ps []suite.Proposal) (out []string) {
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}

// shown is an identity as a person would write it, whatever is in it.
func shown(id policy.ID) string {
	if id == (policy.ID{}) {
		return ""
	}
	if kindOf(id) == "" {
		return escaped(id.String())
	}
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal([]byte(id.Data), &name); id.Kind == wire.IDDERDN && err == nil && len(rest) == 0 {
		return escaped(name.String())
	}
	return escaped(id.Data)
}

// kindOf is the kind of an identity that no configuration can have.
func kindOf(id policy.ID) string {
	if same, err := policy.ParseID(id.String()); id == (policy.ID{}) || err == nil && same == id {
		return ""
	}
	return id.Kind.String()
}

// longestName is how much is shown of a name that a peer has chosen, in ASCII.
const longestName = policy.MaxID

// escaped makes a text harmless in a line, and as long as a name may be.
func escaped(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		_, size := utf8.DecodeRuneInString(s)
		q := strconv.QuoteToASCII(s[:size])
		if b.Len()+len(q)-2 > longestName {
			return b.String() + "..."
		}
		b.WriteString(q[1 : len(q)-1])
		s = s[size:]
	}
	return b.String()
}
