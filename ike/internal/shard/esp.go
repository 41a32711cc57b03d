package shard

import (
	"encoding/binary"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// espHeader is the SPI and the sequence number. RFC 4303 §2
const espHeader = 8

// onESP hands an ESP packet to the data plane. If it was authentic and came
// from elsewhere than the SA's packets so far, the SA is told.
func (s *Shard) onESP(now mono.Time, p wire.Packet) {
	defer s.contain(now)
	if len(p.Data) < espHeader {
		s.count[cMalformed]++
		return
	}
	e := s.table.byChild[binary.BigEndian.Uint32(p.Data)]
	if e == nil {
		s.count[cUnknownESP]++
		return
	}
	s.begin(e)
	if !s.plane.Receive(int64(now), p) {
		s.count[cRefusedESP]++
		return
	}
	path := e.sa.Path()
	if p.Remote == path.Remote && p.Local == path.Local && !e.sa.Moving() {
		return
	}
	s.do(now, e, sa.Rebound{Path: sa.Path{Local: p.Local, Remote: p.Remote}})
}

// onInner hands a packet of ours to the data plane.
func (s *Shard) onInner(now mono.Time, inner []byte) {
	defer s.contain(now)
	s.plane.Transmit(int64(now), inner)
}
