package shard

import (
	"errors"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// refusalNames are the counters' names of the rules.
func refusalNames() (out []string) {
	for i := range policy.Rules {
		out = append(out, "refused_"+policy.Rule(i+1).String())
	}
	return out
}

// refusalCounter is that of a refusal.
func refusalCounter(ev sa.Event) counter {
	if !ev.Refusal.ByPeer {
		return cRefused + counter(ev.Refusal.Rule) - 1
	}
	switch ev.Notify {
	case wire.AuthenticationFailed:
		return cByPeerAuth
	case wire.NoProposalChosen:
		return cByPeerSuite
	case wire.TSUnacceptable:
		return cByPeerSelectors
	case wire.InternalAddressFailure, wire.FailedCPRequired:
		return cByPeerAddress
	}
	return cByPeerOther
}

// discardReasons are why an SA discards a message; what is none of them is wrong in
// its form.
var discardReasons = []struct {
	err error
	counter
}{
	{sa.ErrState, cDiscardedState}, {sa.ErrRole, cDiscardedRole}, {sa.ErrWindow, cDiscardedWindow},
	{sa.ErrChanged, cDiscardedChanged}, {sa.ErrBusy, cDiscardedBusy}, {sa.ErrLarger, cDiscardedLarger},
	{sa.ErrOffer, cDiscardedOffer}, {suite.ErrAnswer, cDiscardedOffer}, {suite.ErrAuthentication, cDiscardedICV},
}

// discard counts a message that an SA has discarded.
func (c *counters) discard(why error) {
	for _, reason := range discardReasons {
		if errors.Is(why, reason.err) {
			c[reason.counter]++
			return
		}
	}
	c[cDiscardedSyntax]++
}
