package gateway

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/ike"
	"github.com/ikepulse/ikepulse/maps"
	"github.com/ikepulse/ikepulse/test/require"
)

// many is as many tunnels as the claims below are made for.
const many = 1000

// withstood is what the child says once it has done without BPF calls.
const withstood = "withstood"

// TestTrafficCostsNoBPFCall: while the tunnels' own traffic proves life nobody
// is probed, and the process makes not one bpf system call: a filter would kill
// it, and does with the first call that it makes.
func TestTrafficCostsNoBPFCall(t *testing.T) {
	if os.Getenv(childRole) != "" {
		withoutBPF(t)
		return
	}
	require.Have(t, "root", "netns", "bpf", "tun")
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestTrafficCostsNoBPFCall$")
	cmd.Env = append(os.Environ(), childRole+"=filtered")
	out, err := cmd.CombinedOutput()
	said := strings.TrimSpace(string(out))
	if !strings.HasPrefix(said, withstood) {
		t.Fatalf("it did not do without: %v\n%s", err, said)
	}
	t.Log(said)
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != unix.SIGSYS {
		t.Errorf("the filter let a bpf system call pass: %v", err)
	}
}

// withoutBPF is the child. The recalibration of the maps' clock, once a minute
// whatever the tunnels do, is the one part of the daemon that is not running.
func withoutBPF(t *testing.T) {
	w := newWorld(t, many)
	w.up(w.tunnels...)
	w.await("a stamp for every SPI", func() bool { return len(w.stamped(0)) == many })
	before, began, tick := w.status(), time.Now(), w.set.Clock.TickAt(w.set.Clock.Now())
	if err := forbidEverywhere(unix.SYS_BPF); err != nil {
		giveUp("%v", err)
	}

	judged := uint64(0)
	for judged < 3*many || time.Since(began) < 3*delay {
		time.Sleep(often)
		now := w.status().Counters
		judged = now["probes_spared"] - before.Counters["probes_spared"]
		if n := now["probes_sent"]; n > 0 || time.Since(began) > limit {
			giveUp("%d probes, %d judgements in %v", n, judged, time.Since(began))
		}
	}
	if n := len(w.stamped(tick)); n != many {
		giveUp("%d of %d entries were stamped under the filter", n, many)
	}
	fmt.Printf("%s %v: %d judgements of %d SAs by their mapped entries, no probe, no bpf system call\n",
		withstood, time.Since(began).Round(time.Second), judged, many)

	// The first tunnel that ends changes a map, on its shard's own thread.
	if _, err := w.gateway.Terminate(context.Background(), w.tunnels[0].identity); err != nil {
		giveUp("%v", err)
	}
	time.Sleep(limit)
	giveUp("it lives on")
}

// giveUp ends the child at once: an orderly end would make bpf system calls.
func giveUp(format string, args ...any) {
	fmt.Printf(format+"\n", args...)
	os.Exit(1)
}

// stamped are the SPIs that were authenticated after a tick.
func (w *world) stamped(after uint32) (spis []uint32) {
	w.set.Hot.Each(func(_, spi, _, auth uint32) {
		if auth > after {
			spis = append(spis, spi)
		}
	})
	return spis
}

// TestEntryDecides: what stands in an SPI's entry, whoever wrote it there, is
// what the gateway decides by.
func TestEntryDecides(t *testing.T) {
	t.Parallel()
	w := newWorld(t, many)
	last := many - 1
	w.up(w.tunnels[:last]...)
	time.Sleep(delay / 8) // so that the last one is judged some time after one that was there before
	w.up(w.tunnels[last:]...)
	hot := w.pinnedMap(bpf.MapHot)
	if n := w.status().Counters["probes_sent"]; n != 0 {
		t.Fatalf("%d were probed though all of them talk", n)
	}

	// Two fall silent, one a tick before the other; then that other one's entry
	// is made to look as if it had been silent for long. So it is asked at its
	// next judgement, and the first one only when its silence has lasted.
	target, control := w.tunnels[last], w.judgedBefore(w.tunnels[last])
	w.silence(control)
	time.Sleep(w.set.Clock.Tick() + often/2)
	w.silence(target)
	time.Sleep(often / 4) // for what is on its way
	w.heard(hot, target, 3*delay)
	w.await("both are probed", func() bool { return len(w.probes()) >= 2 })
	w.speak(target, control)
	w.mu.Lock()
	if !slices.Equal(w.asked, []*tunnel{target, control}) {
		t.Errorf("probed were %v, in this order, want %v and then %v", w.asked, target, control)
	}
	w.mu.Unlock()

	// All fall silent; one's entry is kept young. It is the only one that is
	// not asked.
	kept := w.tunnels[many/2]
	w.regularly(func() { w.heard(hot, kept, 0) })
	w.silence(w.tunnels...)
	before := w.probes()
	w.await("all but one are probed twice", func() bool {
		now := w.probes()
		return !slices.ContainsFunc(w.tunnels, func(t *tunnel) bool { return t != kept && now[t] < before[t]+2 })
	})
	if n := w.probes()[kept] - before[kept]; n != 0 {
		t.Errorf("%v was probed %d times against what its entry says", kept, n)
	}
}

// judgedBefore waits for a moment at which a tunnel's next judgement is neither
// near nor a delay away, and finds a tunnel of the same shard that is judged
// before it.
func (w *world) judgedBefore(t *tunnel) (other *tunnel) {
	w.Helper()
	const percent = int64(delay/time.Millisecond) / 100
	w.await("a moment between two judgements", func() bool {
		peers, err := w.gateway.Peers(context.Background())
		w.must(err)
		own := slices.IndexFunc(peers, func(p ike.Peer) bool { return p.Identity == t.identity })
		next := *peers[own].NextMS
		if next < 55*percent || next > 70*percent {
			return false
		}
		i := slices.IndexFunc(peers, func(p ike.Peer) bool {
			return p.Shard == peers[own].Shard && *p.NextMS < next-10*percent
		})
		if i < 0 {
			return false
		}
		other = w.byAddr[peers[i].Remote.Addr()]
		return true
	})
	return other
}

// TestNoProof: neither packets that XDP has seen and nobody has opened nor NAT
// keepalives put a probe off.
func TestNoProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t, many)
	w.up(w.tunnels...)
	hinted, keeper := w.tunnels[many/3], w.tunnels[2*many/3]
	xdp := w.pinnedProgram()
	w.silence(w.tunnels...)
	stop := w.regularly(func() {
		for _, frame := range [][]byte{hinted.frame(hinted.forgery()...), keeper.frame(0xff)} {
			if _, err := xdp.Run(&ebpf.RunOptions{Data: frame, DataOut: make([]byte, 256)}); err != nil {
				w.Error(err)
			}
		}
		// And what a socket without XDP before it might let through.
		w.gateway.Deliver(nil, []ike.Packet{{Local: keeper.tuple.Local, Remote: keeper.tuple.Peer, NATT: true, Data: []byte{0xff}}})
	})
	w.await("everybody else is probed twice", func() bool {
		now := w.probes()
		return !slices.ContainsFunc(w.tunnels, func(t *tunnel) bool { return t != hinted && t != keeper && now[t] < 2 })
	})
	stop()
	for _, x := range []*tunnel{hinted, keeper} {
		if n := w.probes()[x]; n == 0 {
			t.Errorf("%v was not probed", x)
		}
	}

	// It has all arrived, and none of it as more than it is.
	stats, err := w.set.Stats.Read()
	w.must(err)
	peer, _, err := w.set.Peers.Get(keeper.tuple)
	w.must(err)
	answered, limited := stats.Of(bpf.ReasonKeepaliveAnswered), stats.Of(bpf.ReasonKeepaliveLimited)
	if n := stats.Of(bpf.ReasonESPUDPKnown); n < 10 || peer.Keepalives != n || answered+limited != n {
		t.Errorf("%d packets were seen, %d keepalives answered, %d not; %+v", n, answered, limited, peer)
	}
	now := w.set.Clock.Now()
	if seen, auth := w.set.Evidence(hinted.spi); now-seen > int64(delay) || now-auth < int64(delay) {
		t.Errorf("%v was seen %v ago, authenticated %v ago", hinted, time.Duration(now-seen), time.Duration(now-auth))
	}
	if seen, auth := w.set.Evidence(keeper.spi); seen != 0 || now-auth < int64(delay) {
		t.Errorf("%v was seen at %v, authenticated %v ago", keeper, seen, time.Duration(now-auth))
	}
}

// TestOneEntry: user-space ESP stamps the entry that XDP stamps and the gateway
// reads, once it is authentic and no replay, and nobody else's.
func TestOneEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	w.up(w.tunnels...)
	w.silence(w.tunnels...)
	time.Sleep(often / 4) // for what is on its way
	one := w.tunnels[1]
	hot := w.pinnedMap(bpf.MapHot)
	everybody, err := maps.OpenPinned(w.xdp.Dir())
	w.must(err)
	defer everybody.Close()

	for _, x := range w.tunnels {
		w.neverHeard(hot, x)
	}
	good, forged := w.packet(one), w.packet(one)
	forged.Data[len(forged.Data)-1] ^= 1
	for _, c := range []struct {
		name   string
		packet ike.Packet
		proof  bool
	}{
		{"forged", forged, false},
		{"good", good, true},
		{"the same again", good, false},
		{"good again", w.packet(one), true},
	} {
		w.neverHeard(hot, one)
		from := w.set.Clock.Now()
		w.arrives(c.packet)
		e := w.entry(hot, one)
		_, auth := everybody.Evidence(one.spi)
		if e.Auth != 0 != c.proof || auth != 0 != c.proof || e.Spi != one.spi || e.Seen != 0 {
			t.Errorf("%s: %+v in the map, %d in the view", c.name, e, auth)
		}
		if c.proof && (auth < from || auth > everybody.Clock.Now()) {
			t.Errorf("%s: stamped %v after it was sent", c.name, time.Duration(auth-from))
		}
	}
	for _, x := range []*tunnel{w.tunnels[0], w.tunnels[2]} {
		if e := w.entry(hot, x); e.Auth != 0 || e.Seen != 0 {
			t.Errorf("the entry of %v has %+v", x, e)
		}
	}
}

// arrives waits until the data plane has done with a packet.
func (w *world) arrives(p ike.Packet) {
	w.Helper()
	before := w.plane.Counters()
	w.gateway.Deliver(nil, []ike.Packet{p})
	w.await("it is opened or refused", func() bool { return w.plane.Counters() != before })
}

// entry is what the kernel has for a tunnel's SPI: it is asked through the file
// system, as bpftool does it.
func (w *world) entry(hot *ebpf.Map, t *tunnel) (e bpf.HotEntry) {
	if err := hot.Lookup(maps.SlotOf(t.spi), &e); err != nil || e.Spi != t.spi {
		w.Errorf("the entry of %v: %+v, %v", t, e, err)
	}
	return e
}

// put writes when a tunnel's last authenticated packet came.
func (w *world) put(hot *ebpf.Map, t *tunnel, tick uint32) {
	e := w.entry(hot, t)
	e.Auth = tick
	if err := hot.Put(maps.SlotOf(t.spi), e); err != nil {
		w.Error(err)
	}
}

func (w *world) heard(hot *ebpf.Map, t *tunnel, ago time.Duration) {
	w.put(hot, t, w.set.Clock.TickAt(w.set.Clock.Now()-int64(ago)))
}

func (w *world) neverHeard(hot *ebpf.Map, t *tunnel) { w.put(hot, t, 0) }
