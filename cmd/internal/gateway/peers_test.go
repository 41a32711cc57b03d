package gateway

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/ike/esp"
)

// What stands between gateway and peers in a world, and behind the peers.

type sender func(ike.Packet) error

func (s sender) Send(p ike.Packet) error { return s(p) }

func (w *world) toPeers(p ike.Packet) error {
	p.Local, p.Remote = netip.AddrPortFrom(p.Remote.Addr(), p.Remote.Port()-natShift), p.Local
	w.peers.Deliver([]ike.Packet{p}, nil)
	return nil
}

func (w *world) toGateway(p ike.Packet) error {
	p.Local, p.Remote = p.Remote, netip.AddrPortFrom(p.Local.Addr(), p.Local.Port()+natShift)
	w.gateway.Deliver([]ike.Packet{p}, nil)
	return nil
}

func (w *world) peersEdges() ike.Edges {
	return ike.Edges{Tracker: blind{}, Sender: sender(w.toGateway), Clock: bootTime,
		DataPlane: func(int) ike.DataPlane { return branch{w} },
		AllocSPI: func(int) func(int64) (uint32, bool) {
			return func(int64) (uint32, bool) { return 1<<24 | w.counted.Add(1), true }
		},
		FreeSPI:  func(int) func(uint32, int64) { return func(uint32, int64) {} },
		ESPShard: func(uint32) int { return 0 },
	}
}

// blind keeps track of nothing.
type blind struct{}

func (blind) Track(uint32, netip.AddrPort, netip.AddrPort, bool) error { return nil }
func (blind) Untrack(uint32, netip.AddrPort, netip.AddrPort) error     { return nil }
func (blind) Evidence(uint32) (seen, auth int64)                       { return 0, 0 }
func (blind) Move(uint32, netip.AddrPort, netip.AddrPort, netip.AddrPort, netip.AddrPort, bool) error {
	return errors.New("nobody moves here")
}

// branch is the peers' data plane: it seals what the test sends.
type branch struct{ w *world }

func (b branch) InstallOutbound(c *ike.ChildSA) error {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	t := b.w.byAddr[c.Path.Local.Addr()]
	t.spi = c.OutSPI
	t.out = esp.NewOutbound(c.OutSPI, c.Suite, c.OutEncr, c.OutInteg, c.Local, c.Remote, 1)
	t.inner = datagram(c.VirtualIPs[0], insideAddr)
	return nil
}

func (b branch) InstallInbound(*ike.ChildSA) error           { return nil }
func (b branch) MoveOutbound(uint32, uint32, ike.Path) error { return nil }
func (b branch) RemoveOutbound(uint32, uint32) error         { return nil }
func (b branch) RemoveInbound(uint32, uint32) error          { return nil }
func (b branch) LastSent(uint32) int64                       { return 0 }
func (b branch) Receive(int64, ike.Packet) bool              { return false }
func (b branch) Transmit(int64, []byte)                      {}

// datagram is an IPv4 packet with an empty UDP datagram.
func datagram(src, dst netip.Addr) []byte {
	b := make([]byte, 28)
	b[0], b[8], b[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	return b
}

// frame is the Ethernet frame that a tunnel's peer sends with a UDP payload.
func (t *tunnel) frame(payload ...byte) []byte {
	b := make([]byte, 14, 64)
	b[5], b[11] = 1, 2 // unicast addresses
	b[12] = 0x08
	b = append(b, 0x45, 0, 0, byte(28+len(payload)), 0, 0, 0, 0, 64, 17, 0, 0)
	b = append(append(b, t.tuple.Peer.Addr().AsSlice()...), t.tuple.Local.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, t.tuple.Peer.Port())
	b = binary.BigEndian.AppendUint16(b, t.tuple.Local.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// forgery is an ESP packet with the tunnel's SPI, and nothing that any key has
// sealed.
func (t *tunnel) forgery() []byte {
	return append(binary.BigEndian.AppendUint32(nil, t.spi), make([]byte, 40)...)
}
