// Package xfrm is the kernel's IPsec states (XFRM) as seen by netlink. So far
// it watches the states of others: what a daemon such as strongSwan installs,
// changes and removes, learned from a dump and then from events, and what the
// kernel counts for one of them.
//
// Key material goes through the netlink messages. It is never looked at: the
// attributes that hold it are stepped over, and the one buffer that messages
// are read into is wiped after each.
package xfrm

import (
	"fmt"
	"net/netip"
	"time"
)

// Key is what a packet finds its state by.
type Key struct {
	Dst   netip.Addr
	SPI   uint32
	Proto uint8 // ESP or AH
}

// The protocols of a state. The kernel has others (IPComp, mobility), which
// are not watched.
const (
	ESP = 50
	AH  = 51
)

// String is how ip xfrm names it.
func (k Key) String() string {
	proto := fmt.Sprintf("proto %d", k.Proto)
	switch k.Proto {
	case ESP:
		proto = "esp"
	case AH:
		proto = "ah"
	}
	return fmt.Sprintf("%s %08x to %s", proto, k.SPI, k.Dst)
}

// Direction is which way a state works, as far as the kernel was told: most
// daemons do not say, and kernels before 6.10 do not ask.
type Direction uint8

const (
	DirectionUnknown Direction = iota
	Inbound
	Outbound
)

// SA is a state without its keys.
type SA struct {
	Key
	Src       netip.Addr
	Direction Direction
	Reqid     uint32
	Mark      Mark
	IfID      uint32

	// Encap is whether ESP goes in UDP, and by which ports; the source port of
	// an inbound state is the peer's, as its NAT shows it.
	Encap            bool
	SrcPort, DstPort uint16

	// ReplayWindow 0 means that the kernel takes replayed packets for good
	// ones, so that its counters prove nothing of an inbound state.
	ReplayWindow uint32
	ESN          bool

	// Larval is a state that has an SPI and no keys yet.
	Larval bool

	Counters
}

// Mark selects states and packets beside their addresses.
type Mark struct{ Value, Mask uint32 }

// Counters are what the kernel had counted when it told.
type Counters struct {
	Packets, Bytes  uint64 // authenticated, if inbound
	IntegrityFailed uint32
	Replayed        uint32 // or before the window
	Added           time.Time
	FirstUsed       time.Time // zero: never
	LastUsed        time.Time // zero: never, or the kernel does not tell (inbound: before 6.2)
}

// Peer is where an inbound state's packets come from; the port is 0 unless ESP
// goes in UDP.
func (s *SA) Peer() netip.AddrPort { return netip.AddrPortFrom(s.Src, s.SrcPort) }

// Local is where they go to.
func (s *SA) Local() netip.AddrPort { return netip.AddrPortFrom(s.Dst, s.DstPort) }

// same reports whether nothing but counters differs.
func (s SA) same(o SA) bool {
	s.Counters, o.Counters = Counters{}, Counters{}
	return s == o
}

// Mapping is a peer that the kernel hears, authenticated, from another address
// or port than its state has.
type Mapping struct {
	Key
	Old, New netip.AddrPort
}
