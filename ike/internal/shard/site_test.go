package shard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// site is a group with edges whose every move is kept.
type site struct {
	w      *world
	addr   netip.Addr
	conf   Config
	group  *Group
	cancel context.CancelFunc
	ended  chan struct{}
	gone   atomic.Bool

	mu      sync.Mutex
	tracked map[uint32]track
	stamps  map[uint32]evidence
	records map[uint64]int
	stored  []byte         // the record that was stored last
	room    map[uint64]int // what the records of an SA may need
	spis    map[uint32]bool
	calls   map[string]int
	fail    map[string]int // how often a call is to fail
	panics  map[string]int // how often a call is to panic
	events  []Event
	surges  []Surge
	inner   [][]byte
	planes  []*plane
	sent    int // bytes
	sentIKE [][]byte

	onReceive func(n int) // with the nth ESP packet
}

type track struct {
	local, peer netip.AddrPort
	natted      bool
}

type evidence struct{ seen, auth int64 }

var errMade = errors.New("made to fail")

// did counts a call, and makes it fail if that is wanted.
func (s *site) did(call string) error {
	s.calls[call]++
	if s.panics[call] > 0 {
		s.panics[call]--
		s.mu.Unlock()
		defer s.mu.Lock()
		panic("made to panic in " + call)
	}
	if s.fail[call] > 0 {
		s.fail[call]--
		return errMade
	}
	return nil
}

func (s *site) Track(spi uint32, local, peer netip.AddrPort, natted bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.did("Track"); err != nil {
		return err
	}
	if _, ok := s.tracked[spi]; ok || !s.spis[spi] {
		s.w.t.Errorf("SPI %08x is tracked twice, or was not allotted", spi)
	}
	s.tracked[spi] = track{local, peer, natted}
	return nil
}

func (s *site) Untrack(spi uint32, local, peer netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.did("Untrack"); err != nil {
		return err
	}
	if at := s.tracked[spi]; at.local != local || at.peer != peer {
		s.w.t.Errorf("SPI %08x is untracked at %v %v, but is at %v", spi, local, peer, at)
	}
	delete(s.tracked, spi)
	delete(s.stamps, spi)
	return nil
}

func (s *site) Move(spi uint32, oldLocal, oldPeer, newLocal, newPeer netip.AddrPort, natted bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.did("Move"); err != nil {
		return err
	}
	if at := s.tracked[spi]; at.local != oldLocal || at.peer != oldPeer {
		s.w.t.Errorf("SPI %08x is moved from %v %v, but is at %v", spi, oldLocal, oldPeer, at)
	}
	s.tracked[spi] = track{newLocal, newPeer, natted}
	return nil
}

func (s *site) Evidence(spi uint32) (seen, auth int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls["Evidence"]++
	return s.stamps[spi].seen, s.stamps[spi].auth
}

func (s *site) Send(p wire.Packet) error {
	s.mu.Lock()
	err := s.did("Send")
	if err == nil {
		s.sent += len(p.Data)
		if !s.w.quiet {
			s.sentIKE = append(s.sentIKE, bytes.Clone(p.Data))
		}
	}
	s.mu.Unlock()
	if err == nil && !s.gone.Load() {
		s.w.send(p)
	}
	return err
}

func (s *site) Put(spi uint64, record []byte, room int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.did("Put"); err != nil {
		return err
	}
	if s.records[spi]++; s.records[spi] == 1 {
		s.room[spi] = len(record) + room
	}
	if len(record) > s.room[spi] {
		s.w.t.Errorf("a record of %d bytes, and its SA was to need %d", len(record), s.room[spi])
	}
	s.stored = bytes.Clone(record)
	var r sa.Record
	if err := r.Decode(record, s.conf.Policy); err != nil {
		s.w.t.Errorf("a record that cannot be read: %v", err)
	}
	return nil
}

func (s *site) Delete(spi uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.did("Delete"); err != nil {
		return err
	}
	delete(s.records, spi)
	return nil
}

const slotBits = 22

func (s *site) alloc(shard int) func(int64) (uint32, bool) {
	slot := uint32(shard)
	return func(int64) (uint32, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.did("AllocSPI") != nil {
			return 0, false
		}
		spi := 7<<slotBits | slot
		slot += uint32(s.conf.Shards)
		s.spis[spi] = true
		return spi, true
	}
}

func (s *site) free(int) func(uint32, int64) {
	return func(spi uint32, _ int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, tracked := s.tracked[spi]; tracked || !s.spis[spi] {
			s.w.t.Errorf("SPI %08x is freed while tracked, or twice", spi)
		}
		delete(s.spis, spi)
	}
}

func (s *site) espShard(spi uint32) int { return int(spi&(1<<slotBits-1)) % s.conf.Shards }

// plane is a data plane whose ESP is not encrypted: SPI, a word, the packet.
// The first inbound SA of a plane carries what is to go out.
type plane struct {
	site    *site
	mu      sync.Mutex
	in, out map[uint32]*sa.ChildSA
	sent    map[uint32]int64
	refused bool // a removal of an outbound SA was made to fail
}

const authenticWord = 0xa17e4717

func espPacket(spi uint32, inner []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, spi)
	b = binary.BigEndian.AppendUint32(b, authenticWord)
	return append(b, inner...)
}

func (p *plane) did(call string) error {
	p.site.mu.Lock()
	defer p.site.mu.Unlock()
	return p.site.did(call)
}

func (p *plane) InstallInbound(c *sa.ChildSA) error {
	if err := p.did("InstallInbound"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in[c.InSPI] = c
	return nil
}

func (p *plane) InstallOutbound(c *sa.ChildSA) error {
	if err := p.did("InstallOutbound"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out[c.InSPI] = c
	return nil
}

func (p *plane) MoveOutbound(inSPI, outSPI uint32, path sa.Path) error {
	if err := p.did("MoveOutbound"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := *p.out[inSPI]
	c.Path = path
	p.out[inSPI] = &c
	return nil
}

func (p *plane) RemoveOutbound(inSPI, outSPI uint32) error {
	if err := p.did("RemoveOutbound"); err != nil {
		p.refused = true
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.out[inSPI]; c == nil || c.OutSPI != outSPI {
		p.site.w.t.Errorf("outbound SA %08x/%08x is removed, but is not there", inSPI, outSPI)
	}
	delete(p.out, inSPI)
	return nil
}

func (p *plane) RemoveInbound(inSPI, outSPI uint32) error {
	if err := p.did("RemoveInbound"); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.in[inSPI] == nil {
		p.site.w.t.Errorf("inbound SA %08x is removed, but is not there", inSPI)
	}
	if p.out[inSPI] != nil && !p.refused {
		p.site.w.t.Errorf("inbound SA %08x is removed before its outbound", inSPI)
	}
	delete(p.in, inSPI)
	return nil
}

func (p *plane) LastSent(inSPI uint32) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent[inSPI]
}

func (p *plane) Receive(now int64, pkt wire.Packet) bool {
	if p.did("Receive") != nil {
		return false
	}
	spi := binary.BigEndian.Uint32(pkt.Data)
	p.mu.Lock()
	known := p.in[spi] != nil
	p.mu.Unlock()
	s := p.site
	s.mu.Lock()
	defer s.mu.Unlock()
	if !known || binary.BigEndian.Uint32(pkt.Data[4:]) != authenticWord {
		return false
	}
	s.stamps[spi] = evidence{now, now}
	s.inner = append(s.inner, bytes.Clone(pkt.Data[8:]))
	if s.onReceive != nil {
		s.onReceive(len(s.inner))
	}
	return true
}

// Transmit sends through the SA whose inbound SPI the packet begins with.
func (p *plane) Transmit(now int64, inner []byte) {
	if p.did("Transmit") != nil {
		return
	}
	spi := binary.BigEndian.Uint32(inner)
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.out[spi]
	if c == nil || p.site.gone.Load() {
		return
	}
	p.sent[spi] = now
	p.site.w.send(wire.Packet{Local: c.Path.Local, Remote: c.Path.Remote, NATT: true, Data: espPacket(c.OutSPI, inner)})
}

// transmit has the tunnel with that inbound SPI carry a text.
func (s *site) transmit(inSPI uint32, text string) {
	s.group.DeliverInner(s.espShard(inSPI), append(binary.BigEndian.AppendUint32(nil, inSPI), text...))
}

func (s *site) receive(p wire.Packet) {
	if p.NATT && len(p.Data) == 1 {
		s.mu.Lock()
		s.calls["Keepalive"]++
		s.mu.Unlock()
		return
	}
	if len(p.Data) >= 8 && binary.BigEndian.Uint32(p.Data[4:]) == authenticWord {
		s.group.DeliverESP([]wire.Packet{p})
		return
	}
	s.group.DeliverIKE([]wire.Packet{p})
}
