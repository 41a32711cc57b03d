package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/test/require"
)

// slots is the size of the rig's arrays: small, so that a test can compare all
// of them before and after each frame.
const slots = 8

// settings are the rodata of one load, and what becomes of its clock.
type settings struct {
	KeepaliveMode, StrangerPass, TickShift uint32
	AnswerInterval, AnswerBudget, SlotMask uint32
	AccountEveryPacket                     uint32
	NATTPort                               uint16
	hotEntries                             uint32

	// now is the low half of jiffies64: a frozen tick makes every outcome
	// exact. clock changes the program accordingly; nil leaves it as it ships.
	now   uint32
	clock func(t testing.TB, program asm.Instructions, now uint32) asm.Instructions
}

func defaults() settings {
	return settings{
		AnswerInterval: 10, AnswerBudget: 1000, SlotMask: slots - 1, NATTPort: gateway.Port(),
		hotEntries: slots, now: 5000, clock: freezeClock,
	}
}

func (s settings) apply(t testing.TB, spec *ebpf.CollectionSpec) {
	t.Helper()
	for name, value := range map[string]any{
		VarKeepaliveMode: s.KeepaliveMode, VarStrangerPass: s.StrangerPass, VarTickShift: s.TickShift,
		VarAnswerInterval: s.AnswerInterval, VarAnswerBudget: s.AnswerBudget, VarSlotMask: s.SlotMask,
		VarAccountEveryPacket: s.AccountEveryPacket, VarNATTPort: s.NATTPort,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			t.Fatalf("set %s: %v", name, err)
		}
	}
	spec.Maps[MapHot].MaxEntries = s.hotEntries
	spec.Maps[MapSAs].MaxEntries = s.hotEntries
	if s.clock != nil {
		xdp := spec.Programs[ProgXDP]
		xdp.Instructions = s.clock(t, xdp.Instructions, s.now)
	}
}

// freezeClock makes each call of bpf_jiffies64 a constant. Jiffies pass 2^32
// only 300 s after boot, so this is how the neighbourhood of the wrap is
// reached: the rest of the program is as it ships. A constant has the size of a
// call, for jumps go by distance.
func freezeClock(t testing.TB, program asm.Instructions, now uint32) asm.Instructions {
	t.Helper()
	calls := 0
	for i, ins := range program {
		if ins.IsBuiltinCall() && ins.Constant == int64(asm.FnJiffies64) {
			program[i] = asm.Mov.Imm32(asm.R0, int32(now)).WithMetadata(ins.Metadata)
			calls++
		}
	}
	if calls == 0 {
		t.Fatal("the program does not read jiffies")
	}
	return program
}

// rig is the program, loaded but not attached, with maps of its own.
type rig struct {
	testing.TB
	Objects
	now uint32
}

func load(t testing.TB, changes ...func(*settings)) *rig {
	t.Helper()
	require.Have(t, "root", "bpf")
	s := defaults()
	for _, change := range changes {
		change(&s)
	}
	spec, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	s.apply(t, spec)
	r := &rig{TB: t, now: s.now}
	if err := spec.LoadAndAssign(&r.Objects, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { r.Objects.Close() })
	return r
}

func (r *rig) put(m *ebpf.Map, key, value any) {
	r.Helper()
	if err := m.Put(key, value); err != nil {
		r.Fatalf("put: %v", err)
	}
}

// local registers addresses as ours.
func (r *rig) local(f frame) *rig {
	r.put(r.IkepulseLocals, LocalKey{Address: f.dst.Addr().As16()}, uint32(0))
	return r
}

// peer registers the sender's tuple.
func (r *rig) peer(f frame, entry PeerEntry) *rig {
	r.put(r.IkepulsePeers, f.tuple(), entry)
	return r
}

// sa registers an SPI as the daemon would at install.
func (r *rig) sa(spi uint32, tuple PeerKey, hash uint32) *rig {
	slot := spi & SlotField
	r.put(r.IkepulseSas, slot, SAEntry{
		Spi: spi, Generation: 3, Local: tuple.Local, Peer: tuple.Peer,
		LocalPort: tuple.LocalPort, PeerPort: tuple.PeerPort,
	})
	r.put(r.IkepulseHot, slot, HotEntry{Spi: spi, Auth: 77, TupleHash: hash})
	return r
}

// state is everything the program can write, and all that it must not.
type state struct {
	Counters map[string]uint64
	Peers    map[PeerKey]PeerEntry
	Locals   map[LocalKey]uint32
	Hot      map[uint32]HotEntry
	SAs      map[uint32]SAEntry
	Budget   Budget
}

func entries[K comparable, V any](r *rig, m *ebpf.Map) map[K]V {
	r.Helper()
	var key K
	var value V
	all := map[K]V{}
	iter := m.Iterate()
	for iter.Next(&key, &value) {
		all[key] = value
	}
	if err := iter.Err(); err != nil {
		r.Fatalf("%v: %v", m, err)
	}
	return all
}

func (r *rig) state() state {
	r.Helper()
	s := state{
		Counters: map[string]uint64{},
		Peers:    entries[PeerKey, PeerEntry](r, r.IkepulsePeers),
		Locals:   entries[LocalKey, uint32](r, r.IkepulseLocals),
		Hot:      entries[uint32, HotEntry](r, r.IkepulseHot),
		SAs:      entries[uint32, SAEntry](r, r.IkepulseSas),
	}
	var perCPU []Counters
	if err := r.IkepulseStats.Lookup(uint32(0), &perCPU); err != nil {
		r.Fatal(err)
	}
	for reason := range ReasonCount {
		for _, counters := range perCPU {
			s.Counters[reason.String()] += counters.Of(reason)
		}
	}
	if err := r.IkepulseBudget.Lookup(uint32(0), &s.Budget); err != nil {
		r.Fatal(err)
	}
	return s
}

// try sends one frame through the program, from any goroutine.
func (r *rig) try(in []byte) (Verdict, []byte, error) {
	opts := ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+64)}
	verdict, err := r.IkepulseXdp.Run(&opts)
	return Verdict(verdict), opts.DataOut, err
}

func (r *rig) run(in []byte) (Verdict, []byte) {
	r.Helper()
	verdict, out, err := r.try(in)
	if err != nil {
		r.Fatalf("run: %v", err)
	}
	return verdict, out
}

// expect runs a frame and compares the verdict, the bytes, the whole vector of
// counters and every map: what the changes do not name must be as it was.
func (r *rig) expect(f frame, reason Reason, changes ...func(*state)) {
	r.Helper()
	in := f.build()
	out := in
	if reason == ReasonKeepaliveAnswered {
		out = f.answer()
	}

	want := r.state()
	verdict, got := r.run(in)
	want.Counters[reason.String()]++
	for _, change := range changes {
		change(&want)
	}

	if verdict != reason.Verdict() {
		r.Errorf("verdict %v, want %v (%v)", verdict, reason.Verdict(), reason)
	}
	if diff := cmp.Diff(out, got); diff != "" {
		r.Errorf("bytes out (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, r.state()); diff != "" {
		r.Errorf("state after the frame (-want +got):\n%s", diff)
	}
}

// The changes that a frame may make.

func (r *rig) keptAlive(f frame) func(*state) {
	return func(s *state) {
		entry := s.Peers[f.tuple()]
		entry.KeepaliveTick = r.now
		entry.Keepalives++
		s.Peers[f.tuple()] = entry
	}
}

func (r *rig) answered(f frame) func(*state) {
	return func(s *state) {
		r.keptAlive(f)(s)
		entry := s.Peers[f.tuple()]
		entry.AnswerTick = r.now
		entry.Answers++
		s.Peers[f.tuple()] = entry
		if s.Budget.Tick != r.now {
			s.Budget = Budget{Tick: r.now}
		}
		s.Budget.Count++
	}
}

func (r *rig) seen(spi uint32) func(*state) {
	return func(s *state) {
		entry := s.Hot[spi&SlotField]
		entry.Seen = r.now
		s.Hot[spi&SlotField] = entry
	}
}

func (r *rig) moved(spi uint32) func(*state) {
	return func(s *state) {
		r.seen(spi)(s)
		entry := s.SAs[spi&SlotField]
		entry.MovedTick = r.now
		s.SAs[spi&SlotField] = entry
	}
}

func accounted(spi, seq uint32) func(*state) {
	return func(s *state) {
		entry := s.SAs[spi&SlotField]
		entry.Packets++
		entry.LastSeq = seq
		s.SAs[spi&SlotField] = entry
	}
}
