package maps

import (
	"fmt"
	"net/netip"

	"github.com/ikepulse/ikepulse/bpf"
)

// Tuple is how the packets of a peer reach us: our address and port, and the
// peer's as we see it, behind its NAT's. Ports are 0 for ESP without UDP.
type Tuple struct {
	Local, Peer netip.AddrPort
}

// String shows the packets' direction: from the peer to us.
func (t Tuple) String() string { return fmt.Sprintf("%s → %s", t.Peer, t.Local) }

func (t Tuple) key() bpf.PeerKey {
	return bpf.PeerKey{
		Local: t.Local.Addr().As16(), Peer: t.Peer.Addr().As16(),
		LocalPort: t.Local.Port(), PeerPort: t.Peer.Port(),
	}
}

func (t Tuple) valid() error {
	if !t.Local.Addr().IsValid() || !t.Peer.Addr().IsValid() {
		return fmt.Errorf("a tuple without addresses: %s", t)
	}
	return nil
}

func (t Tuple) hash() uint32 {
	key := t.key()
	return key.Hash()
}

func tupleOf(key bpf.PeerKey) Tuple {
	return Tuple{
		Local: netip.AddrPortFrom(netip.AddrFrom16(key.Local).Unmap(), key.LocalPort),
		Peer:  netip.AddrPortFrom(netip.AddrFrom16(key.Peer).Unmap(), key.PeerPort),
	}
}
