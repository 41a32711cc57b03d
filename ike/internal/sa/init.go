package sa

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// handshake is what an SA needs only until it is established.
type handshake struct {
	group      uint16
	private    *suite.Private
	ni, nr     []byte
	cookie     []byte
	tried      []uint16  // groups that an INVALID_KE_PAYLOAD has led us to
	cookies    int       // how many COOKIE answers we have followed
	request    []byte    // IKE_SA_INIT as it was on the wire, for AUTH
	versions   []version // responder: how else the same request has come
	response   []byte
	answer     *wire.Message // responder's IKE_SA_INIT, while its key exchange is computed
	from       wire.Packet
	natAware   bool            // responder: the request has NAT detection
	denial     *denial         // responder: what IKE_AUTH is answered at mustFinish
	trouble    wire.NotifyType // what an unauthenticated answer complained of
	complaints int             // that were told
	childSPI   uint32          // allotted for the Child SA, not installed yet
	auth       *authMessage
}

const (
	nonceLen   = 32
	maxCookies = 3
	// maxComplaints is how many are told of one handshake: whoever sees it
	// can forge them.
	maxComplaints = 3
)

// initiate begins the handshake with the key pair of our first choice.
func (s *SA) initiate(now mono.Time, out *Effects) {
	s.hs.group = s.rec.Conn.Groups()[0]
	s.hs.ni = s.random(nonceLen)
	s.rec.Created = now
	s.setState(KeyPending)
	out.add(report(Event{Kind: Connecting, Path: s.Path()}), Agree{Group: s.hs.group})
}

// agreed goes on where a key exchange was waited for.
func (s *SA) agreed(now mono.Time, c Agreed, out *Effects) {
	switch {
	case s.rec.State != KeyPending:
		c.Wipe()
	case s.rec.Role == Responder:
		s.answerInit(now, c, out)
		c.Wipe()
	case c.Err == nil && c.Secret == nil:
		s.hs.private = c.Private
		s.sendInit(now, out)
	case c.Err != nil && c.Private == nil:
		s.close(LocalFailure, Event{Err: c.Err}, out)
	case c.Err != nil:
		s.hs.private = c.Private
		s.rec.PeerSPI = 0 // a forged answer, perhaps: the true one may still come
		s.setState(InitSent)
		s.complain(c.Err, out)
	default:
		s.sendAuth(now, c, out)
		c.Wipe()
	}
}

// sendInit sends IKE_SA_INIT; the waiting for its answer is one, however often
// a cookie or another group makes us begin anew.
func (s *SA) sendInit(now mono.Time, out *Effects) {
	ps := []wire.Payload{}
	if s.hs.cookie != nil { // RFC 7296 §2.6: first, and all else unchanged
		ps = append(ps, &wire.Notify{Kind: wire.Cookie, Data: s.hs.cookie})
	}
	ps = append(ps, &wire.SA{Proposals: offer(s.rec.Conn.Proposals, wire.ProtoIKE, nil)},
		&wire.KE{Group: s.hs.group, Data: s.hs.private.Public()}, &wire.Nonce{Data: s.hs.ni})
	ps = append(ps, s.natNotifies(s.Path())...)
	m := wire.Message{Header: wire.Header{SPIi: s.rec.SPI, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator}, Payloads: ps}
	s.hs.request = m.Append(nil)
	s.rec.Request = s.hs.request
	s.rec.NextRequest = 1
	s.setState(InitSent)
	s.await(now, initRequest, wire.IKESAInit)
	out.add(s.send(s.hs.request))
}

// offer numbers the proposals from 1.
func offer(own []suite.Proposal, proto wire.ProtocolID, spi []byte) []wire.Proposal {
	out := make([]wire.Proposal, len(own))
	for i, p := range own {
		out[i] = p.Wire(uint8(i+1), proto, spi)
	}
	return out
}

// handleInit takes an IKE_SA_INIT message of either direction.
func (s *SA) handleInit(now mono.Time, h wire.Header, p wire.Packet, out *Effects) error {
	response := h.Flags&wire.FlagResponse != 0
	if h.MessageID != 0 || response != (s.rec.Role == Initiator) {
		return ErrState
	}
	switch {
	case response && s.rec.State == InitSent:
		return s.initResponse(now, p, out)
	case !response && s.rec.State == New:
		return s.initRequest(now, p, out)
	case !response && (s.rec.State == KeyPending || s.rec.State == HalfOpen):
		return s.repeatedInit(p, out)
	}
	return ErrState
}

// version is the cookie of a request; nil: it came without.
type version []byte

// maxVersions is how many versions of one request are kept: a client that is
// asked again for a cookie, since the secret has changed, sends the third.
const maxVersions = 4

// maxCookie is the longest cookie that there is. RFC 7296 §2.6
const maxCookie = 64

// repeatedInit takes the request again. If a cookie is all that it has gained,
// changed or lost, it is the same request, whatever the order that the network
// has brought them in: it gets the same answer, and the peer may have signed
// either. RFC 7296 §2.6, §2.15
func (s *SA) repeatedInit(p wire.Packet, out *Effects) error {
	fresh := !bytes.Equal(p.Data, s.hs.request)
	if fresh {
		v, ok := s.versionOf(p.Data)
		if !ok {
			return ErrChanged
		}
		fresh = s.noteVersion(v)
	}
	switch {
	case s.rec.State == HalfOpen:
		out.add(reply(p, s.hs.response))
	case !fresh:
		return ErrBusy
	}
	return nil
}

// versionOf reports whether data is the request with another cookie, or without
// one: such that the cookie alone brings every byte of it back.
func (s *SA) versionOf(data []byte) (version, bool) {
	first, err := wire.ScanFirst(data)
	if err != nil || len(first.Cookie) > maxCookie {
		return nil, false
	}
	v := version(bytes.Clone(first.Cookie))
	return v, bytes.Equal(data, s.inVersion(v))
}

// noteVersion reports whether a version is new, and keeps it while there is room.
func (s *SA) noteVersion(v version) bool {
	same := func(o version) bool { return bytes.Equal(o, v) && (o == nil) == (v == nil) }
	if slices.ContainsFunc(s.hs.versions, same) {
		return false
	}
	if len(s.hs.versions) < maxVersions-1 {
		s.hs.versions = append(s.hs.versions, v)
	}
	return true
}

// inVersion is the request, which has been parsed, in one of its versions.
func (s *SA) inVersion(v version) []byte {
	first, _ := wire.ScanFirst(s.hs.request)
	if v == nil {
		return first.Normal(nil)
	}
	return first.WithCookie(nil, v)
}

// initPayloads are those that either direction must have.
func initPayloads(m *wire.Message) (sa *wire.SA, ke *wire.KE, nonce *wire.Nonce, err error) {
	sa, okSA := wire.Find[*wire.SA](m.Payloads)
	ke, okKE := wire.Find[*wire.KE](m.Payloads)
	nonce, okN := wire.Find[*wire.Nonce](m.Payloads)
	if !okSA || !okKE || !okN {
		return nil, nil, nil, &wire.SyntaxError{Msg: "IKE_SA_INIT lacks SA, KE or Nonce"}
	}
	return sa, ke, nonce, nil
}

// initRequest is the responder's first step. It keeps nothing of a request
// that it refuses.
func (s *SA) initRequest(now mono.Time, p wire.Packet, out *Effects) error {
	m, err := wire.Parse(p.Data)
	if err != nil {
		return err
	}
	if m.SPIi == 0 { // RFC 7296 §3.1
		return ErrRole
	}
	offered, ke, nonce, err := initPayloads(m)
	if err != nil {
		return err
	}
	ours := s.env.Policy.Proposals(p.Remote.Addr())
	chosen, err := suite.Choose(ours, offered.Proposals, wire.ProtoIKE, ke.Group)
	switch {
	case err != nil:
		s.refuseInit(m, p, &wire.Notify{Kind: wire.NoProposalChosen}, out)
		refusedInit(p, offered.Proposals, ours, out)
		return ErrOffer
	case chosen.KE != ke.Group: // RFC 7296 §1.2
		s.refuseInit(m, p, &wire.Notify{Kind: wire.InvalidKEPayload, Data: binary.BigEndian.AppendUint16(nil, chosen.KE)}, out)
		return ErrOffer
	case len(nonce.Data) < chosen.PRFLen()/2: // RFC 7296 §2.10
		return &wire.SyntaxError{Payload: wire.TypeNonce, Msg: "nonce is shorter than half the PRF's key"}
	}
	s.rec.PeerSPI = m.SPIi
	s.rec.Suite = chosen.Choice
	s.rec.Local, s.rec.Remote = endpointOf(p.Local), endpointOf(p.Remote)
	s.rec.Created = now
	s.hs.ni, s.hs.request, s.hs.from = nonce.Data, slices.Clone(p.Data), p
	s.hs.from.Data = nil
	_, s.hs.natAware = wire.FindNotify(m.Payloads, wire.NATDetectionSource)
	s.hs.answer = &wire.Message{Header: wire.Header{SPIi: m.SPIi, SPIr: s.rec.SPI, Exchange: wire.IKESAInit,
		Flags: wire.FlagResponse}, Payloads: []wire.Payload{
		&wire.SA{Proposals: []wire.Proposal{chosen.Wire(chosen.Number, wire.ProtoIKE, nil)}}}}
	s.detectNAT(m.Payloads, Path{p.Local, p.Remote}, m.SPIi, 0)
	s.setState(KeyPending)
	s.mustFinish = now.Add(s.env.HalfOpen)
	out.add(Agree{Group: chosen.KE, Peer: ke.Data})
	return nil
}

// refuseInit answers without keeping anything; our SPI is 0 in it. RFC 7296 §2.6
func (s *SA) refuseInit(m *wire.Message, p wire.Packet, n *wire.Notify, out *Effects) {
	a := wire.Message{Header: wire.Header{SPIi: m.SPIi, Exchange: wire.IKESAInit, Flags: wire.FlagResponse},
		Payloads: []wire.Payload{n}}
	out.add(reply(p, a.Append(nil)))
}

// answerInit completes the responder's IKE_SA_INIT with the key that was made.
// It is never larger than the request: its source has proved nothing yet.
func (s *SA) answerInit(now mono.Time, c Agreed, out *Effects) {
	if c.Err != nil {
		s.refused(&Refusal{Rule: policy.BadKE}, Event{Err: c.Err}, out)
		s.close(Refused, Event{Err: c.Err, Notify: wire.InvalidSyntax}, out)
		return
	}
	s.hs.nr = s.random(max(min(nonceLen, len(s.hs.ni)), s.rec.Suite.PRFLen()/2))
	a := s.hs.answer
	a.Payloads = append(a.Payloads, &wire.KE{Group: s.rec.Suite.KE, Data: c.Private.Public()}, &wire.Nonce{Data: s.hs.nr})
	if s.hs.natAware {
		a.Payloads = append(a.Payloads, s.natNotifies(s.Path())...)
	}
	s.hs.response, s.hs.answer = a.Append(nil), nil
	s.derive(c.Secret)
	s.rec.NextExpected = 1
	s.setState(HalfOpen)
	out.add(reply(s.hs.from, s.hs.response))
}

func (s *SA) derive(secret []byte) {
	i, r := s.spis()
	s.rec.Suite.DeriveIKE(&s.rec.Keys, secret, s.hs.ni, s.hs.nr, i, r)
}

// initResponse is the initiator's second step. Nothing in the answer is
// authenticated yet, so what it complains of is remembered and the waiting
// goes on, but for a cookie and another group. RFC 7296 §2.21.1
func (s *SA) initResponse(now mono.Time, p wire.Packet, out *Effects) error {
	m, err := wire.Parse(p.Data)
	if err != nil {
		return err
	}
	if n, ok := wire.FindNotify(m.Payloads, wire.Cookie); ok {
		return s.followCookie(now, n, out)
	}
	if n, ok := wire.FindNotify(m.Payloads, wire.InvalidKEPayload); ok {
		return s.followGroup(n, out)
	}
	for _, pl := range m.Payloads {
		if n, ok := pl.(*wire.Notify); ok && n.Kind < 16384 {
			if s.hs.trouble != n.Kind && s.mayTell() {
				s.refusedByPeer(n.Kind, out)
			}
			s.hs.trouble = n.Kind
			return ErrOffer
		}
	}
	answer, ke, nonce, err := initPayloads(m)
	if err != nil {
		return err
	}
	chosen, err := suite.Accept(s.rec.Conn.Proposals, answer.Proposals, wire.ProtoIKE)
	switch {
	case err != nil:
		return err
	case m.SPIr == 0 || chosen.KE != s.hs.group || ke.Group != s.hs.group || len(nonce.Data) < chosen.PRFLen()/2:
		return ErrOffer
	}
	s.rec.PeerSPI, s.rec.Suite = m.SPIr, chosen.Choice
	s.hs.nr, s.hs.response = nonce.Data, slices.Clone(p.Data)
	s.detectNAT(m.Payloads, Path{p.Local, p.Remote}, m.SPIi, m.SPIr)
	s.setState(KeyPending)
	out.add(Agree{Group: s.hs.group, Private: s.hs.private, Peer: ke.Data})
	s.hs.private = nil // until Agreed gives it back
	return nil
}

// followCookie sends the request again with the cookie. RFC 7296 §2.6
func (s *SA) followCookie(now mono.Time, n *wire.Notify, out *Effects) error {
	if s.hs.cookies >= maxCookies || len(n.Data) == 0 || len(n.Data) > maxCookie || bytes.Equal(n.Data, s.hs.cookie) {
		return ErrOffer
	}
	s.hs.cookies++
	s.hs.cookie = n.Data
	s.sendInit(now, out)
	return nil
}

// followGroup begins again with the group that the responder wants, if it is
// one of ours that has not been tried. RFC 7296 §1.2
func (s *SA) followGroup(n *wire.Notify, out *Effects) error {
	if len(n.Data) != 2 {
		return ErrOffer
	}
	group := binary.BigEndian.Uint16(n.Data)
	if group == s.hs.group || slices.Contains(s.hs.tried, group) || !slices.Contains(s.rec.Conn.Groups(), group) {
		return ErrOffer
	}
	s.hs.tried = append(s.hs.tried, s.hs.group)
	s.hs.private.Wipe()
	s.hs.group, s.hs.private = group, nil
	s.setState(KeyPending)
	s.req = request{}
	out.add(Agree{Group: group})
	return nil
}

// handshakeFailure is why a handshake that nobody answered has failed.
func (s *SA) handshakeFailure() Reason {
	if s.hs.trouble != 0 {
		return Refused
	}
	return HandshakeTimeout
}
