package gateway

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/cmd/internal/config"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/maps"
)

// TestSPIsOfShards: the supply and the router agree whose an SPI is, within the
// maps and beyond them.
func TestSPIsOfShards(t *testing.T) {
	const shards = 3
	s := newSupply(100, shards, func() {})
	for shard := range shards {
		beyond := 0
		for range maps.MaxSPIs(100) / shards {
			spi, ok := s.alloc(shard)(1)
			if !ok || s.shardOf(spi) != shard {
				t.Fatalf("shard %d was given %08x (%v), which is shard %d's", shard, spi, ok, s.shardOf(spi))
			}
			if int(maps.SlotOf(spi)) >= maps.Entries(100) {
				beyond++
			}
		}
		if beyond < 80 {
			t.Errorf("shard %d was given %d beyond the maps", shard, beyond)
		}
	}
}

// TestShortageIsSaidOnce: a shortage is one line, however many SPIs it takes, and
// another one after it has one of its own.
func TestShortageIsSaidOnce(t *testing.T) {
	var log bytes.Buffer
	d := &daemon{xdp: new(loader.Instance), Options: Options{Log: plainLog(&log), Config: &config.Config{}}}
	s := newSupply(1, 1, d.warnBeyond)
	alloc, free := s.alloc(0), s.free(0)
	now := int64(time.Hour)
	want := func(what string, n int) {
		t.Helper()
		if said := strings.Count(log.String(), "no SPI slot is free"); said != n {
			t.Errorf("%s: said %d times, want %d\n%s", what, said, n, &log)
		}
	}
	alloc(now)
	alloc(now)
	want("both slots taken", 0)
	first, _ := alloc(now)
	want("one beyond", 1)
	alloc(now + int64(time.Second))
	want("two beyond", 1)
	if _, ok := alloc(now + int64(time.Second)); ok || s.refused.Load() != now+int64(time.Second) {
		t.Errorf("of four SPIs there is a fifth; refused at %d", s.refused.Load())
	}
	now += int64(time.Minute)
	free(first, now)
	if _, ok := alloc(now + int64(slotsRest)); !ok {
		t.Error("what was freed does not come back")
	}
	want("minutes later", 2)
}

// TestMoreTunnelsThanSlots: tunnels that find no slot in the maps come up, live
// and die as any other; XDP passes their packets as of SPIs that it does not
// know, and forgets nobody for them.
func TestMoreTunnelsThanSlots(t *testing.T) {
	t.Parallel()
	const all, capacity = 1500, 500
	w := newWorldOf(t, all, capacity)
	w.up(w.tunnels...)

	inMaps := map[uint32]bool{}
	w.set.Hot.Each(func(_, spi, _, _ uint32) { inMaps[spi] = true })
	untracked := slices.DeleteFunc(slices.Clone(w.tunnels), func(t *tunnel) bool { return inMaps[t.spi] })
	slots := maps.Entries(capacity)
	if len(inMaps) != slots || len(untracked) != all-slots || w.ledger.Untracked() != all-slots {
		t.Fatalf("%d SPIs are in the maps of %d, %d tunnels are not, %d are said to be none", len(inMaps), slots, len(untracked), w.ledger.Untracked())
	}
	st := &Status{State: Healthy, XDP: &XDP{}, Daemon: &Daemon{IKE: w.status(), Capacity: capacity, Untracked: w.ledger.Untracked()}}
	if p := w.slotProblem(st, bootTime()); !strings.HasPrefix(p, "476 tunnels are unknown to XDP") {
		t.Errorf("said is %q", p)
	}
	list, err := w.sas(context.Background())
	w.must(err)
	if n := len(slices.DeleteFunc(list.([]ike.SA), func(sa ike.SA) bool { return sa.Alarm != alarmUntracked })); n != all-slots {
		t.Errorf("%d of the tunnels are shown as %s", n, alarmUntracked)
	}

	// The program passes what it does not know, and their own ESP proves life.
	one, dead := untracked[0], untracked[1]
	stats, err := w.set.Stats.Read()
	w.must(err)
	before := stats.Of(bpf.ReasonESPUDPUnknown)
	verdict, err := w.pinnedProgram().Run(&ebpf.RunOptions{Data: one.frame(w.packet(one).Data...), DataOut: make([]byte, 2048)})
	w.must(err)
	stats, err = w.set.Stats.Read()
	w.must(err)
	if verdict != 2 || stats.Of(bpf.ReasonESPUDPUnknown) != before+1 {
		t.Errorf("verdict %d, %d counted, want a pass of an SPI that is not known", verdict, stats.Of(bpf.ReasonESPUDPUnknown)-before)
	}
	w.silence(dead)
	w.await("the silent one is asked", func() bool { return w.probes()[dead] > 0 })
	for _, t := range append(untracked[2:], one) {
		if n := w.probes()[t]; n > 0 {
			w.Errorf("%v was asked %d times though he talks", t, n)
		}
	}

	// Nobody has lost a slot, and who goes takes nothing along.
	w.set.Hot.Each(func(_, spi, _, _ uint32) { delete(inMaps, spi) })
	if len(inMaps) != 0 {
		t.Errorf("%d SPIs have lost their slot", len(inMaps))
	}
	if _, err := w.gateway.Terminate(context.Background(), one.identity); err != nil {
		t.Error(err)
	}
	w.await("it is gone from the account", func() bool { return w.ledger.Untracked() == all-slots-1 })
}
