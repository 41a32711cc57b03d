package bpf

import "github.com/cilium/ebpf"

// The map keys and values. Every field is in host byte order but addresses,
// which are in network order, IPv4 as ::ffff:a.b.c.d. abi.h says who writes
// which field.
type (
	HotEntry  = ikepulseHotEntry
	SAEntry   = ikepulseSaEntry
	PeerKey   = ikepulsePeerKey
	PeerEntry = ikepulsePeerEntry
	LocalKey  = ikepulseLocalKey
	Budget    = ikepulseBudget
	Meta      = ikepulseMeta

	// Counters is the value of stats: one counter a [Reason], in that order.
	Counters = ikepulseStats

	// ClockSample is the context of the clock program: pass one as Context and
	// as ContextOut of [ebpf.Program.Run].
	ClockSample = ikepulseClockSample
)

// The generated containers, to load or pin from another package.
type (
	Specs    = ikepulseSpecs
	Objects  = ikepulseObjects
	Maps     = ikepulseMaps
	Programs = ikepulsePrograms
)

// Names of the objects, as bpftool and the pins show them.
const (
	MapHot    = ikepulseMapIkepulseHot
	MapSAs    = ikepulseMapIkepulseSas
	MapPeers  = ikepulseMapIkepulsePeers
	MapLocals = ikepulseMapIkepulseLocals
	MapStats  = ikepulseMapIkepulseStats
	MapBudget = ikepulseMapIkepulseBudget
	MapMeta   = ikepulseMapIkepulseMeta

	ProgXDP   = ikepulseProgIkepulseXdp
	ProgClock = ikepulseProgIkepulseClock
)

// Names of the settings in rodata: set each with Variables[name].Set and a
// value of the type given here before loading. config.h has their meaning.
const (
	VarKeepaliveMode      = ikepulseVarKeepaliveMode      // uint32, Keepalive…
	VarStrangerPass       = ikepulseVarStrangerPass       // uint32, 0 or 1
	VarTickShift          = ikepulseVarTickShift          // uint32
	VarAnswerInterval     = ikepulseVarAnswerInterval     // uint32, ticks
	VarAnswerBudget       = ikepulseVarAnswerBudget       // uint32, answers a tick
	VarSlotMask           = ikepulseVarSlotMask           // uint32
	VarNATTPort           = ikepulseVarNattPort           // uint16
	VarAccountEveryPacket = ikepulseVarAccountEveryPacket // uint32, 0 or 1
)

// What becomes of a keepalive from a registered tuple.
const (
	KeepaliveAnswer = uint32(ikepulseKeepaliveKEEPALIVE_ANSWER)
	KeepaliveAbsorb = uint32(ikepulseKeepaliveKEEPALIVE_ABSORB)
	KeepalivePass   = uint32(ikepulseKeepaliveKEEPALIVE_PASS)
)

// Flags of entries.
const (
	PeerNATted = uint32(ikepulsePeerFlagPEER_NATTED) // PeerEntry: may be answered
	SANATted   = uint32(ikepulseSaFlagSA_NATTED)     // SAEntry
)

// LayoutVersion tells maps apart that have the same sizes but another meaning.
const LayoutVersion = uint32(ikepulseLayoutLAYOUT_VERSION)

// An inbound SPI of ours is slot | tag << SlotBits, tag never 0.
const (
	SlotBits  = int(ikepulseSlotSplitSLOT_BITS)
	SlotField = uint32(ikepulseSlotSplitSLOT_FIELD)
)

// Load returns the specification of program and maps. It is the same on every
// system: what depends on the kernel is decided when it is loaded.
func Load() (*ebpf.CollectionSpec, error) {
	return loadIkepulse()
}
