package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/test/require"
)

// The sizes of the rig's arrays and hashes: small, so that a test can compare
// all of them before and after each frame.
const slots, tuples = 8, 64

// settings are the rodata of one load, and what becomes of its clock.
type settings struct {
	KeepaliveMode, StrangerPass, TickShift uint32
	AnswerInterval, AnswerBudget, SlotMask uint32
	PassEvery, DriftInterval, Foreign      uint32
	StrangerBudget, AccountEveryPacket     uint32
	NATTPort                               uint16
	hotEntries, ring                       uint32

	// now is the low half of jiffies64: a frozen tick makes every outcome
	// exact. clock changes the program accordingly; nil leaves it as it ships.
	now   uint32
	clock func(t testing.TB, program asm.Instructions, now uint32) asm.Instructions
}

func defaults() settings {
	return settings{
		AnswerInterval: 10, AnswerBudget: 1000, SlotMask: slots - 1, NATTPort: gateway.Port(),
		DriftInterval: 10, StrangerBudget: 1000,
		hotEntries: slots, now: 5000, clock: freezeClock,
	}
}

func (s settings) apply(t testing.TB, spec *ebpf.CollectionSpec) {
	t.Helper()
	for name, value := range map[string]any{
		VarKeepaliveMode: s.KeepaliveMode, VarStrangerPass: s.StrangerPass, VarTickShift: s.TickShift,
		VarAnswerInterval: s.AnswerInterval, VarAnswerBudget: s.AnswerBudget, VarSlotMask: s.SlotMask,
		VarPassEvery: s.PassEvery, VarDriftInterval: s.DriftInterval, VarForeign: s.Foreign,
		VarStrangerBudget: s.StrangerBudget, VarAccountEveryPacket: s.AccountEveryPacket, VarNATTPort: s.NATTPort,
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			t.Fatalf("set %s: %v", name, err)
		}
	}
	spec.Maps[MapHot].MaxEntries = s.hotEntries
	spec.Maps[MapSAs].MaxEntries = s.hotEntries
	spec.Maps[MapFollow].MaxEntries = s.hotEntries
	spec.Maps[MapPeers].MaxEntries = tuples
	spec.Maps[MapNear].MaxEntries = slots / uint32(NearWays)
	spec.Maps[MapLocals].MaxEntries = tuples
	if s.ring != 0 {
		spec.Maps[MapEvents].MaxEntries = s.ring
	}
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
	loaded
	events *ringbuf.Reader
	now    uint32
}

type loaded struct {
	Maps
	IkepulseXdp   *ebpf.Program `ebpf:"ikepulse_xdp"`
	IkepulseClock *ebpf.Program `ebpf:"ikepulse_clock"`
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
	if err := spec.LoadAndAssign(&r.loaded, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { r.Maps.Close(); r.IkepulseXdp.Close(); r.IkepulseClock.Close() })
	if r.events, err = ringbuf.NewReader(r.IkepulseEvents); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.events.Close() })
	r.events.SetDeadline(time.Unix(1, 0))
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

// peerState is what is known of a tuple, wherever its mapping is.
type peerState struct {
	Owners, Flags             uint32
	KeepaliveTick, AnswerTick uint32
	Keepalives, Answers       uint32
}

func (p peerState) mapping() Mapping {
	return Mapping{Flags: p.Flags, KeepaliveTick: p.KeepaliveTick, AnswerTick: p.AnswerTick,
		Keepalives: p.Keepalives, Answers: p.Answers}
}

func stateOf(e PeerEntry, m Mapping) peerState {
	return peerState{e.Owners, m.Flags, m.KeepaliveTick, m.AnswerTick, m.Keepalives, m.Answers}
}

// peer registers the sender's tuple as the daemon would: IPv4 in its bucket,
// while there is room.
func (r *rig) peer(f frame, p peerState) *rig {
	r.Helper()
	key, entry := f.tuple(), PeerEntry{Owners: p.Owners}
	if err := r.IkepulsePeers.Lookup(key, &entry); err == nil {
		entry.Owners = p.Owners
	}
	if entry.Place == 0 {
		entry.Place = r.vacancy(f)
	}
	if entry.Place == 0 {
		entry.Mapping = p.mapping()
	} else {
		r.nearEntry(entry.Place, func(e *NearEntry) {
			e.Peer, e.Local = binary.NativeEndian.Uint32(key.Peer[12:]), binary.NativeEndian.Uint32(key.Local[12:])
			e.PeerPort, e.LocalPort, e.Mapping = key.PeerPort, key.LocalPort, p.mapping()
		})
	}
	r.put(r.IkepulsePeers, key, entry)
	return r
}

// vacancy returns the place for an IPv4 tuple, or 0, and then counts it with
// those that have none.
func (r *rig) vacancy(f frame) uint32 {
	r.Helper()
	if f.dst.Addr().Is6() {
		return 0
	}
	key := f.tuple()
	index := key.Hash() & (slots/uint32(NearWays) - 1)
	var bucket NearBucket
	if err := r.IkepulseNear.Lookup(index, &bucket); err != nil {
		r.Fatal(err)
	}
	for way, e := range bucket.Entries {
		if e.LocalPort == 0 {
			return index*uint32(NearWays) + uint32(way) + 1
		}
	}
	bucket.Entries[0].Mapping.Flags += 1 << NearSpilledShift
	r.put(r.IkepulseNear, index, bucket)
	return 0
}

// nearEntry changes the entry of a place.
func (r *rig) nearEntry(place uint32, change func(*NearEntry)) {
	r.Helper()
	index, way := (place-1)/uint32(NearWays), (place-1)%uint32(NearWays)
	var bucket NearBucket
	if err := r.IkepulseNear.Lookup(index, &bucket); err != nil {
		r.Fatal(err)
	}
	change(&bucket.Entries[way])
	r.put(r.IkepulseNear, index, bucket)
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
	Peers    map[PeerKey]peerState
	Near     map[uint32]NearBucket // without the mappings of peers
	Locals   map[LocalKey]uint32
	Hot      map[uint32]HotEntry
	SAs      map[uint32]SAEntry
	Follow   map[FollowKey]uint32
	Budget   map[uint32]Budget
	Events   []Event // since the last time that one looked, without their times
}

func entries[K comparable, V any](r *rig, m *ebpf.Map) map[K]V {
	r.Helper()
	var cursor ebpf.MapBatchCursor
	size := m.MaxEntries() + 1 // one batch: less than asked for is the end
	keys, values := make([]K, size), make([]V, size)
	n, err := m.BatchLookup(&cursor, keys, values, nil)
	if !errors.Is(err, ebpf.ErrKeyNotExist) {
		r.Fatalf("%v: %v", m, err)
	}
	all := map[K]V{}
	for i, key := range keys[:n] {
		all[key] = values[i]
	}
	return all
}

func (r *rig) state() state {
	r.Helper()
	near := entries[uint32, NearBucket](r, r.IkepulseNear)
	peers := map[PeerKey]peerState{}
	for key, entry := range entries[PeerKey, PeerEntry](r, r.IkepulsePeers) {
		if entry.Place == 0 {
			peers[key] = stateOf(entry, entry.Mapping)
			continue
		}
		index, way := (entry.Place-1)/uint32(NearWays), (entry.Place-1)%uint32(NearWays)
		bucket := near[index]
		peers[key] = stateOf(entry, bucket.Entries[way].Mapping)
		bucket.Entries[way].Mapping = Mapping{}
		near[index] = bucket
	}
	return state{
		Counters: r.counters(),
		Peers:    peers,
		Near:     near,
		Locals:   entries[LocalKey, uint32](r, r.IkepulseLocals),
		Hot:      entries[uint32, HotEntry](r, r.IkepulseHot),
		SAs:      entries[uint32, SAEntry](r, r.IkepulseSas),
		Follow:   entries[FollowKey, uint32](r, r.IkepulseFollow),
		Budget:   entries[uint32, Budget](r, r.IkepulseBudget),
		Events:   r.drain(),
	}
}

func (r *rig) counters() map[string]uint64 {
	r.Helper()
	all := map[string]uint64{}
	var perCPU []Counters
	if err := r.IkepulseStats.Lookup(uint32(0), &perCPU); err != nil {
		r.Fatal(err)
	}
	for _, counters := range perCPU {
		for reason := range ReasonCount {
			all[reason.String()] += counters.Of(reason)
		}
		all["events"] += counters.Events
		all["events_lost"] += counters.EventsLost
	}
	return all
}

// drain takes the events out of the ring. Their times are checked here, for
// nobody can say what they must be.
func (r *rig) drain() (events []Event) {
	r.Helper()
	for {
		record, err := r.events.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return events
		}
		var event Event
		if err == nil {
			_, err = binary.Decode(record.RawSample, binary.NativeEndian, &event)
		}
		if err != nil || len(record.RawSample) != binary.Size(event) {
			r.Fatalf("event % x: %v", record.RawSample, err)
		}
		if age := bootTime(r) - event.BoottimeNs; age > uint64(10*time.Minute) {
			r.Errorf("an event of boot time %d", event.BoottimeNs)
		}
		event.BoottimeNs = 0
		events = append(events, event)
	}
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
	if !bytes.Equal(out, got) {
		r.Errorf("bytes out (-want +got):\n%s", cmp.Diff(out, got))
	}
	// Only a difference is worth the time that its description takes.
	if after := r.state(); !reflect.DeepEqual(want, after) {
		r.Errorf("state after the frame (-want +got):\n%s", cmp.Diff(want, after))
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
		r.spent(BudgetAnswers)(s)
	}
}

func (r *rig) spent(index uint32) func(*state) {
	return func(s *state) {
		budget := s.Budget[index]
		if budget.Tick != r.now {
			budget = Budget{Tick: r.now}
		}
		budget.Count++
		s.Budget[index] = budget
	}
}

// strange is an event about a stranger.
func (r *rig) strange(f frame) func(*state) {
	return func(s *state) {
		r.spent(BudgetStrangers)(s)
		s.Counters["events"]++
		s.Events = append(s.Events, Event{Kind: EventStranger, From: f.tuple()})
	}
}

func (r *rig) seen(spi uint32) func(*state) {
	return func(s *state) {
		entry := s.Hot[spi&SlotField]
		entry.Seen = r.now
		s.Hot[spi&SlotField] = entry
	}
}

// moved is a packet from another tuple, the frame's: news once a tick, here.
func (r *rig) moved(spi uint32, f frame) func(*state) {
	return func(s *state) {
		r.seen(spi)(s)
		entry := s.SAs[spi&SlotField]
		if entry.MovedTick == r.now {
			return
		}
		entry.MovedTick = r.now
		s.SAs[spi&SlotField] = entry
		s.Counters["events"]++
		s.Events = append(s.Events, Event{Kind: EventDrift, Spi: spi, From: f.tuple(), Before: PeerKey{
			Local: entry.Local, Peer: entry.Peer, LocalPort: entry.LocalPort, PeerPort: entry.PeerPort,
		}})
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
