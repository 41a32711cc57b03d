package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/ebpf"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/maps"
)

// plainLog logs without the time.
func plainLog(to *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// TestTakeEvents: a drift goes to the IKE side, a stranger is counted, and what
// is older than the daemon is neither.
func TestTakeEvents(t *testing.T) {
	var log bytes.Buffer
	var drifts []string
	e := &events{since: 1000, log: plainLog(&log), drifted: func(spi uint32, from netip.AddrPort) {
		drifts = append(drifts, fmt.Sprintf("%08x %v", spi, from))
	}}
	to := netip.AddrPortFrom(gatewayAddr, nattPort)
	from := func(port uint16) maps.Tuple {
		return maps.Tuple{Local: to, Peer: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), port)}
	}
	now := time.Now()
	for _, ev := range []maps.Event{
		{SPI: 1, At: 999, From: from(1)}, {SPI: 2, At: 1000, From: from(2)}, {SPI: 0xfedcba98, At: 2000, From: from(3)},
		{At: 999, From: from(4)}, {At: 1000, From: from(5)},
	} {
		e.take(ev, now)
	}
	if want := []string{"00000002 203.0.113.9:2", "fedcba98 203.0.113.9:3"}; !slices.Equal(drifts, want) {
		t.Errorf("drifts %q, want %q", drifts, want)
	}
	if got, want := *e.count(), (Events{Drift: 2, Stranger: 1, Old: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if want := "level=INFO msg=\"a keepalive came from the address of no tunnel\" from=203.0.113.9:5 to=198.51.100.1:4500\n"; log.String() != want {
		t.Errorf("logged %s", &log)
	}
}

// TestStrangersInTheLog: however many there are, a few lines a minute.
func TestStrangersInTheLog(t *testing.T) {
	var log bytes.Buffer
	e := &events{log: plainLog(&log)}
	now := time.Now()
	lines := func() (n int) {
		n = bytes.Count(log.Bytes(), []byte("\n"))
		log.Reset()
		return n
	}
	for range 600 { // ten in a second
		e.take(maps.Event{}, now)
		now = now.Add(strangerSpan / 600)
	}
	if n := lines(); n != strangerLines {
		t.Errorf("%d lines in the first minute", n)
	}
	e.take(maps.Event{}, now)
	if got := log.String(); !bytes.HasPrefix(log.Bytes(), []byte("level=INFO msg=\"more keepalives came from addresses of no tunnel\" not_logged=597\n")) || lines() != 2 {
		t.Errorf("then %s", got)
	}
	e.take(maps.Event{}, now.Add(time.Hour))
	if n := lines(); n != 1 {
		t.Errorf("%d lines for one stranger after an hour", n)
	}
	if n := e.count().Stranger; n != 602 {
		t.Errorf("%d counted", n)
	}
}

// TestTellGrowth: a loss is told once a minute at most, and at the end.
func TestTellGrowth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+30*time.Second)
		defer cancel()
		began := time.Now()
		var told []string
		tellGrowth(ctx, func() (uint64, error) {
			switch m := time.Since(began); {
			case m < 90*time.Second:
				return 100, nil // before the start
			case m < 3*time.Minute:
				return 107, nil
			case m < 4*time.Minute:
				return 0, errors.New("unreadable")
			case m < 5*time.Minute+time.Second:
				return 120, nil
			default:
				return 121, nil
			}
		}, func(n uint64) { told = append(told, fmt.Sprint(time.Since(began), " ", n)) })
		if want := []string{"2m0s 7", "4m0s 13", "5m30s 1"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

// TestForgedDrift: packets with a known SPI from elsewhere have that peer asked
// once, though they go on coming and XDP goes on telling, and raise an alarm.
func TestForgedDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	w.up(w.tunnels...)
	one := w.tunnels[1]
	forger := *one
	forger.tuple.Peer = netip.MustParseAddrPort("203.0.113.9:4500")
	xdp := w.pinnedProgram()
	w.regularly(func() {
		if _, err := xdp.Run(&ebpf.RunOptions{Data: forger.frame(forger.forgery()...)}); err != nil {
			w.Error(err)
		}
	})
	const told = 2
	w.await("XDP tells of it, and again", func() bool { return w.status().Counters["drifts"] >= told })
	if c := w.status().Counters; c["probes_drift"] != 1 || c["drifts_unknown_spi"] != 0 {
		t.Errorf("%v", c)
	}
	if n := w.probes(); n[one] == 0 || n[w.tunnels[0]]+n[w.tunnels[2]] != 0 || len(n) != 1 {
		t.Errorf("probed were %v", n)
	}
	stats, err := w.set.Stats.Read()
	w.must(err)
	if got := w.events.count(); got.Drift < told || got.Drift > stats.Events || got.Stranger+got.Old != 0 || stats.EventsLost != 0 {
		t.Errorf("%+v of %d events, %d lost", got, stats.Events, stats.EventsLost)
	}

	// The alarm is that tunnel's, also for those who have but the pins.
	spi := fmt.Sprintf("%08x", one.spi)
	list, err := w.sas(context.Background())
	w.must(err)
	for _, s := range list.([]ike.SA) {
		if (s.Alarm == alarmMoved) != (s.InSPI == spi) {
			t.Errorf("%s: alarm %q", s.Identity, s.Alarm)
		}
	}
	everybody, err := maps.OpenPinned(w.xdp.Dir())
	w.must(err)
	defer everybody.Close()
	pinned, err := TrackedSAs(everybody)
	w.must(err)
	for _, s := range pinned {
		if (s.Alarm == alarmMoved) != (s.InSPI == spi) || s.Remote == forger.tuple.Peer {
			t.Errorf("by the pins: %+v", s)
		}
	}
	if len(pinned) != 3 || stats.Of(bpf.ReasonESPUDPMoved) < told {
		t.Errorf("%d SPIs by the pins, %d packets from elsewhere", len(pinned), stats.Of(bpf.ReasonESPUDPMoved))
	}
}

// TestMovedLately: the alarm is over a minute after the last such packet.
func TestMovedLately(t *testing.T) {
	memory, err := maps.NewMemory(1)
	if err != nil {
		t.Fatal(err)
	}
	clock := memory.Clock
	now := clock.Now()
	for ago, want := range map[time.Duration]bool{0: true, movedFor - 2*clock.Tick(): true, movedFor + 2*clock.Tick(): false, time.Hour: false} {
		if got := movedLately(clock, maps.SA{MovedTick: clock.TickAt(now - int64(ago))}, now); got != want {
			t.Errorf("%v ago: %v", ago, got)
		}
	}
	if movedLately(clock, maps.SA{}, now) {
		t.Error("one that never moved has moved")
	}
}
