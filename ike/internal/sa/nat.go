package sa

import (
	"crypto/sha1" // RFC 7296 §2.23 prescribes it; nothing secret depends on it
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// natHash is the content of a NAT_DETECTION notify. RFC 7296 §2.23
func natHash(spii, spir uint64, ap netip.AddrPort) []byte {
	b := binary.BigEndian.AppendUint64(nil, spii)
	b = binary.BigEndian.AppendUint64(b, spir)
	b = append(b, ap.Addr().Unmap().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, ap.Port())
	sum := sha1.Sum(b)
	return sum[:]
}

// natNotifies are the two notifies of an IKE_SA_INIT message. Where the data
// plane has UDP encapsulation only, the source is made up, so that the peer
// sees a NAT and encapsulates too.
func (s *SA) natNotifies(path Path) []wire.Payload {
	i, r := s.spis()
	source := natHash(i, r, path.Local)
	if s.env.ForceEncap {
		source = s.random(len(source))
	}
	return []wire.Payload{
		&wire.Notify{Kind: wire.NATDetectionSource, Data: source},
		&wire.Notify{Kind: wire.NATDetectionDest, Data: natHash(i, r, path.Remote)},
	}
}

// detectNAT reads the peer's notifies, which came over path. A message without
// them, from a peer that knows no NAT traversal, shows none. RFC 7296 §2.23
func (s *SA) detectNAT(ps []wire.Payload, path Path, spii, spir uint64) {
	sources, match := 0, false
	for _, p := range ps {
		n, ok := p.(*wire.Notify)
		if !ok {
			continue
		}
		switch n.Kind {
		case wire.NATDetectionSource: // one for each address that the peer may have
			sources++
			match = match || equal(n.Data, natHash(spii, spir, path.Remote))
		case wire.NATDetectionDest:
			s.rec.LocalNATted = !equal(n.Data, natHash(spii, spir, path.Local))
		}
	}
	s.rec.PeerNATted = sources > 0 && !match
}

func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// encapsulated tells whether to move to the NAT-T port.
func (s *SA) encapsulated() bool {
	return s.rec.LocalNATted || s.rec.PeerNATted || s.env.ForceEncap
}

// carriesESP tells whether the peer's ESP can reach our data plane: one that
// has stayed away from the NAT-T port, although a NAT was shown to it, knows no
// encapsulation.
func (s *SA) carriesESP() bool {
	return !s.env.ForceEncap || s.rec.Local.port == s.env.NATTPort
}

// float moves the SA's path to the NAT-T ports. RFC 7296 §2.23
func (s *SA) float() { s.rec.Local.port, s.rec.Remote.port = s.env.NATTPort, s.env.NATTPort }

// follow takes the endpoint of a fresh, authenticated message as the peer's
// new one, if it is the peer and not we who is behind a NAT. RFC 7296 §2.23
func (s *SA) follow(now mono.Time, path Path, out *Effects) {
	if s.rec.State == HalfOpen { // the responder learns the path from IKE_AUTH
		s.rec.Local, s.rec.Remote = endpointOf(path.Local), endpointOf(path.Remote)
		return
	}
	if s.rec.State < Up || path.Local != s.Path().Local || s.rec.LocalNATted || !s.rec.PeerNATted {
		return
	}
	at := endpointOf(path.Remote)
	if s.moves == nil {
		if at == s.rec.Remote {
			return
		}
		s.moves = &moves{}
	}
	m := s.moves
	m.to, m.at = at, 0
	switch next := m.last.Add(followPause); {
	case at == s.rec.Remote:
	case m.last != 0 && now < next:
		m.at = next
	default:
		s.move(now, out)
	}
}

// followPause is how often, at most, an SA follows a peer whose endpoint moves
// about, or seems to: somebody on the path can send his packets from two
// addresses. In the end the last one wins.
const followPause = time.Second

// moves are those of a peer.
type moves struct {
	to   endpoint  // where his last packet came from
	at   mono.Time // when to follow him there; 0: he is there
	last mono.Time // when he was followed
}

// due is when the peer is to be followed; zero means never.
func (m *moves) due() mono.Time {
	if m == nil {
		return 0
	}
	return m.at
}

// Moving tells that the peer is about to be followed to another endpoint.
func (s *SA) Moving() bool { return s.moves.due() != 0 }

// move makes the endpoint of the peer's last packet his own.
func (s *SA) move(now mono.Time, out *Effects) {
	old := s.Path()
	s.rec.Remote, s.moves.last, s.moves.at = s.moves.to, now, 0
	path := s.Path()
	if c := &s.rec.Child; c.InSPI != 0 {
		out.add(Retrack{SPI: c.InSPI, Old: old, New: path, PeerNATted: s.rec.PeerNATted},
			MoveOutbound{InSPI: c.InSPI, OutSPI: c.OutSPI, Path: path})
	}
	out.add(report(Event{Kind: Moved, Path: path}))
	s.unpersisted = true // what is sent next stores it
	s.resend(now, out)
}

// rebound follows a peer whose authenticated ESP came from another endpoint.
func (s *SA) rebound(now mono.Time, path Path, out *Effects) {
	if s.rec.State == Up || s.rec.State == Deleting {
		s.follow(now, path, out)
	}
}

// keepalive sends a NAT keepalive if nothing else has kept the mapping open.
// Only the side behind the NAT does. RFC 3948 §4
func (s *SA) keepalive(now mono.Time, out *Effects) {
	last := s.rec.LastSent
	if c := s.rec.Child.InSPI; c != 0 {
		last = max(last, s.env.LastSent(c))
	}
	interval := s.rec.Conn.NATKeepalive
	if now.Sub(last) >= interval {
		s.rec.LastSent, last = now, now
		out.add(Keepalive{s.Path()})
	}
	s.keepaliveAt = last.Add(interval)
}

// armKeepalive begins keepalives for an SA that has just come up.
func (s *SA) armKeepalive(now mono.Time) {
	if s.rec.LocalNATted && s.rec.Conn.NATKeepalive > 0 {
		s.keepaliveAt = now.Add(s.rec.Conn.NATKeepalive)
	}
}
