package sa

import (
	"errors"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// authMessage is the peer's IKE_AUTH message, authenticated, while its
// admission is asked for.
type authMessage struct {
	packet   wire.Packet // a responder's, for its answer; without the data
	sa       *wire.SA
	tsi, tsr *wire.TS
	cp       *wire.CP
}

var (
	errNoAuth   = errors.New("IKE_AUTH lacks an identity or AUTH")
	errIdentity = errors.New("no connection and secret for this identity, or AUTH is wrong")
	errRefused  = errors.New("the peer refuses")
)

// denials are why an initiator does not believe a responder.
var denials = map[policy.Rule]error{
	policy.NoIdentity:  errors.New("the peer is not who was called"),
	policy.NoProof:     errors.New("the peer gives no proof by a pre-shared key"),
	policy.NoSecret:    errors.New("there is no secret for the two"),
	policy.WrongSecret: errors.New("the peer has another secret"),
}

func newAuthMessage(p wire.Packet, ps []wire.Payload) *authMessage {
	p.Data = nil
	a := &authMessage{packet: p}
	a.sa, _ = wire.Find[*wire.SA](ps)
	a.tsi, _ = wire.FindTS(ps, wire.TypeTSi)
	a.tsr, _ = wire.FindTS(ps, wire.TypeTSr)
	a.cp, _ = wire.Find[*wire.CP](ps)
	return a
}

// initiatorPSK is the AUTH value of the initiator: over the IKE_SA_INIT request
// that it sent, the other's nonce, and its identity. RFC 7296 §2.15
func (s *SA) initiatorPSK(secret, request []byte, id *wire.ID) []byte {
	return s.rec.Suite.PSKAuth(secret, request, s.hs.nr, &s.rec.Keys.Pi, id)
}

// responderPSK is that of the responder.
func (s *SA) responderPSK(secret []byte, id *wire.ID) []byte {
	return s.rec.Suite.PSKAuth(secret, s.hs.response, s.hs.ni, &s.rec.Keys.Pr, id)
}

// provenPSK reports whether auth is the initiator's AUTH over the request: as
// it came, in another version that came, or with a cookie of ours. The peer may
// have signed a request with a cookie that is late, or lost: what it says is
// known all the same.
func (s *SA) provenPSK(auth, secret []byte, id *wire.ID) bool {
	if equal(auth, s.initiatorPSK(secret, s.hs.request, id)) {
		return true
	}
	for _, v := range s.hs.versions {
		if equal(auth, s.initiatorPSK(secret, s.inVersion(v), id)) {
			return true
		}
	}
	for _, cookie := range s.env.Cookies(s.rec.Created, s.rec.PeerSPI, s.hs.ni, s.hs.from.Remote) {
		if equal(auth, s.initiatorPSK(secret, s.inVersion(cookie), id)) {
			return true
		}
	}
	return false
}

// sendAuth is the initiator's IKE_AUTH request.
func (s *SA) sendAuth(now mono.Time, c Agreed, out *Effects) {
	s.derive(c.Secret)
	if s.encapsulated() {
		s.float()
	}
	if s.rec.LocalNATted || s.rec.PeerNATted {
		out.add(report(Event{Kind: NATDetected, Path: s.Path()}))
	}
	spi, ok := s.env.AllocSPI(now)
	if !ok {
		s.close(LocalFailure, Event{Err: errSlots}, out)
		return
	}
	s.hs.childSPI = spi
	idi := s.rec.Conn.LocalID.Payload(wire.TypeIDi)
	psk, _ := s.env.Policy.Secret(s.rec.Conn.LocalID, s.expectedPeer())
	ps := []wire.Payload{idi}
	peer, exact := s.rec.Conn.RemoteID.Exact()
	if exact {
		ps = append(ps, peer.Payload(wire.TypeIDr))
	}
	ps = append(ps, &wire.Auth{Method: wire.AuthSharedKey, Data: s.initiatorPSK(psk, s.hs.request, idi)})
	if exact && c.Alone { // RFC 7296 §2.4
		ps = append(ps, &wire.Notify{Kind: wire.InitialContact})
	}
	s.setState(AuthSent)
	s.start(now, authRequest, wire.IKEAuth, out, append(ps, s.childRequest(spi)...)...)
}

// expectedPeer is the identity that an initiator calls; zero for a wildcard,
// for which a secret of our own identity must serve.
func (s *SA) expectedPeer() policy.ID {
	id, _ := s.rec.Conn.RemoteID.Exact()
	return id
}

// authRequest is the responder's judgement of IKE_AUTH. An unknown identity
// and a wrong key take the same way to the same answer.
func (s *SA) authRequest(now mono.Time, p wire.Packet, ps []wire.Payload, out *Effects) {
	idi, okID := wire.FindID(ps, wire.TypeIDi)
	auth, okAuth := wire.Find[*wire.Auth](ps)
	if !okID || !okAuth {
		s.refusedProof(p, idi, ps, out)
		s.refuseAuth(now, p, policy.ID{}, errNoAuth, out)
		return
	}
	claim := claimOf(p, idi, ps)
	conn, secret, rule := s.judge(claim, idi)
	valid := auth.Method == wire.AuthSharedKey && s.provenPSK(auth.Data, secret, idi)
	switch {
	case auth.Method != wire.AuthSharedKey:
		rule = policy.NoProof
	case rule == policy.Accepted && !valid:
		rule = policy.WrongSecret
	}
	if rule != policy.Accepted {
		s.refusedIdentity(rule, conn, claim, out)
		s.refuseAuth(now, p, claim.ID, errIdentity, out)
		return
	}
	s.rec.Conn, s.rec.Peer = conn, flatten(claim.ID)
	s.hs.auth = newAuthMessage(p, ps)
	_, initial := wire.FindNotify(ps, wire.InitialContact)
	s.setState(AuthPending)
	out.add(Admit{InitialContact: initial, Want: s.hs.auth.wanted()})
}

// claimOf is how the peer presents himself.
func claimOf(p wire.Packet, idi *wire.ID, ps []wire.Payload) policy.Claim {
	claim := policy.Claim{From: p.Remote.Addr()}
	claim.ID, _ = policy.FromPayload(idi)
	if idr, ok := wire.FindID(ps, wire.TypeIDr); ok {
		claim.Asked, _ = policy.FromPayload(idr)
	}
	return claim
}

// judge finds the connection and secret for a claimed identity. Where there is
// none, the secret is one that nobody knows.
func (s *SA) judge(claim policy.Claim, idi *wire.ID) (conn *policy.Connection, secret []byte, rule policy.Rule) {
	rule = policy.NoIdentity
	if _, known := policy.FromPayload(idi); known {
		conn, secret, rule = s.env.Policy.Match(claim, s.rec.Suite)
	}
	if rule != policy.Accepted {
		secret = s.random(nonceLen)
	}
	return conn, secret, rule
}

// admitted goes on with the IKE_AUTH of an admitted peer.
func (s *SA) admitted(now mono.Time, c Admitted, out *Effects) {
	switch {
	case s.rec.State != AuthPending:
	case c.Rule.OfAssociation():
		s.turnAway(c.Rule, out)
	case s.rec.Role == Responder:
		s.answerAuth(now, c, out)
	default:
		s.completeAuth(now, out)
	}
}

// turnAway refuses a peer who has proved who he is. That he has his share may pass;
// that he may have one SA only is for him to know.
func (s *SA) turnAway(rule policy.Rule, out *Effects) {
	kind := wire.TemporaryFailure
	if rule == policy.NotUnique {
		kind = wire.AuthenticationFailed
	}
	out.add(reply(s.hs.auth.packet, s.seal(wire.IKEAuth, wire.FlagResponse, s.rec.NextExpected-1, &wire.Notify{Kind: kind})))
	s.refusedPlace(rule, Event{Notify: kind}, out)
	s.close(Refused, Event{Notify: kind}, out)
}

// answerAuth is the responder's IKE_AUTH response, and with it the first Child
// SA. RFC 7296 §1.2
func (s *SA) answerAuth(now mono.Time, c Admitted, out *Effects) {
	ps := s.identify()
	child, payloads, rule, refusal := s.acceptChild(now, c)
	if !child && len(c.Addrs) > 0 { // of which the peer does not hear
		out.add(ReturnLeases{})
	}
	if refusal != 0 {
		payloads = []wire.Payload{&wire.Notify{Kind: refusal}}
	}
	s.respondAuth(now, append(ps, payloads...), child, out)
	if rule != policy.Accepted {
		s.refusedChild(s.childRefusal(rule, c), Event{Notify: refusal}, out)
	}
	s.established(now, refusal, out)
}

// identify is our identity and its proof, as a responder.
func (s *SA) identify() []wire.Payload {
	idr := s.rec.Conn.LocalID.Payload(wire.TypeIDr)
	secret, _ := s.env.Policy.Secret(s.rec.Conn.LocalID, s.rec.Peer.ID())
	return []wire.Payload{idr, &wire.Auth{Method: wire.AuthSharedKey, Data: s.responderPSK(secret, idr)}}
}

// respondAuth seals the response and orders the steps: what the peer is told
// exists before he is told.
func (s *SA) respondAuth(now mono.Time, ps []wire.Payload, child bool, out *Effects) {
	s.setState(Up)
	s.keepResponse(now, s.seal(wire.IKEAuth, wire.FlagResponse, s.rec.NextExpected-1, ps...))
	out.add(Persist{&s.rec})
	if child {
		s.installChild(out)
	}
	out.add(reply(s.hs.auth.packet, s.rec.Response))
}

// established ends the handshake. Its memory stays until the steps have been
// carried out, since the answer to one that fails is made of it; so it goes
// with an Advance that is due at once.
func (s *SA) established(now mono.Time, refusal wire.NotifyType, out *Effects) {
	s.mustFinish = now
	s.rec.LastRoundTrip = now
	s.armKeepalive(now)
	if s.rec.Role == Responder && (s.rec.LocalNATted || s.rec.PeerNATted) {
		out.add(report(Event{Kind: NATDetected, Path: s.Path()}))
	}
	e := Event{Kind: Established, Notify: refusal, Path: s.Path()}
	if refusal != 0 && !s.carriesESP() {
		e.Err = errNoNATT
	}
	out.add(report(e))
	if child, ok := s.Child(); ok {
		out.add(report(Event{Kind: ChildUp, Path: s.Path(), Child: &child}))
	}
	s.deleteIfWanted(now, out)
}

// settle drops what only the handshake needed, when its last steps have been carried
// out: whatever comes next says so, unless it is the failure of one.
func (s *SA) settle() {
	if s.hs == nil || s.rec.State < Up {
		return
	}
	s.hs, s.mustFinish = nil, 0
	s.rec.Keys.Pi.Wipe()
	s.rec.Keys.Pr.Wipe()
}

// authResponse is the initiator's judgement of the IKE_AUTH response.
func (s *SA) authResponse(now mono.Time, ps []wire.Payload, out *Effects) {
	idr, okID := wire.FindID(ps, wire.TypeIDr)
	auth, okAuth := wire.Find[*wire.Auth](ps)
	if !okID || !okAuth {
		s.refusedAuth(ps, out)
		return
	}
	id, okID := policy.FromPayload(idr)
	psk, okPSK := s.env.Policy.Secret(s.rec.Conn.LocalID, s.expectedPeer())
	rule := policy.Accepted
	switch {
	case !okID || !s.rec.Conn.RemoteID.Match(id):
		rule = policy.NoIdentity
	case auth.Method != wire.AuthSharedKey:
		rule = policy.NoProof
	case !okPSK:
		rule = policy.NoSecret
	case !equal(auth.Data, s.responderPSK(psk, idr)):
		rule = policy.WrongSecret
	}
	if rule != policy.Accepted {
		s.refusedIdentity(rule, s.rec.Conn, policy.Claim{ID: id}, out)
		s.denyPeer(denials[rule], out)
		return
	}
	s.rec.Peer = flatten(id)
	s.hs.auth = newAuthMessage(wire.Packet{}, ps)
	s.hs.trouble = firstError(ps)
	s.setState(AuthPending)
	s.mustFinish = now.Add(s.env.HalfOpen)
	out.add(Admit{})
}

// refusedAuth takes a response without identity and proof: a refusal.
func (s *SA) refusedAuth(ps []wire.Payload, out *Effects) {
	kind := firstError(ps)
	if kind == 0 {
		s.refused(&Refusal{Rule: policy.NoProof, Conn: s.rec.Conn}, Event{}, out)
	} else {
		s.refusedByPeer(kind, out)
	}
	why := Refused
	if kind == wire.AuthenticationFailed {
		why = AuthFailed
	}
	s.close(why, Event{Notify: kind, Err: errRefused}, out)
}

// denyPeer tells a responder that we do not believe him. RFC 7296 §2.21.2
func (s *SA) denyPeer(why error, out *Effects) {
	out.add(s.send(s.seal(wire.Informational, 0, s.rec.NextRequest, &wire.Notify{Kind: wire.AuthenticationFailed})))
	s.close(AuthFailed, Event{Err: why}, out)
}

func firstError(ps []wire.Payload) wire.NotifyType {
	for _, p := range ps {
		if n, ok := p.(*wire.Notify); ok && n.Kind < 16384 {
			return n.Kind
		}
	}
	return 0
}

// completeAuth is the initiator's last step: the Child SA, or, if the peer
// gave none that we can use, the end.
func (s *SA) completeAuth(now mono.Time, out *Effects) {
	err := s.takeChild()
	s.setState(Up)
	if err != nil {
		s.refusedAnswer(err, out)
		e := Event{Kind: Established, Notify: s.hs.trouble, Err: err, Path: s.Path()}
		s.mustFinish = now
		s.dropChild(out)
		out.add(report(e))
		s.sendDelete(now, out)
		return
	}
	out.add(Persist{&s.rec})
	s.installChild(out)
	s.established(now, 0, out)
}
