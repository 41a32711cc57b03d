package maps

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
)

// Meta is what was loaded: enough to read the other maps right, and to say
// what runs, without the daemon.
type Meta struct {
	Layout         uint32        // bpf.LayoutVersion of who loaded it
	Capacity       int           // tunnels
	NetnsCookie    uint64        // SO_NETNS_COOKIE of the namespace it serves
	Loaded         int64         // CLOCK_BOOTTIME, ns
	Jiffy          time.Duration // measured
	TickShift      uint32
	Keepalive      string // answer, absorb or pass
	StrangerPass   bool
	AnswerInterval uint32 // ticks
	AnswerBudget   uint32 // answers a tick
	PassEvery      uint32 // every so manieth keepalive of a tuple goes to the stack; 0: none
	DriftInterval  uint32 // ticks between an SPI's drift events
	StrangerBudget uint32 // stranger events a tick
	NATTPort       uint16
	Account        bool
	Follow         bool // the SPIs are another daemon's, and carry no slot
}

// Tick returns the length of a tick.
func (m Meta) Tick() time.Duration { return m.Jiffy << m.TickShift }

// keepaliveModes has the names as people write them.
var keepaliveModes = []string{
	bpf.KeepaliveAnswer: "answer",
	bpf.KeepaliveAbsorb: "absorb",
	bpf.KeepalivePass:   "pass",
}

// KeepaliveMode returns the value of a keepalive mode; ok is false when there
// is none of that name.
func KeepaliveMode(name string) (mode uint32, ok bool) {
	i := slices.Index(keepaliveModes, name)
	return uint32(max(i, 0)), i >= 0
}

// Write records m in ikepulse_meta.
func (m Meta) Write(to *ebpf.Map) error {
	mode, ok := KeepaliveMode(m.Keepalive)
	if !ok {
		return fmt.Errorf("%s: no keepalive mode %q", bpf.MapMeta, m.Keepalive)
	}
	e := bpf.Meta{
		Layout: m.Layout, Capacity: uint32(m.Capacity),
		NetnsCookie: m.NetnsCookie, LoadedNs: uint64(m.Loaded),
		JiffyNs: uint32(m.Jiffy), TickShift: m.TickShift,
		KeepaliveMode: mode, StrangerPass: flag(m.StrangerPass),
		AnswerInterval: m.AnswerInterval, AnswerBudget: m.AnswerBudget,
		PassEvery: m.PassEvery, DriftInterval: m.DriftInterval, StrangerBudget: m.StrangerBudget,
		NattPort: uint32(m.NATTPort), AccountEveryPacket: flag(m.Account),
		Foreign: flag(m.Follow),
	}
	if err := to.Put(uint32(0), e); err != nil {
		return fmt.Errorf("%s: %w", bpf.MapMeta, err)
	}
	return nil
}

// NetnsCookieOf returns the namespace that a meta map of any layout was made
// for: the fields before it keep their places in every layout.
func NetnsCookieOf(m *ebpf.Map) (uint64, error) {
	const at = 8 // after layout and capacity
	value, err := m.LookupBytes(uint32(0))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", bpf.MapMeta, err)
	}
	if len(value) < at+8 {
		return 0, fmt.Errorf("%s: a value of %d bytes", bpf.MapMeta, len(value))
	}
	return binary.NativeEndian.Uint64(value[at:]), nil
}

// ReadMeta returns what ikepulse_meta holds. A map of another size, or one
// that nobody wrote, is an error.
func ReadMeta(from *ebpf.Map) (Meta, error) {
	var e bpf.Meta
	if err := from.Lookup(uint32(0), &e); err != nil {
		return Meta{}, fmt.Errorf("%s: %w", bpf.MapMeta, err)
	}
	if e.Layout != bpf.LayoutVersion {
		return Meta{}, fmt.Errorf("%s: layout version %d, this program has %d", bpf.MapMeta, e.Layout, bpf.LayoutVersion)
	}
	if int(e.KeepaliveMode) >= len(keepaliveModes) || e.Capacity < 1 || e.Capacity > MaxCapacity {
		return Meta{}, fmt.Errorf("%s: keepalive mode %d, capacity %d: not written by this program", bpf.MapMeta, e.KeepaliveMode, e.Capacity)
	}
	return Meta{
		Layout: e.Layout, Capacity: int(e.Capacity),
		NetnsCookie: e.NetnsCookie, Loaded: int64(e.LoadedNs),
		Jiffy: time.Duration(e.JiffyNs), TickShift: e.TickShift,
		Keepalive: keepaliveModes[e.KeepaliveMode], StrangerPass: e.StrangerPass != 0,
		AnswerInterval: e.AnswerInterval, AnswerBudget: e.AnswerBudget,
		PassEvery: e.PassEvery, DriftInterval: e.DriftInterval, StrangerBudget: e.StrangerBudget,
		NATTPort: uint16(e.NattPort), Account: e.AccountEveryPacket != 0,
		Follow: e.Foreign != 0,
	}, nil
}

func flag(set bool) uint32 {
	if set {
		return 1
	}
	return 0
}
