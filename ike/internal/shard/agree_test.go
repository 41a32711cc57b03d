package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// ranks are those of the jobs that wait, in the order in which they are done.
func (w *workers) ranks() (got []rank) {
	for jobs, _ := w.backlog(0); jobs > 0; jobs-- {
		j, _ := w.next()
		got = append(got, j.rank)
	}
	return got
}

func atBoot() mono.Time { return 0 }

// Whom we call comes first, then whoever has shown a cookie; and what has shown
// none makes room for what has, and for nobody else.
func TestJobsByRank(t *testing.T) {
	w := newWorkers(4*jobBytes, nil, atBoot)
	offer := func(r rank, want bool, wantShed int) {
		t.Helper()
		ok, shed := w.offer(&job{rank: r, size: jobBytes})
		if ok != want || len(shed) != wantShed {
			t.Errorf("rank %d: %v, %d shed, want %v and %d", r, ok, len(shed), want, wantShed)
		}
	}
	offer(rankUnproven, true, 0)
	offer(rankUnproven, true, 0)
	offer(rankProven, true, 0)
	offer(rankOurs, true, 0)
	if got := w.ranks(); !slices.Equal(got, []rank{rankOurs, rankProven, rankUnproven, rankUnproven}) {
		t.Errorf("done in the order %v", got)
	}
	for range 4 {
		offer(rankUnproven, true, 0)
	}
	offer(rankUnproven, false, 0)
	offer(rankProven, true, 1)
	offer(rankOurs, true, 1)
	offer(rankProven, true, 1)
	offer(rankProven, true, 1)
	offer(rankProven, false, 0)
	offer(rankOurs, false, 0)
	if got := w.ranks(); !slices.Equal(got, []rank{rankOurs, rankProven, rankProven, rankProven}) || w.bytes != 0 {
		t.Errorf("done in the order %v; %d bytes are left", got, w.bytes)
	}
	// A large one takes the room of several small ones.
	for range 4 {
		offer(rankUnproven, true, 0)
	}
	if ok, shed := w.offer(&job{rank: rankProven, size: 3 * jobBytes}); !ok || len(shed) != 3 {
		t.Errorf("a large job: %v, %d shed", ok, len(shed))
	}
}

// A job whose client shows his cookie comes before those without, once; one whose
// SA is gone is nobody's.
func TestJobsArePromoted(t *testing.T) {
	w := newWorkers(10*jobBytes, nil, atBoot)
	var jobs []*job
	for range 4 {
		j := &job{rank: rankUnproven, size: jobBytes}
		jobs = append(jobs, j)
		w.offer(j)
	}
	old := jobs[2]
	jobs[2] = w.promote(jobs[2])
	jobs[2] = w.promote(jobs[2])
	w.promote(old)
	w.cancel(old)
	w.cancel(jobs[0])
	w.cancel(jobs[0])
	if n, _ := w.backlog(0); n != 3 || w.bytes != 3*jobBytes {
		t.Errorf("%d wait with %d bytes", n, w.bytes)
	}
	for _, want := range []int{2, 1, 3} {
		if j, late := w.next(); j != jobs[want] || late {
			t.Errorf("the next is not job %d, or late", want)
		}
	}
	w.promote(jobs[1]) // it is being done
	w.cancel(jobs[1])
	if n, oldest := w.backlog(0); n != 0 || oldest != 0 || w.bytes != 0 || w.unproven != 0 {
		t.Errorf("at the end %d wait for %v with %d bytes", n, oldest, w.bytes)
	}
}

// Nothing is shed for a job that finds no room all the same.
func TestNothingIsShedInVain(t *testing.T) {
	w := newWorkers(10, nil, atBoot)
	for _, r := range []rank{rankProven, rankUnproven} {
		w.offer(&job{rank: r, size: 5})
	}
	if ok, shed := w.offer(&job{rank: rankProven, size: 6}); ok || len(shed) != 0 {
		t.Errorf("%v, %d shed", ok, len(shed))
	}
	if ok, shed := w.offer(&job{rank: rankProven, size: 5}); !ok || len(shed) != 1 || w.bytes != 10 || w.unproven != 0 {
		t.Errorf("%v, %d shed, %d bytes, %d unproven", ok, len(shed), w.bytes, w.unproven)
	}
}

// What is too late goes first, so that it waits for nobody; we are patient.
func TestLateJobs(t *testing.T) {
	now := mono.Time(time.Hour)
	w := newWorkers(10*jobBytes, nil, func() mono.Time { return now })
	old := now.Add(-patience - 1)
	for _, j := range []job{{rank: rankOurs, since: old}, {rank: rankProven, since: now.Add(-patience)}, {rank: rankUnproven, since: old}} {
		w.offer(&j)
	}
	for _, want := range []struct {
		rank rank
		late bool
	}{{rankUnproven, true}, {rankOurs, false}, {rankProven, false}} {
		if j, late := w.next(); j.rank != want.rank || late != want.late {
			t.Errorf("rank %d, late %v, want %v", j.rank, late, want)
		}
	}
}

// What waits is known, with how long.
func TestBacklog(t *testing.T) {
	w := newWorkers(100*jobBytes, nil, atBoot)
	if n, oldest := w.backlog(5); n != 0 || oldest != 0 {
		t.Errorf("nothing waits, but %d for %v", n, oldest)
	}
	w.offer(&job{rank: rankUnproven, since: 10})
	w.offer(&job{rank: rankProven, since: 20})
	if n, oldest := w.backlog(25); n != 2 || oldest != 15 {
		t.Errorf("%d wait for %v", n, oldest)
	}
	w.next()
	w.next()
	if n, oldest := w.backlog(25); n != 0 || oldest != 0 {
		t.Errorf("afterwards %d for %v", n, oldest)
	}
}

// A panic is the refusal of the value, and is counted.
func TestKeyExchangePanics(t *testing.T) {
	w := newWorkers(jobBytes, nil, atBoot) // no random source
	if a := w.agree(sa.Agree{Group: wire.KEX25519}); a.Err == nil || w.panics.Load() != 1 {
		t.Errorf("%v, %d panics", a.Err, w.panics.Load())
	}
}

// slowly is a random source that takes its time, as a key exchange does.
type slowly struct {
	io.Reader
	time.Duration
}

func (s slowly) Read(b []byte) (int, error) {
	time.Sleep(s.Duration)
	return s.Reader.Read(b)
}

// A key exchange that would be answered too late is not computed, and its SA
// goes; those in time are answered, and the loop is late for nobody.
func TestTooLate(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 1, roadwarriors(), func(c *Config) { c.Workers = 1 })
		gateway.group.workers.rand = slowly{gateway.conf.Rand, time.Second}
		for i := range uint64(40) {
			gateway.group.DeliverIKE(packetsTo(gateway, fmt.Sprintf("203.0.113.%d:500", 10+i), initRequest(t, i+1)))
		}
		w.after(50 * time.Second)
		st := gateway.status()
		// The last that is computed had waited for 20 s when it began.
		if got := st.Counters["ike_sent"]; got != 21 || st.Counters["shed_late"] != 19 {
			t.Errorf("%d answered, %d shed as too late", got, st.Counters["shed_late"])
		}
		if st.LagMaxUS[0] > 1000 {
			t.Errorf("the loop was late by %d µs", st.LagMaxUS[0])
		}
		if st.Counters["cookies_demanded"] != 0 {
			t.Errorf("%d cookies were demanded of those who came before there was anything to do", st.Counters["cookies_demanded"])
		}
		w.after(time.Minute)
		gateway.wantOrderly()
	})
}

// Work that waits is a reason to ask for cookies, and whoever shows one comes
// before those who came without.
func TestBacklogDemandsCookies(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 2, roadwarriors(), func(c *Config) { c.Workers = 1 })
		gateway.group.workers.rand = slowly{gateway.conf.Rand, 200 * time.Millisecond}
		from := func(n int) string { return fmt.Sprintf("203.0.113.%d:500", n) }
		for i := range 20 {
			gateway.group.DeliverIKE(packetsTo(gateway, from(10+i), initRequest(t, uint64(i+1))))
			w.after(10 * time.Millisecond)
		}
		w.after(200 * time.Millisecond)
		gateway.group.DeliverIKE(packetsTo(gateway, from(100), initRequest(t, 100))) // finds that all wait
		w.after(10 * time.Millisecond)
		gateway.group.DeliverIKE(packetsTo(gateway, from(101), initRequest(t, 101)))
		w.after(10 * time.Millisecond)
		st := gateway.status()
		if st.Counters["cookies_demanded"] != 1 || !st.Handshakes.Cookies || st.Handshakes.Waiting < 15 || st.Handshakes.WaitingMS < 250 {
			t.Errorf("%d cookies demanded; %+v", st.Counters["cookies_demanded"], st.Handshakes)
		}
		before := st.Handshakes.Waiting
		began := time.Now()
		w.site(clientAddr, 1, home("anna@example.org")).initiate()
		if waited := time.Since(began); waited > time.Second || gateway.status().Handshakes.Waiting < before-6 {
			t.Errorf("with a cookie: up after %v, and %d still wait", waited, gateway.status().Handshakes.Waiting)
		}
	})
}

// Who waits without a cookie and shows it when he is asked comes before those
// who do not; and the job of an SA that is gone is nobody's.
func TestCookieBringsForward(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 1, roadwarriors(), func(c *Config) { c.Workers, c.HalfOpen = 1, 10*time.Second })
		gateway.group.workers.rand = slowly{gateway.conf.Rand, time.Second}
		from := func(n int) string { return fmt.Sprintf("203.0.113.%d:500", n) }
		for i := range 40 {
			gateway.group.DeliverIKE(packetsTo(gateway, from(10+i), initRequest(t, uint64(i+1))))
		}
		mine := initRequest(t, 100)
		gateway.group.DeliverIKE(packetsTo(gateway, from(100), mine))
		w.after(1500 * time.Millisecond)
		gateway.group.gate.press(w.now())
		before := gateway.held().sent
		gateway.group.DeliverIKE(packetsTo(gateway, from(100), mine))
		if gateway.held().sent == before || gateway.status().Counters["cookies_demanded"] != 1 {
			t.Error("he is not asked for a cookie")
		}
		answered := 0
		w.tap = func(p wire.Packet) {
			if p.Remote.String() == from(100) {
				answered++
			}
		}
		gateway.group.DeliverIKE(packetsTo(gateway, from(100), gateway.withCookie(mine, from(100))))
		w.after(2 * time.Second)
		if answered != 1 {
			t.Errorf("two seconds later he has %d answers", answered)
		}
		// The SAs of the others have run out of time; nothing waits for them.
		w.after(9 * time.Second)
		if st := gateway.status(); st.Connecting != 0 || st.Handshakes.Waiting != 0 {
			t.Errorf("%d connecting, %d still wait", st.Connecting, st.Handshakes.Waiting)
		}
	})
}

// Our own calls wait as long as it takes.
func TestOwnKeyExchangeIsNeverTooLate(t *testing.T) {
	inBubble(t, func(w *world) {
		w.site(gatewayAddr, 1, roadwarriors())
		client := w.site(clientAddr, 1, home("anna@example.org"), func(c *Config) { c.Workers = 1 })
		client.group.workers.rand = slowly{client.conf.Rand, patience + time.Second}
		ahead := make(chan struct{})
		client.group.workers.offer(&job{shard: client.group.shards[0], step: sa.Agree{Group: wire.KEX25519}, since: w.now()})
		go func() { // ends with the handshake
			_ = client.group.Initiate(context.Background(), "home")
			close(ahead)
		}()
		<-ahead
		if st := client.status(); st.Up != 1 || st.Counters["shed_late"] != 0 {
			t.Errorf("%d up, %d shed", st.Up, st.Counters["shed_late"])
		}
	})
}

// A value that is none is refused before a key pair is made for it.
func TestBadValueCostsNothing(t *testing.T) {
	unread := iotest.ErrReader(errors.New("randomness was read"))
	w := newWorkers(jobBytes, unread, nil)
	for _, group := range []uint16{wire.KEX25519, wire.KEECP256, wire.KEMODP4096} {
		if a := w.agree(sa.Agree{Group: group, Peer: make([]byte, 7)}); a.Err == nil || strings.Contains(a.Err.Error(), "randomness") {
			t.Errorf("group %d: %v", group, a.Err)
		}
	}
}

// The lag is that of moments: one wait of a second among a thousand short ones
// is not hidden by them.
func TestLagOfMoments(t *testing.T) {
	var l lag
	now := mono.Time(time.Hour)
	add := func(n int, d time.Duration) {
		for range n {
			now = now.Add(d)
			l.add(now, d)
		}
	}
	add(1000, time.Millisecond)
	if p := l.p99(now); p < time.Millisecond || p > 1300*time.Microsecond {
		t.Errorf("of a thousand short waits: %v", p)
	}
	add(1, time.Second) // half of the time
	if p := l.p99(now); p < time.Second || p > 1300*time.Millisecond {
		t.Errorf("with a long one: %v", p)
	}
	add(40000, time.Millisecond)
	add(40000, time.Millisecond)
	if p := l.p99(now); p > 1300*time.Microsecond || l.max != time.Second {
		t.Errorf("a minute later: %v, and %v ever", p, l.max)
	}
	if p := l.p99(now.Add(time.Hour)); p != 0 {
		t.Errorf("an hour later: %v", p)
	}
	for _, d := range []time.Duration{0, 1, 3, 4, 5, 7, 8, 1000, 1023, 1024, time.Hour, 1<<62 + 12345} {
		if edge := lagEdge(lagBucket(d)); edge < d || edge > d+d/4 {
			t.Errorf("%d counts as %d", d, edge)
		}
	}
}
