package sa

import (
	"errors"
	"strings"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Refusal is a fact beside a [Refusing] event: one of the two does not take the
// other, or gives him no Child SA. It is all that whoever is to help needs. What
// is in it is not written any more, so it may be kept; no text is made of it
// before somebody wants to read it, since strangers cause as many as they like.
type Refusal struct {
	ByPeer  bool               // he refuses us, by the event's Notify; 0: he gave none
	Rule    policy.Rule        // by which we refuse him
	Conn    *policy.Connection // that he would have had, or that we called for; may be nil
	Claimed policy.ID          // who he says that he is; zero: he has not said
	Proven  bool               // and has proved
	Asked   policy.ID          // as whom he wants us; zero: he did not say

	Offer []wire.Proposal  // his
	Ours  []suite.Proposal // what we take, or have offered
	// Agreed is what stood before: zero in IKE_SA_INIT, where nobody is
	// authenticated, and what the peer says may be forged.
	Agreed suite.Choice

	Theirs, Own []wire.Selector // of his and of our side, as he wants them
	// MayTheirs and MayOwn are the same as the connection has them, with the
	// addresses that he has been given; nil where his have a part in them.
	MayTheirs, MayOwn []wire.Selector
}

// refused reports a refusal.
func (s *SA) refused(r *Refusal, e Event, out *Effects) {
	e.Kind, e.Refusal, e.Path = Refusing, r, s.Path()
	out.add(report(e))
}

// refusedInit reports that a first message has nothing that we take. Nothing else is
// kept of it: an SPI would hold its bytes for as long as somebody has the event.
func refusedInit(p wire.Packet, offered []wire.Proposal, ours []suite.Proposal, out *Effects) {
	for i := range offered {
		offered[i].SPI = nil
	}
	out.add(report(Event{Kind: Refusing, Notify: wire.NoProposalChosen, Path: Path{p.Local, p.Remote},
		Refusal: &Refusal{Rule: policy.NoSuite, Offer: offered, Ours: ours}}))
}

// refusedIdentity reports that a peer is not taken for who he says that he is.
func (s *SA) refusedIdentity(rule policy.Rule, conn *policy.Connection, c policy.Claim, out *Effects) {
	r := &Refusal{Rule: rule, Conn: conn, Claimed: bounded(c.ID), Asked: bounded(c.Asked), Agreed: s.rec.Suite}
	if rule == policy.NoSuite {
		r.Ours = conn.Proposals
	}
	s.refused(r, Event{Notify: wire.AuthenticationFailed}, out)
}

// refusedPlace reports that somebody who has proved who he is gets no SA.
func (s *SA) refusedPlace(rule policy.Rule, e Event, out *Effects) {
	s.refused(&Refusal{Rule: rule, Conn: s.rec.Conn, Claimed: s.rec.Peer.ID(), Proven: true, Agreed: s.rec.Suite}, e, out)
}

// refusedChild reports that a peer gets no Child SA beside his IKE SA, or that we do
// not take the one that he gives.
func (s *SA) refusedChild(r *Refusal, e Event, out *Effects) {
	r.Conn, r.Claimed, r.Proven, r.Agreed = s.rec.Conn, s.rec.Peer.ID(), true, s.rec.Suite
	s.refused(r, e, out)
}

// refusedByPeer reports that the peer refuses us; what we have offered or wanted
// goes with it where he complains of that.
func (s *SA) refusedByPeer(kind wire.NotifyType, out *Effects) {
	r := &Refusal{ByPeer: true, Conn: s.rec.Conn, Claimed: s.rec.Peer.ID(), Proven: s.rec.Peer.n != 0}
	if s.rec.State >= AuthSent {
		r.Agreed = s.rec.Suite
	}
	switch {
	case kind == wire.NoProposalChosen && s.rec.State < AuthSent:
		r.Ours = s.rec.Conn.Proposals
	case kind == wire.NoProposalChosen:
		r.Ours = withoutKE(s.rec.Conn.Child.Proposals)
	case kind == wire.TSUnacceptable:
		r.MayOwn, r.MayTheirs = s.ownSelectors()
	}
	s.refused(r, Event{Notify: kind}, out)
}

// mayTell reports whether another refusal of an answer is told that anybody may
// have forged.
func (s *SA) mayTell() bool {
	s.hs.complaints++
	return s.hs.complaints <= maxComplaints
}

// complain reports that the value in an answer is none, if that is what went wrong
// with the key exchange.
func (s *SA) complain(err error, out *Effects) {
	if errors.Is(err, suite.ErrPublic) && s.mayTell() {
		s.refused(&Refusal{Rule: policy.BadKE, Conn: s.rec.Conn}, Event{Err: err}, out)
	}
}

// refusedAnswer reports why the Child SA of an answer is not taken.
func (s *SA) refusedAnswer(err error, out *Effects) {
	a, r := s.hs.auth, &Refusal{}
	switch {
	case errors.Is(err, errNoChild):
		s.refusedByPeer(s.hs.trouble, out)
		return
	case errors.Is(err, suite.ErrAnswer):
		r.Rule, r.Offer, r.Ours = policy.NoESPSuite, a.sa.Proposals, withoutKE(s.rec.Conn.Child.Proposals)
	case errors.Is(err, errWidened), errors.Is(err, errOutside):
		r.Rule, r.Own, r.Theirs = policy.NoSelectors, a.tsi.Selectors, a.tsr.Selectors
		local, remote := s.ownSelectors()
		if !within(r.Own, local) {
			r.MayOwn = local
		}
		if !within(r.Theirs, remote) {
			r.MayTheirs = remote
		}
	default:
		r.Rule = policy.NoAddress
	}
	s.refusedChild(r, Event{Err: err}, out)
}

// denial is an AUTHENTICATION_FAILED that is still to be sent.
type denial struct {
	answer Send
	why    error
}

// refuseAuth answers AUTHENTICATION_FAILED and forgets the SA: at once, or, for
// somebody who has failed often, after a time in which he has this SA and no
// answer. RFC 7296 §2.21.2
func (s *SA) refuseAuth(now mono.Time, p wire.Packet, claimed policy.ID, why error, out *Effects) {
	s.hs.denial = &denial{reply(p, s.seal(wire.IKEAuth, wire.FlagResponse, s.rec.NextExpected-1,
		&wire.Notify{Kind: wire.AuthenticationFailed})), why}
	if wait := s.env.FailedAuth(now, p.Remote.Addr(), claimed); wait > 0 {
		s.mustFinish = now.Add(wait)
		return
	}
	s.deny(out)
}

func (s *SA) deny(out *Effects) {
	out.add(s.hs.denial.answer)
	s.close(AuthFailed, Event{Err: s.hs.denial.why}, out)
}

// refusedProof reports an IKE_AUTH request without an identity, or without AUTH:
// its sender wants to prove himself in another way.
func (s *SA) refusedProof(p wire.Packet, idi *wire.ID, ps []wire.Payload, out *Effects) {
	var claim policy.Claim
	var conn *policy.Connection
	if idi != nil {
		claim = claimOf(p, idi, ps)
		conn, _ = s.env.Policy.Find(claim)
	}
	s.refusedIdentity(policy.NoProof, conn, claim, out)
}

// childRefusal is why a responder gives no Child SA.
func (s *SA) childRefusal(rule policy.Rule, c Admitted) *Refusal {
	a, r := s.hs.auth, &Refusal{Rule: rule}
	switch {
	case rule == policy.NoESPSuite:
		r.Offer, r.Ours = a.sa.Proposals, withoutKE(s.rec.Conn.Child.Proposals)
	case rule == policy.NoSelectors && a.tsi != nil && a.tsr != nil:
		r.Theirs, r.Own = a.tsi.Selectors, a.tsr.Selectors
		peer, own := s.acceptSelectors(c.Addrs)
		theirs, ours := s.allowed(c.Addrs)
		if len(peer) == 0 {
			r.MayTheirs = theirs
		}
		if len(own) == 0 {
			r.MayOwn = ours
		}
	}
	return r
}

// bounded cuts an identity that is none: a claim may fill a datagram.
func bounded(id policy.ID) policy.ID {
	if len(id.Data) > 2*policy.MaxID {
		id.Data = strings.Clone(id.Data[:2*policy.MaxID])
	}
	return id
}
