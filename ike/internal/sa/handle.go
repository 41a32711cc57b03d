package sa

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"math"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// Why Handle discarded a packet. A parse error is a *wire.SyntaxError, a bad
// ICV suite.ErrAuthentication.
var (
	ErrState   = errors.New("message does not fit the SA's state")
	ErrRole    = errors.New("initiator flag or SPI is not that of this SA's peer")
	ErrWindow  = errors.New("message ID is outside the window")
	ErrChanged = errors.New("retransmission differs from the request that was answered")
	ErrBusy    = errors.New("the same request is being worked on")
	ErrLarger  = errors.New("cached response is larger than a request from an unknown endpoint")
	ErrOffer   = errors.New("IKE_SA_INIT is refused")
)

// responseLife is how long the response to the last request is kept for its
// retransmissions.
const responseLife = 5 * time.Minute

// Handle takes one IKE message. An error means that it was discarded and has
// changed nothing; the effects may hold an answer all the same.
func (s *SA) Handle(now mono.Time, p wire.Packet, out *Effects) error {
	h, err := wire.ParseHeader(p.Data)
	if err != nil {
		return err
	}
	if s.rec.State == Gone {
		return ErrState
	}
	s.settle()
	if err := s.fromPeer(h); err != nil {
		return err
	}
	if h.Exchange == wire.IKESAInit {
		return s.handleInit(now, h, p, out)
	}
	if s.rec.State < HalfOpen {
		return ErrState
	}
	if h.Flags&wire.FlagResponse != 0 {
		return s.handleResponse(now, h, p, out)
	}
	return s.handleRequest(now, h, p, out)
}

// fromPeer checks that the header names this SA and that the sender is its
// other end.
func (s *SA) fromPeer(h wire.Header) error {
	fromInitiator := h.Flags&wire.FlagInitiator != 0
	if fromInitiator != (s.rec.Role == Responder) {
		return ErrRole
	}
	spi, peer := h.SPIi, h.SPIr
	if fromInitiator {
		spi, peer = h.SPIr, h.SPIi
	}
	fresh := h.Exchange == wire.IKESAInit // the peer's, or on a first request our SPI is not known yet
	if spi != s.rec.SPI && !(fresh && fromInitiator && spi == 0) {
		return ErrRole
	}
	if peer != s.rec.PeerSPI && !(fresh && s.rec.PeerSPI == 0) {
		return ErrRole
	}
	return nil
}

// open parses and decrypts a message of the peer. Nothing has changed yet when
// it returns, and nothing may change if it fails.
func (s *SA) open(data []byte) ([]wire.Payload, error) {
	m, err := wire.Parse(data)
	if err != nil {
		return nil, err
	}
	encr, integ := &s.rec.Keys.Ei, &s.rec.Keys.Ai
	if s.rec.Role == Initiator {
		encr, integ = &s.rec.Keys.Er, &s.rec.Keys.Ar
	}
	inner, err := s.rec.Suite.Open(data, m, encr, integ)
	if err != nil && !errors.Is(err, suite.ErrAuthentication) {
		err = &innerError{err}
	}
	return inner, err
}

// innerError is what was wrong inside a message that opened: its sender is the
// peer all the same.
type innerError struct{ error }

func (e *innerError) Unwrap() error { return e.error }

func authentic(err error) bool {
	var inner *innerError
	return err == nil || errors.As(err, &inner)
}

// seal makes a message of ours. Its IV counter is never used again, nor by a
// restart: see [Record.IVMark].
func (s *SA) seal(ex wire.ExchangeType, flags wire.Flags, id uint32, ps ...wire.Payload) []byte {
	h := wire.Header{Exchange: ex, Flags: flags, MessageID: id}
	h.SPIi, h.SPIr = s.spis()
	encr, integ := &s.rec.Keys.Er, &s.rec.Keys.Ar
	if s.rec.Role == Initiator {
		h.Flags |= wire.FlagInitiator
		encr, integ = &s.rec.Keys.Ei, &s.rec.Keys.Ai
	}
	iv := s.rec.IV
	if s.rec.IV++; s.rec.IV > s.rec.IVMark {
		s.rec.IVMark += ivStep
	}
	return s.rec.Suite.Seal(nil, h, ps, encr, integ, iv)
}

func (s *SA) handleRequest(now mono.Time, h wire.Header, p wire.Packet, out *Effects) error {
	switch {
	case s.rec.State == InitSent, s.rec.State == AuthSent:
		return ErrState
	case h.MessageID == s.rec.NextExpected-1:
		return s.repeat(p, out)
	case h.MessageID != s.nextExpected():
		return ErrWindow
	case s.rec.State == AuthPending, s.rec.State == HalfOpen && s.hs.denial != nil:
		return ErrBusy
	case s.rec.State == HalfOpen && h.Exchange != wire.IKEAuth:
		return ErrState
	}
	inner, err := s.open(p.Data)
	if !authentic(err) {
		return err
	}
	// From here on the request is the peer's, fresh and authenticated.
	s.accept(now, p, out)
	switch {
	case err != nil:
		s.refuseSyntax(now, h, p, err, out)
	case s.rec.State == HalfOpen:
		s.authRequest(now, p, inner, out)
	case h.Exchange == wire.Informational:
		s.informational(now, p, inner, out)
	case h.Exchange == wire.CreateChildSA:
		s.respond(now, h.Exchange, p, out, &wire.Notify{Kind: wire.NoAdditionalSAs})
	default:
		s.respond(now, h.Exchange, p, out, &wire.Notify{Kind: wire.InvalidSyntax})
	}
	return nil
}

// nextExpected is the message ID of the peer's next request: the one place to
// read it.
func (s *SA) nextExpected() uint32 { return s.rec.NextExpected }

// accept takes note of a fresh, authenticated request.
func (s *SA) accept(now mono.Time, p wire.Packet, out *Effects) {
	s.rec.NextExpected++
	s.rec.RequestHash = hash(p.Data)
	s.rec.LastIKE = now
	s.rec.Response, s.responseEnd = nil, 0
	s.follow(now, Path{p.Local, p.Remote}, out)
}

// repeat answers a retransmitted request with the bytes of its first answer,
// and refreshes nothing. RFC 7296 §2.1
func (s *SA) repeat(p wire.Packet, out *Effects) error {
	if h := hash(p.Data); subtle.ConstantTimeCompare(h[:], s.rec.RequestHash[:]) == 0 {
		return ErrChanged
	}
	if s.rec.Response == nil {
		return ErrBusy
	}
	if p.Remote != s.rec.Remote.AddrPort() && len(s.rec.Response) > len(p.Data) {
		return ErrLarger
	}
	s.persist(out)
	out.add(reply(p, s.rec.Response))
	return nil
}

// persist adds a Persist step where the last one failed, or something has
// changed since.
func (s *SA) persist(out *Effects) {
	if s.unpersisted {
		s.unpersisted = false
		out.add(Persist{&s.rec})
	}
}

// respond answers the request at hand and keeps the bytes for its
// retransmissions.
func (s *SA) respond(now mono.Time, ex wire.ExchangeType, p wire.Packet, out *Effects, ps ...wire.Payload) {
	s.keepResponse(now, s.seal(ex, wire.FlagResponse, s.rec.NextExpected-1, ps...))
	s.unpersisted = false
	out.add(Persist{&s.rec}, reply(p, s.rec.Response))
}

func (s *SA) keepResponse(now mono.Time, msg []byte) {
	s.rec.Response = msg
	s.rec.LastSent = now
	s.responseEnd = now.Add(responseLife)
}

// handleResponse takes the answer to our outstanding request.
func (s *SA) handleResponse(now mono.Time, h wire.Header, p wire.Packet, out *Effects) error {
	if s.req.kind == noRequest || s.req.kind == initRequest || h.MessageID != s.rec.NextRequest-1 {
		return ErrWindow
	}
	if h.Exchange != s.req.exchange {
		return ErrState
	}
	if s.rec.State == AuthPending {
		return ErrBusy
	}
	inner, err := s.open(p.Data)
	if !authentic(err) {
		return err
	}
	// From here on the answer is the peer's, and the exchange is done.
	kind := s.req.kind
	s.req = request{}
	s.rec.Request = nil
	s.rec.LastIKE, s.rec.LastRoundTrip = now, now
	s.follow(now, Path{p.Local, p.Remote}, out)
	switch {
	case kind == deleteRequest:
		s.close(DeletedByUs, Event{}, out)
	case err != nil:
		s.close(ProtocolError, Event{Err: err}, out)
	case kind == authRequest:
		s.authResponse(now, inner, out)
	default:
		out.add(report(Event{Kind: ProbeAnswered, Path: s.Path()}))
		s.deleteIfWanted(now, out)
	}
	return nil
}

func hash(b []byte) (h [16]byte) {
	sum := sha256.Sum256(b)
	copy(h[:], sum[:])
	return h
}

// exhaustedIDs tells that the next request would have the last message ID:
// they never wrap. RFC 7296 §2.2
func (s *SA) exhaustedIDs() bool { return s.rec.NextRequest == math.MaxUint32 }
