package tun

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/ikepulse/ikepulse/ike/esp"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

const (
	// window is the anti-replay window in packets: as wide as several cores
	// of a peer may shuffle them.
	window = 1024
	// firstSequence is where outbound sequence numbers begin.
	firstSequence = 1
)

// tunnel is one Child SA. What Plane's table reads is not written once it is
// in there; the rest belongs to the shard, keys and their end included: a reader
// of the table may still hold a tunnel whose keys are wiped.
type tunnel struct {
	shard         int
	local, remote []wire.Selector
	routes        []netip.Prefix // the destinations that lead to it

	inSPI, outSPI uint32
	virtual       []netip.Addr
	in            *esp.Inbound
	out           *esp.Outbound // nil: not installed
	path          sa.Path
	source        source // of the last packet that came
	mtu           int
	sent          int64
}

// Shard is the data plane of one shard: only that shard's goroutine calls it,
// except for Counters. Installing and removing takes a few system calls.
type Shard struct {
	plane   *Plane
	index   int
	tunnels map[uint32]*tunnel // by inbound SPI
	buffer  []byte
	syn     []byte // a clamped copy
	found   []*tunnel
	count   counters
}

var (
	errInstalled    = errors.New("the SPI is installed already")
	errNotInstalled = errors.New("the SPI is not installed")
)

// InstallInbound accepts packets of a Child SA, and takes the virtual addresses
// that the peer has given us.
func (s *Shard) InstallInbound(c *sa.ChildSA) error {
	if s.tunnels[c.InSPI] != nil {
		return errInstalled
	}
	routes, err := routesOf(c.Remote)
	if err != nil {
		return err
	}
	mtu := s.plane.device.mtuOf(c.MTU)
	if err := s.plane.device.net.free(c.VirtualIPs, c.Path.Remote.Addr()); err != nil {
		return err
	}
	if err := s.plane.device.net.own(c.VirtualIPs); err != nil {
		return err
	}
	local, remote := slices.Clone(c.Local), slices.Clone(c.Remote)
	s.tunnels[c.InSPI] = &tunnel{shard: s.index, local: local, remote: remote, routes: routes,
		inSPI: c.InSPI, outSPI: c.OutSPI, virtual: slices.Clone(c.VirtualIPs), mtu: mtu,
		path: c.Path,
		in:   esp.NewInbound(c.InSPI, c.Suite, c.InEncr, c.InInteg, remote, local, window)}
	return nil
}

// InstallOutbound sends through a Child SA that is installed inbound, and
// routes its networks there. Of several for the same destination the newest
// carries the packets.
func (s *Shard) InstallOutbound(c *sa.ChildSA) error {
	t := s.tunnels[c.InSPI]
	switch {
	case t == nil:
		return errNotInstalled
	case t.out != nil:
		return errInstalled
	}
	if err := s.plane.device.net.lead(t.inSPI, t.routes, t.mtu, t.virtual, t.local); err != nil {
		return err
	}
	t.out = esp.NewOutbound(c.OutSPI, c.Suite, c.OutEncr, c.OutInteg, t.local, t.remote, firstSequence)
	t.path = c.Path
	s.plane.enter(t)
	return nil
}

// MoveOutbound sends a Child SA's packets along another path.
func (s *Shard) MoveOutbound(inSPI, outSPI uint32, path sa.Path) error {
	t, err := s.sending(inSPI, outSPI)
	if err != nil {
		return err
	}
	t.path, t.source = path, source{}
	return nil
}

// RemoveOutbound ends what InstallOutbound began. What it cannot take back it
// leaves and tells; nothing is sent any more in any case.
func (s *Shard) RemoveOutbound(inSPI, outSPI uint32) error {
	t, err := s.sending(inSPI, outSPI)
	if err != nil {
		return err
	}
	s.plane.leave(t)
	t.out.Wipe()
	t.out = nil
	return s.plane.device.net.unlead(t.inSPI, t.routes)
}

// sending finds a tunnel that is installed outbound.
func (s *Shard) sending(inSPI, outSPI uint32) (*tunnel, error) {
	t := s.tunnels[inSPI]
	if t == nil || t.out == nil || t.outSPI != outSPI {
		return nil, errNotInstalled
	}
	return t, nil
}

// RemoveInbound ends what InstallInbound began, in the way of RemoveOutbound.
func (s *Shard) RemoveInbound(inSPI, outSPI uint32) error {
	t := s.tunnels[inSPI]
	if t == nil || t.outSPI != outSPI {
		return errNotInstalled
	}
	var err error
	if t.out != nil {
		err = s.RemoveOutbound(inSPI, outSPI)
	}
	delete(s.tunnels, inSPI)
	t.in.Wipe()
	return errors.Join(err, s.plane.device.net.disown(t.virtual))
}

// LastSent is when the last packet went out through the Child SA, 0 for never.
func (s *Shard) LastSent(inSPI uint32) int64 {
	if t := s.tunnels[inSPI]; t != nil {
		return t.sent
	}
	return 0
}

// Receive opens an ESP packet, stamps its SPI if it is authentic and no replay,
// and gives what is inside to this host, if the tunnel was agreed for it.
func (s *Shard) Receive(now int64, p wire.Packet) (authentic bool) {
	var t *tunnel
	if len(p.Data) >= 4 {
		t = s.tunnels[binary.BigEndian.Uint32(p.Data)]
	}
	if t == nil {
		s.count.unknown.Add(1)
		return false
	}
	inner, authentic, err := t.in.Open(s.buffer[:0], p.Data, 0)
	if authentic {
		s.plane.stamp(t.inSPI, now)
	}
	if err != nil {
		s.count.refused(err).Add(1)
		return authentic
	}
	s.buffer = inner
	if !t.brings(inner, s.plane.device.net.plan.Load()) {
		s.count.selector.Add(1)
		return true
	}
	clampMSS(inner, t.mtu)
	if err := s.plane.device.write(inner); err != nil {
		s.count.deviceErrors.Add(1)
		return true
	}
	s.count.in.Add(1)
	s.count.inBytes.Add(uint64(len(inner)))
	return true
}

// Transmit seals an inner packet with the first of this shard's tunnels that
// was agreed for it, and sends it. It does not keep the packet.
func (s *Shard) Transmit(now int64, inner []byte) {
	src, dst, ok := addressesOf(inner)
	if !ok {
		s.count.malformed.Add(1)
		return
	}
	s.found = s.plane.find(s.found[:0], src, dst)
	option, syn := findMSS(inner)
	for _, t := range s.found {
		if t.shard != s.index {
			continue
		}
		text := inner
		if syn { // the next tunnel, or the next shard, may have a larger MTU
			s.syn = append(s.syn[:0], inner...)
			text = s.syn
			option.clamp(text, t.mtu)
		}
		packet, err := t.out.Seal(s.buffer[:0], text)
		if errors.Is(err, esp.ErrSelector) {
			continue // agreed for these addresses, but not for the protocol or the ports
		}
		s.emit(now, t, packet, len(inner), err)
		return
	}
	s.passOn(inner)
}

// emit sends what has been sealed.
func (s *Shard) emit(now int64, t *tunnel, packet []byte, size int, err error) {
	if err != nil {
		s.count.refusedOut(err).Add(1)
		return
	}
	s.buffer = packet
	err = s.plane.send(wire.Packet{Local: t.path.Local, Remote: t.path.Remote, NATT: true, Data: packet})
	if err != nil {
		s.count.sendErrors.Add(1)
		return
	}
	t.sent = now
	s.count.out.Add(1)
	s.count.outBytes.Add(uint64(size))
}

// passOn gives a packet that none of this shard's tunnels takes to the next
// shard that has one for these addresses. Each shard stands in that row once
// and passes on to a later one, so the packet comes to an end.
func (s *Shard) passOn(inner []byte) {
	var row []int
	for _, t := range s.found {
		if !slices.Contains(row, t.shard) {
			row = append(row, t.shard)
		}
	}
	deliver := s.plane.deliver.Load()
	if next := slices.Index(row, s.index) + 1; next < len(row) && deliver != nil {
		(*deliver)(row[next], inner)
		return
	}
	s.count.noTunnel.Add(1)
}
