package ike

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
)

// ruleWords say of a rule what is wrong, where that is all there is to say.
var ruleWords = map[policy.Rule]string{
	policy.NoSuite:         "no common proposal for IKE",
	policy.BadKE:           "invalid key exchange value",
	policy.NoProof:         "does not authenticate with a pre-shared key",
	policy.NoIdentity:      "no connection is for this identity",
	policy.NoOwnIdentity:   "asks for an identity of ours that its connections do not have",
	policy.WrongAddress:    "calls from an address that its connection does not allow",
	policy.NoSecret:        "no secret for the two identities",
	policy.WrongSecret:     "wrong secret",
	policy.NotUnique:       "already has a tunnel, and the connection keeps that one",
	policy.TooManySAs:      "has as many tunnels as one identity may have",
	policy.NoPlace:         "the gateway is full",
	policy.NoESPSuite:      "no common proposal for ESP",
	policy.NoSelectors:     "no common traffic selectors",
	policy.NoAddress:       "no address is left",
	policy.TooManyLeases:   "has as many virtual addresses as one identity may have",
	policy.NotAsked:        "asks for no virtual address",
	policy.NoEncapsulation: "does not encapsulate ESP in UDP, and nothing else is supported here",
}

// RefusalWords says what a counter of refusals counts; "" if it is of something else.
func RefusalWords(counter string) string {
	name, refused := strings.CutPrefix(counter, "refused_")
	if what, ok := strings.CutPrefix(name, "by_peer_"); ok {
		return "peers refuse us (" + what + ")"
	}
	if rule := policy.ParseRule(name); refused && rule != policy.Accepted {
		return ruleWords[rule]
	}
	return ""
}

// Line is the fact, and what can be done about it.
func (r *Refusal) Line() string { return strings.TrimSuffix(r.String()+"; "+r.Advice, "; ") }

// String is the fact in one line.
func (r *Refusal) String() string {
	if r.By == "peer" {
		return r.byPeer()
	}
	return fmt.Sprintf("refused %v: %s", r.Remote, r.byUs())
}

func (r *Refusal) byUs() string {
	switch policy.ParseRule(r.Rule) {
	case policy.NoSuite:
		if r.Claimed == "" {
			return fmt.Sprintf("offers %s, we take %s", some(r.Offer, " or "), some(r.Ours, " or "))
		}
		return fmt.Sprintf("%s: %s was agreed before it said who it is, and the connection takes %s", r.who(), r.Agreed, some(r.Ours, " or "))
	case policy.BadKE:
		return fmt.Sprintf("%s (%s)", ruleWords[policy.BadKE], r.Error)
	case policy.NoESPSuite:
		return fmt.Sprintf("%s offers ESP %s, connection %s takes %s", r.name(), some(r.Offer, " or "), r.Connection, some(r.Ours, " or "))
	case policy.NoSelectors:
		return r.selectors()
	}
	return r.who() + ": " + r.what()
}

// name is who the peer is, or says that it is.
func (r *Refusal) name() string {
	name := `"` + r.Claimed + `"`
	if r.ClaimedKind != "" {
		name += " (" + r.ClaimedKind + ")"
	}
	switch {
	case r.Claimed == "":
		return "does not say who it is"
	case r.Proven:
		return name
	}
	return "claims to be " + name
}

func (r *Refusal) who() string {
	if r.Connection == "" {
		return r.name()
	}
	return r.name() + " for connection " + r.Connection
}

// what is wrong with him.
func (r *Refusal) what() string {
	rule := policy.ParseRule(r.Rule)
	switch rule {
	case policy.NoIdentity:
		if r.Connection != "" {
			return fmt.Sprintf("it expects %q", r.Expected)
		}
	case policy.NoOwnIdentity:
		return fmt.Sprintf("asks for \"%s\", but we are \"%s\" to it", r.Asked, r.OurIDs)
	case policy.WrongAddress:
		return "the connection takes calls from " + some(texts(r.Addresses), " or ") + " only"
	case policy.NoSecret:
		return fmt.Sprintf("no secret for it and %q", r.OurIDs)
	case policy.NoAddress:
		if r.Initiator {
			return r.Error
		}
		return "no address is left in " + poolNames(r.Pools)
	case policy.NotAsked:
		return "asks for no virtual address, and the connection requires one from " + poolNames(r.Pools)
	case policy.TooManySAs, policy.TooManyLeases:
		return fmt.Sprintf("%s: %d", ruleWords[rule], r.Limit)
	}
	return ruleWords[rule]
}

// selectors tells what he wants, and what there is of the side that does not fit.
func (r *Refusal) selectors() string {
	if len(r.WantsLocal)+len(r.WantsRemote) == 0 {
		return r.who() + ": names no traffic selectors"
	}
	wants := fmt.Sprintf("%s wants %s", r.name(), fromTo(r.WantsLocal, r.WantsRemote))
	if len(r.AllowedLocal)+len(r.AllowedRemote) == 0 {
		return wants + ": " + r.Error
	}
	return fmt.Sprintf("%s, connection %s allows %s", wants, r.Connection, fromTo(r.AllowedLocal, r.AllowedRemote))
}

// fromTo are networks of our side, for those of his.
func fromTo(local, remote []string) string {
	switch {
	case len(remote) == 0:
		return some(plainHosts(local), ", ")
	case len(local) == 0:
		return some(plainHosts(remote), ", ")
	}
	return some(plainHosts(local), ", ") + " from " + some(plainHosts(remote), ", ")
}

func (r *Refusal) byPeer() string {
	what := r.Notify
	if what == "" {
		what = "no Child SA, and no reason given"
	}
	if r.Unauthenticated {
		what += " (not authenticated: the handshake goes on)"
	}
	return fmt.Sprintf("%v refuses connection %s: %s%s", r.Remote, r.Connection, what, r.background())
}

// background is what of ours the peer complains of.
func (r *Refusal) background() string {
	switch {
	case len(r.Ours) > 0:
		return "; we offer " + some(r.Ours, " or ")
	case len(r.AllowedRemote) > 0:
		return "; we want " + fromTo(r.AllowedRemote, r.AllowedLocal)
	case r.Notify == "AUTHENTICATION_FAILED" && r.Initiator:
		return fmt.Sprintf("; we came as %q and expect %q", r.OurIDs, r.Expected)
	case r.Notify == "AUTHENTICATION_FAILED":
		return fmt.Sprintf("; it came as \"%s\", and we are %q", r.Claimed, r.OurIDs)
	case r.Notify == "INTERNAL_ADDRESS_FAILURE":
		return "; we ask for a virtual address: " + some(texts(r.Addresses), " and ")
	case r.Notify == "FAILED_CP_REQUIRED":
		return "; it wants us to ask for a virtual address"
	}
	return ""
}

func poolNames(names []string) string {
	if len(names) == 1 {
		return "pool " + names[0]
	}
	return "the pools " + some(names, ", ")
}

func texts(addrs []netip.Addr) (out []string) {
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// plainHosts writes a network of one address as that.
func plainHosts(networks []string) (out []string) {
	for _, n := range networks {
		if p, err := netip.ParsePrefix(n); err == nil && p.IsSingleIP() {
			n = p.Addr().String()
		}
		out = append(out, n)
	}
	return out
}

// longestList is how much of a list is shown, beside its first entry, and
// longestEntry how much of one.
const (
	longestList  = 160
	longestEntry = 120
)

// some is the beginning of a list, and how many more there are.
func some(list []string, or string) string {
	var b strings.Builder
	for i, entry := range list {
		if i > 0 && b.Len()+len(or)+len(entry) > longestList {
			return fmt.Sprintf("%s%s%d more", b.String(), or, len(list)-i)
		}
		if i > 0 {
			b.WriteString(or)
		}
		if len(entry) > longestEntry {
			entry = entry[:longestEntry] + "..."
		}
		b.WriteString(entry)
	}
	return b.String()
}
