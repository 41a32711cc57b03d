package sa

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

var (
	errSlots   = errors.New("no free slot for an inbound SPI: the capacity is used up")
	errNoChild = errors.New("the peer gave no Child SA")
	errWidened = errors.New("the peer's traffic selectors go beyond ours")
	errNoNATT  = errors.New("the peer does not encapsulate ESP in UDP, and we do nothing else")
)

// childRequest are the initiator's payloads for the first Child SA.
func (s *SA) childRequest(spi uint32) []wire.Payload {
	var ps []wire.Payload
	if len(s.rec.Conn.VIPs) > 0 {
		ps = append(ps, &wire.CP{Kind: wire.CFGRequest, Attrs: addressAttrs(s.rec.Conn.VIPs)})
	}
	tsi, tsr := s.ownSelectors()
	return append(ps,
		&wire.SA{Proposals: offer(withoutKE(s.rec.Conn.Child.Proposals), wire.ProtoESP, spiBytes(spi))},
		&wire.TS{T: wire.TypeTSi, Selectors: tsi},
		&wire.TS{T: wire.TypeTSr, Selectors: tsr})
}

// ownSelectors are the local and the remote side that an initiator proposes.
// With a virtual address asked for, the local side is open until it is known.
func (s *SA) ownSelectors() (local, remote []wire.Selector) {
	local, remote = s.rec.Conn.Child.Local, s.rec.Conn.Child.Remote
	if len(local) == 0 {
		for _, a := range s.rec.Conn.VIPs {
			local = append(local, whole(a))
		}
	}
	path := s.Path()
	if len(local) == 0 {
		local = []wire.Selector{single(path.Local.Addr())}
	}
	if len(remote) == 0 {
		remote = []wire.Selector{single(path.Remote.Addr())}
	}
	return local, remote
}

func spiBytes(spi uint32) []byte { return binary.BigEndian.AppendUint32(nil, spi) }

// withoutKE: the first Child SA's keys come from the IKE SA's own exchange.
// RFC 7296 §1.2
func withoutKE(ps []suite.Proposal) []suite.Proposal {
	out := make([]suite.Proposal, len(ps))
	for i, p := range ps {
		p.KE = nil
		out[i] = p
	}
	return out
}

// acceptChild chooses and derives the responder's first Child SA. A refusal is
// the notify that says why there is none; a peer that asked for none gets none.
func (s *SA) acceptChild(now mono.Time, c Admitted) (ok bool, ps []wire.Payload, rule policy.Rule, refusal wire.NotifyType) {
	a := s.hs.auth
	if a.sa == nil { // RFC 6023
		return false, nil, policy.Accepted, 0
	}
	wanted := a.wanted()
	switch {
	case a.tsi == nil || a.tsr == nil:
		return false, nil, policy.NoSelectors, wire.InvalidSyntax
	case !s.carriesESP():
		return false, nil, policy.NoEncapsulation, wire.NoProposalChosen
	case len(s.rec.Conn.Pools) > 0 && len(wanted) == 0:
		return false, nil, policy.NotAsked, wire.FailedCPRequired
	case len(wanted) > 0 && len(c.Addrs) == 0:
		return false, nil, c.Rule, wire.InternalAddressFailure
	}
	chosen, err := suite.Choose(withoutKE(s.rec.Conn.Child.Proposals), a.sa.Proposals, wire.ProtoESP, 0)
	if err != nil {
		return false, nil, policy.NoESPSuite, wire.NoProposalChosen
	}
	peer, own := s.acceptSelectors(c.Addrs)
	if len(peer) == 0 || len(own) == 0 {
		return false, nil, policy.NoSelectors, wire.TSUnacceptable
	}
	spi, free := s.env.AllocSPI(now)
	if !free {
		return false, nil, policy.NoPlace, wire.NoAdditionalSAs
	}
	s.setChild(spi, binary.BigEndian.Uint32(chosen.SPI), chosen.Choice, own, peer)
	if len(c.Addrs) > 0 {
		ps = append(ps, configReply(a.cp, c))
	}
	return true, append(ps,
		&wire.SA{Proposals: []wire.Proposal{chosen.Wire(chosen.Number, wire.ProtoESP, spiBytes(spi))}},
		&wire.TS{T: wire.TypeTSi, Selectors: peer}, &wire.TS{T: wire.TypeTSr, Selectors: own}), policy.Accepted, 0
}

// acceptSelectors narrows the peer's offer: a peer with a virtual address gets
// that address and nothing beside it.
func (s *SA) acceptSelectors(leased []netip.Addr) (peer, own []wire.Selector) {
	remote, local := s.allowed(leased)
	return narrow(remote, s.hs.auth.tsi.Selectors), narrow(local, s.hs.auth.tsr.Selectors)
}

// allowed is what a responder may agree to, of the peer's and of our side.
func (s *SA) allowed(leased []netip.Addr) (remote, local []wire.Selector) {
	remote = s.rec.Conn.Child.Remote
	for _, a := range leased {
		remote = append(remote[:len(remote):len(remote)], single(a))
	}
	if len(leased) > 0 {
		remote = remote[len(s.rec.Conn.Child.Remote):]
	}
	path := s.Path()
	if len(remote) == 0 {
		remote = []wire.Selector{single(path.Remote.Addr())}
	}
	local = s.rec.Conn.Child.Local
	if len(local) == 0 {
		local = []wire.Selector{single(path.Local.Addr())}
	}
	return remote, local
}

// setChild derives the Child SA's keys and writes its record. RFC 7296 §2.17
func (s *SA) setChild(in, out uint32, ch suite.Choice, own, peer []wire.Selector) {
	c := &s.rec.Child
	*c = childRecord{InSPI: in, OutSPI: out, ReqID: in, Suite: ch}
	k := suite.ChildKeys{EncrI: &c.InEncr, IntegI: &c.InInteg, EncrR: &c.OutEncr, IntegR: &c.OutInteg}
	if s.rec.Role == Initiator {
		k = suite.ChildKeys{EncrI: &c.OutEncr, IntegI: &c.OutInteg, EncrR: &c.InEncr, IntegR: &c.InInteg}
	}
	s.rec.Suite.DeriveChild(k, ch, &s.rec.Keys.D, s.hs.ni, s.hs.nr)
	c.NLocal = flattenSelectors(own, &c.Local)
	c.NRemote = flattenSelectors(peer, &c.Remote)
	s.hs.childSPI = 0
}

// takeChild checks and derives the initiator's first Child SA. RFC 7296 §2.9:
// an answer may be narrower than the offer, never wider. It is not taken at its
// word: see given and cut.
func (s *SA) takeChild() error {
	a := s.hs.auth
	if a.sa == nil || a.tsi == nil || a.tsr == nil {
		if s.hs.trouble != 0 {
			return fmt.Errorf("%w: %v", errNoChild, s.hs.trouble)
		}
		return errNoChild
	}
	chosen, err := suite.Accept(withoutKE(s.rec.Conn.Child.Proposals), a.sa.Proposals, wire.ProtoESP)
	if err != nil {
		return err
	}
	local, remote := s.ownSelectors()
	if !within(a.tsi.Selectors, local) || !within(a.tsr.Selectors, remote) {
		return errWidened
	}
	vips, err := s.given(a.cp)
	if err != nil {
		return err
	}
	own, err := s.cut(a.tsi.Selectors, vips)
	if err != nil {
		return err
	}
	s.setChild(s.hs.childSPI, binary.BigEndian.Uint32(chosen.SPI), chosen.Choice, own, a.tsr.Selectors)
	s.rec.Child.setVIPs(vips)
	return nil
}

// installChild orders the installation: the peer may send as soon as he knows
// the SPI, so inbound stands before anything goes out.
func (s *SA) installChild(out *Effects) {
	child, _ := s.Child()
	c := &s.rec.Child
	child.InEncr, child.InInteg, child.OutEncr, child.OutInteg = &c.InEncr, &c.InInteg, &c.OutEncr, &c.OutInteg
	s.tracked = true
	out.add(Track{SPI: child.InSPI, Path: child.Path, PeerNATted: s.rec.PeerNATted && !s.rec.LocalNATted},
		InstallInbound{&child}, InstallOutbound{&child})
}
