package bpf

import (
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

func spec(t *testing.T) *ebpf.CollectionSpec {
	t.Helper()
	s, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func typeOf[T btf.Type](t *testing.T, s *ebpf.CollectionSpec, name string) T {
	t.Helper()
	var typ T
	if err := s.Types.TypeByName(name, &typ); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return typ
}

// The names and the verdicts that Go repeats are those of the object.
func TestReasonsAreTheObjects(t *testing.T) {
	s := spec(t)
	enum := typeOf[*btf.Enum](t, s, "reason")
	counters := typeOf[*btf.Struct](t, s, "stats")
	verdicts := make([]Verdict, len(enum.Values)-1)
	if err := s.Variables[ikepulseVarVerdicts].Get(verdicts); err != nil {
		t.Fatal(err)
	}
	if len(counters.Members) != int(ReasonCount)+2 || len(verdicts) != int(ReasonCount) {
		t.Fatalf("%d counters, %d verdicts, want %d", len(counters.Members), len(verdicts), ReasonCount)
	}

	for i, value := range enum.Values {
		reason := Reason(i)
		if value.Value != uint64(i) {
			t.Errorf("%s is %d, want %d: numbers must leave no gap", value.Name, value.Value, i)
		}
		if reason == ReasonCount {
			break
		}
		name := strings.ToLower(strings.TrimPrefix(value.Name, "REASON_"))
		if reason.String() != name || counters.Members[i].Name != name {
			t.Errorf("reason %d is %q, its counter %q; want %q", i, reason, counters.Members[i].Name, name)
		}
		if reason.Verdict() != verdicts[i] {
			t.Errorf("%v: verdict %v, the program's is %v", reason, reason.Verdict(), verdicts[i])
		}
	}
}

// Only keepalives are taken off the stack, and nothing is by way of a fault.
func TestOnlyKeepalivesAreTaken(t *testing.T) {
	for reason := range ReasonCount {
		keepalive := strings.HasPrefix(reason.String(), "keepalive_") || reason == ReasonStrangerDropped
		if reason.Verdict() != VerdictPass && !keepalive {
			t.Errorf("%v: %v", reason, reason.Verdict())
		}
		if reason.Verdict() == VerdictTX && reason != ReasonKeepaliveAnswered {
			t.Errorf("%v transmits", reason)
		}
	}
}

func TestStringsOfTheUnknown(t *testing.T) {
	if got := ReasonCount.String(); got != "reason(48)" {
		t.Errorf("%s", got)
	}
	for verdict, want := range map[Verdict]string{
		VerdictAborted: "aborted", VerdictDrop: "drop", VerdictPass: "pass", VerdictTX: "tx", 7: "verdict(7)",
	} {
		if got := verdict.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// counters has the value that f says for each index.
func counters(f func(int) uint64) *Counters {
	var counters Counters
	fields := reflect.ValueOf(&counters).Elem()
	for i := range fields.NumField() - 1 {
		fields.Field(1 + i).SetUint(f(i)) // behind the layout marker
	}
	return &counters
}

// Of picks each counter by its own reason.
func TestCountersOf(t *testing.T) {
	counters := counters(func(i int) uint64 { return uint64(101 + i) })
	for reason := range ReasonCount {
		if got, want := counters.Of(reason), uint64(101+reason); got != want {
			t.Errorf("%v: %d, want %d", reason, got, want)
		}
	}
	if counters.Events != 101+uint64(ReasonCount) || counters.EventsLost != 102+uint64(ReasonCount) {
		t.Errorf("events %d, lost %d", counters.Events, counters.EventsLost)
	}
}

// The Go mirror has the C layout: sizes, offsets, field for field.
func TestMirrorHasTheLayoutOfC(t *testing.T) {
	s := spec(t)
	for name, mirror := range map[string]any{
		"hot_entry": HotEntry{}, "sa_entry": SAEntry{}, "peer_key": PeerKey{}, "peer_entry": PeerEntry{},
		"mapping": Mapping{}, "near_entry": NearEntry{}, "near_bucket": NearBucket{},
		"local_key": LocalKey{}, "follow_key": FollowKey{}, "event": Event{}, "stats": Counters{}, "budget": Budget{}, "clock_sample": ClockSample{}, "meta": Meta{},
	} {
		c := typeOf[*btf.Struct](t, s, name)
		typ := reflect.TypeOf(mirror)
		if uintptr(c.Size) != typ.Size() || binary.Size(mirror) != int(c.Size) {
			t.Errorf("%s: %d bytes, in C %d", name, typ.Size(), c.Size)
		}
		if len(c.Members) != typ.NumField()-1 {
			t.Fatalf("%s: %d fields, in C %d", name, typ.NumField()-1, len(c.Members))
		}
		for i, member := range c.Members {
			field := typ.Field(1 + i)
			same := strings.EqualFold(field.Name, strings.ReplaceAll(member.Name, "_", ""))
			if !same || field.Offset != uintptr(member.Offset.Bytes()) {
				t.Errorf("%s: %s at %d, in C %s at %d", name, field.Name, field.Offset, member.Name, member.Offset.Bytes())
			}
		}
	}
}

// What other packages and bpftool rely on without looking.
func TestMapsAreAsPromised(t *testing.T) {
	s := spec(t)
	promised := map[string]struct {
		kind       ebpf.MapType
		key, value uint32
		flags      uint32
	}{
		MapHot:    {ebpf.Array, 4, 16, 1 << 10}, // BPF_F_MMAPABLE
		MapSAs:    {ebpf.Array, 4, 64, 0},
		MapPeers:  {ebpf.Hash, 36, 28, 0},
		MapNear:   {ebpf.Array, 4, 128, 1 << 10},
		MapLocals: {ebpf.Hash, 16, 4, 0},
		MapFollow: {ebpf.Hash, 24, 4, 0},
		MapStats:  {ebpf.PerCPUArray, 4, 8 * uint32(ReasonCount+2), 0},
		MapBudget: {ebpf.Array, 4, 8, 0},
		MapMeta:   {ebpf.Array, 4, 72, 0},
		MapEvents: {ebpf.RingBuf, 0, 0, 0},
	}
	for name := range s.Maps {
		if _, ok := promised[name]; !ok && name != ".rodata" {
			t.Errorf("%s: not promised", name)
		}
	}
	for name, want := range promised {
		m := s.Maps[name]
		if m.Type != want.kind || m.KeySize != want.key || m.ValueSize != want.value || m.Flags != want.flags {
			t.Errorf("%v, want %+v", m, want)
		}
		if want.key > 0 && (m.Key == nil || m.Value == nil) {
			t.Errorf("%s: no BTF: bpftool cannot name its fields", name)
		}
		if len(name) > 15 || !strings.HasPrefix(name, "ikepulse_") {
			t.Errorf("%s: the kernel keeps 15 characters", name)
		}
	}
	if s.Maps[MapBudget].MaxEntries != BudgetCount {
		t.Errorf("%d budgets, want %d", s.Maps[MapBudget].MaxEntries, BudgetCount)
	}
}

func TestProgramsAreAsPromised(t *testing.T) {
	s := spec(t)
	promised := map[string]struct {
		kind   ebpf.ProgramType
		attach ebpf.AttachType
		flags  uint32
	}{
		ProgXDP:       {ebpf.XDP, ebpf.AttachXDP, unix.BPF_F_XDP_HAS_FRAGS},
		ProgClock:     {ebpf.Syscall, 0, unix.BPF_F_SLEEPABLE},
		ProgListSAs:   {ebpf.Tracing, ebpf.AttachTraceIter, 0},
		ProgListPeers: {ebpf.Tracing, ebpf.AttachTraceIter, 0},
		ProgListStats: {ebpf.Tracing, ebpf.AttachTraceIter, 0},
	}
	for name, p := range s.Programs {
		want, ok := promised[name]
		if !ok || p.Type != want.kind || p.AttachType != want.attach || p.Flags != want.flags {
			t.Errorf("%s: type %v, attaches as %v, flags %#x; want %+v", name, p.Type, p.AttachType, p.Flags, want)
		}
		if p.License != "Dual BSD/GPL" {
			t.Errorf("%s: licence %q", name, p.License)
		}
		if len(name) > 15 || !strings.HasPrefix(name, "ikepulse_") {
			t.Errorf("%s: the kernel keeps 15 characters", name)
		}
	}
	if len(s.Programs) != len(promised) {
		t.Errorf("%d programs, want %d", len(s.Programs), len(promised))
	}
}

// The split of an SPI is for ever: it is in every live SA.
func TestSlotSplit(t *testing.T) {
	if SlotBits != 22 || SlotField != 0x3fffff {
		t.Errorf("%d bits, field %#x", SlotBits, SlotField)
	}
}

// allowedHelpers cannot insert into a map or delete from it: what they find is
// written in place. The ring is written by records that give way when it is
// full.
var allowedHelpers = map[string][]asm.BuiltinFunc{
	ProgXDP: {asm.FnMapLookupElem, asm.FnJiffies64, asm.FnXdpGetBuffLen,
		asm.FnRingbufReserve, asm.FnRingbufSubmit, asm.FnKtimeGetBootNs},
	ProgClock:     {asm.FnJiffies64, asm.FnKtimeGetBootNs},
	ProgListSAs:   {asm.FnMapLookupElem, asm.FnJiffies64, asm.FnSeqPrintf},
	ProgListPeers: {asm.FnMapLookupElem, asm.FnJiffies64, asm.FnSeqPrintf},
	ProgListStats: {asm.FnMapLookupPercpuElem, asm.FnLoop, asm.FnSeqPrintf},
}

// ownFunctions are what the verifier takes by itself.
var ownFunctions = []string{"ikepulse_chain"}

func TestHelpersOfTheObject(t *testing.T) {
	s := spec(t)
	if len(s.Programs) != len(allowedHelpers) {
		t.Fatalf("%d programs, want %d", len(s.Programs), len(allowedHelpers))
	}
	for name, allowed := range allowedHelpers {
		used := map[asm.BuiltinFunc]bool{}
		for _, ins := range s.Programs[name].Instructions {
			switch {
			case ins.IsBuiltinCall():
				used[asm.BuiltinFunc(ins.Constant)] = true
			case ins.IsKfuncCall() || ins.IsFunctionCall() && !slices.Contains(ownFunctions, ins.Reference()):
				t.Errorf("%s calls what is no helper: %v", name, ins)
			}
		}
		for _, helper := range allowed {
			if !used[helper] {
				t.Errorf("%s does not call %v: is this the walk it is meant to be?", name, helper)
			}
			delete(used, helper)
		}
		for helper := range used {
			t.Errorf("%s calls %v", name, helper)
		}
	}
}
