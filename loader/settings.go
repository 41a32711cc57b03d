package loader

import (
	"fmt"
	"math"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/maps"
)

// fresh returns the settings of a program that is loaded for the first time.
func (o Options) fresh(clock *maps.Clock, cookie uint64) maps.Meta {
	return o.over(maps.Meta{
		Layout: bpf.LayoutVersion, NetnsCookie: cookie, Loaded: clock.Now(),
		Jiffy: clock.Jiffy(), TickShift: clock.Shift(),
		Capacity: DefaultCapacity, Keepalive: DefaultKeepalive,
		AnswerInterval: ticks(DefaultAnswerInterval, clock.Tick()), NATTPort: DefaultNATTPort,
		DriftInterval:  ticks(driftInterval, clock.Tick()),
		StrangerBudget: clamp(strangersASecond * clock.Tick().Seconds()),
	})
}

// over returns loaded with what the options ask for changed.
func (o Options) over(loaded maps.Meta) maps.Meta {
	m := loaded
	if o.Capacity != 0 {
		m.Capacity = o.Capacity
	}
	if o.Keepalive != "" {
		m.Keepalive = o.Keepalive
	}
	if o.AnswerInterval != 0 {
		m.AnswerInterval = ticks(o.AnswerInterval, m.Tick())
	}
	if o.NATTPort != 0 {
		m.NATTPort = o.NATTPort
	}
	m.StrangerPass, m.Account, m.Follow = o.StrangerPass, o.Account, o.Follow
	m.PassEvery = uint32(o.PassEvery)
	if m.Follow && m.Keepalive == DefaultKeepalive {
		m.Keepalive = "absorb"
	}
	switch {
	case o.AnswerBudget != 0:
		m.AnswerBudget = clamp(float64(o.AnswerBudget) * m.Tick().Seconds())
	case m.AnswerBudget == 0:
		m.AnswerBudget = defaultBudget(m)
	}
	return m
}

// asFound asks for what is loaded where the options say nothing. The limits that
// follow from others are not asked for, nor is what following alone made of a
// keepalive.
func (o Options) asFound(loaded maps.Meta) Options {
	if o.Capacity == 0 {
		o.Capacity = loaded.Capacity
	}
	if o.Keepalive == "" && o.Follow == loaded.Follow {
		o.Keepalive = loaded.Keepalive
	}
	if o.AnswerInterval == 0 {
		// The length of a tick is measured anew: half of one less is rounded up.
		o.AnswerInterval = time.Duration(loaded.AnswerInterval)*loaded.Tick() - loaded.Tick()/2
	}
	if o.AnswerBudget == 0 && loaded.AnswerBudget != defaultBudget(loaded) {
		o.AnswerBudget = int(float64(loaded.AnswerBudget) / loaded.Tick().Seconds())
	}
	if o.NATTPort == 0 {
		o.NATTPort = loaded.NATTPort
	}
	return o
}

// defaultBudget is every tunnel's tuple once an interval, doubled since they do
// not come evenly, and enough for a handful that come at once.
func defaultBudget(m maps.Meta) uint32 {
	return clamp(max(1000, 2*float64(m.Capacity)/float64(m.AnswerInterval)))
}

// ticks rounds up: the program answers when more than so many have passed.
func ticks(d, tick time.Duration) uint32 { return clamp(float64(d) / float64(tick)) }

func clamp(f float64) uint32 { return uint32(min(math.Ceil(f), math.MaxUint32)) }

// spec is program and maps with these settings.
func (o Options) spec(m maps.Meta) (*ebpf.CollectionSpec, error) {
	spec, err := maps.SpecFor(m)
	if err == nil {
		err = set(spec, m)
	}
	if err == nil && o.alter != nil {
		o.alter(spec)
	}
	return spec, err
}

// set writes the settings into the program's constants.
func set(spec *ebpf.CollectionSpec, m maps.Meta) error {
	mode, _ := maps.KeepaliveMode(m.Keepalive)
	for name, value := range map[string]any{
		bpf.VarKeepaliveMode:      mode,
		bpf.VarStrangerPass:       flag(m.StrangerPass),
		bpf.VarTickShift:          m.TickShift,
		bpf.VarAnswerInterval:     m.AnswerInterval,
		bpf.VarAnswerBudget:       m.AnswerBudget,
		bpf.VarPassEvery:          m.PassEvery,
		bpf.VarDriftInterval:      m.DriftInterval,
		bpf.VarStrangerBudget:     m.StrangerBudget,
		bpf.VarSlotMask:           uint32(maps.Entries(m.Capacity) - 1),
		bpf.VarNATTPort:           m.NATTPort,
		bpf.VarAccountEveryPacket: flag(m.Account),
		bpf.VarForeign:            flag(m.Follow),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	return nil
}

func flag(set bool) uint32 {
	if set {
		return 1
	}
	return 0
}

// settingsDiffer says in what two settings differ, as a person wrote them.
func settingsDiffer(loaded, wanted maps.Meta) (all []string) {
	differ := func(what string, loaded, wanted any) {
		if loaded != wanted {
			all = append(all, fmt.Sprintf("%s is %v, %v is wanted", what, loaded, wanted))
		}
	}
	interval := func(m maps.Meta) time.Duration { return time.Duration(m.AnswerInterval) * m.Tick() }
	perSecond := func(m maps.Meta) string {
		return fmt.Sprintf("%.0f/s", float64(m.AnswerBudget)/m.Tick().Seconds())
	}
	differ("capacity", loaded.Capacity, wanted.Capacity)
	differ("keepalive", loaded.Keepalive, wanted.Keepalive)
	differ("answer interval", interval(loaded), interval(wanted))
	differ("answer budget", perSecond(loaded), perSecond(wanted))
	differ("passing strangers' keepalives", loaded.StrangerPass, wanted.StrangerPass)
	differ("passing every Nth keepalive, N", loaded.PassEvery, wanted.PassEvery)
	differ("NAT-T port", loaded.NATTPort, wanted.NATTPort)
	differ("accounting every packet", loaded.Account, wanted.Account)
	differ("following another daemon", loaded.Follow, wanted.Follow)
	return all
}
