package bpf

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
)

// The map keys and values. Every field is in host byte order but addresses,
// which are in network order, IPv4 as ::ffff:a.b.c.d. abi.h says who writes
// which field.
type (
	HotEntry   = ikepulseHotEntry
	SAEntry    = ikepulseSaEntry
	PeerKey    = ikepulsePeerKey
	PeerEntry  = ikepulsePeerEntry
	Mapping    = ikepulseMapping
	NearEntry  = ikepulseNearEntry
	NearBucket = ikepulseNearBucket
	FollowKey  = ikepulseFollowKey
	LocalKey   = ikepulseLocalKey
	Budget     = ikepulseBudget
	Meta       = ikepulseMeta

	// Counters is the value of stats: one counter a [Reason], in that order,
	// then the events that were written and those that were lost.
	Counters = ikepulseStats

	// Event is a record of events; Kind is one of Event….
	Event = ikepulseEvent

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
	MapNear   = ikepulseMapIkepulseNear
	MapLocals = ikepulseMapIkepulseLocals
	MapStats  = ikepulseMapIkepulseStats
	MapBudget = ikepulseMapIkepulseBudget
	MapMeta   = ikepulseMapIkepulseMeta
	MapFollow = ikepulseMapIkepulseFollow
	MapEvents = ikepulseMapIkepulseEvents

	ProgXDP   = ikepulseProgIkepulseXdp
	ProgClock = ikepulseProgIkepulseClock

	// Iterators: each prints the map of its name as a table.
	ProgListSAs   = ikepulseProgIkepulseLssas
	ProgListPeers = ikepulseProgIkepulseLspeer
	ProgListStats = ikepulseProgIkepulseLsstat
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
	VarPassEvery          = ikepulseVarPassEvery          // uint32, keepalives; 0: none
	VarDriftInterval      = ikepulseVarDriftInterval      // uint32, ticks
	VarStrangerBudget     = ikepulseVarStrangerBudget     // uint32, events a tick
	VarForeign            = ikepulseVarForeign            // uint32, 0 or 1
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
	PeerNATted = uint32(ikepulsePeerFlagPEER_NATTED) // Mapping: may be answered
	SANATted   = uint32(ikepulseSaFlagSA_NATTED)     // SAEntry
)

// What an event is about.
const (
	EventDrift    = uint32(ikepulseEventKindEVENT_DRIFT)    // Spi came from From, not from Before
	EventStranger = uint32(ikepulseEventKindEVENT_STRANGER) // a keepalive from From, which is not registered
)

// A bucket of near has NearWays entries, of which the first one's flags count,
// above NearSpilledShift, the tuples that found no room in the bucket.
const (
	NearWays         = int(ikepulseNearNEAR_WAYS)
	NearSpilledShift = int(ikepulseNearNEAR_SPILLED_SHIFT)
)

// Keys of budget.
const (
	BudgetAnswers   = uint32(ikepulseBudgetIndexBUDGET_ANSWERS)
	BudgetStrangers = uint32(ikepulseBudgetIndexBUDGET_STRANGERS)
	BudgetCount     = uint32(ikepulseBudgetIndexBUDGET_COUNT)
)

// LayoutVersion tells maps apart that have the same sizes but another meaning.
const LayoutVersion = uint32(ikepulseLayoutLAYOUT_VERSION)

// An inbound SPI of ours is slot | tag << SlotBits, tag never 0.
const (
	SlotBits  = int(ikepulseSlotSplitSLOT_BITS)
	SlotField = uint32(ikepulseSlotSplitSLOT_FIELD)
)

// Load returns the specification of programs and maps. It is the same on every
// system: what depends on the kernel is decided when it is loaded.
func Load() (*ebpf.CollectionSpec, error) {
	spec, err := loadIkepulse()
	if err != nil {
		return nil, err
	}
	for name, program := range spec.Programs {
		// Fills in the distances of calls, without which
		// [ebpf.ProgramSpec.Compatible] finds every program different.
		if err := program.Instructions.Marshal(io.Discard, binary.LittleEndian); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return spec, nil
}
