package shard

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/mono"
	"github.com/ikepulse/ikepulse/ike/internal/policy"
	"github.com/ikepulse/ikepulse/ike/internal/sa"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// branch is a site of a company: its name is its identity.
type branch struct {
	*site
	name, addr string
}

// company makes sites that each call all the others, when start says so, and probe
// each other often.
func (w *world) company(start bool, unique policy.Unique, names ...string) (out []branch) {
	w.t.Helper()
	at := func(i int) string { return fmt.Sprintf("198.51.100.%d", 10+i) }
	for i, own := range names {
		var conns []*policy.Connection
		for k, peer := range names {
			if k == i {
				continue
			}
			c := mirror(w.t, peer, own+".example.org", peer+".example.org", at(k))[0]
			c.Unique, c.Start, c.DPD.Delay, c.DPD.MaxSuppress = unique, start, 2*time.Second, 10*time.Second
			c.Backoff = policy.Backoff{Timeout: time.Second, Base: 1.5, Tries: 4}
			conns = append(conns, c)
		}
		out = append(out, branch{w.site(at(i), 2, conns), own, at(i)})
	}
	return out
}

// wantOneEach wants each pair of sites to have one tunnel, and nobody to have been
// called dead.
func wantOneEach(t *testing.T, what string, sites []branch) {
	t.Helper()
	for _, s := range sites {
		if up := s.status().Up; up != len(sites)-1 {
			t.Errorf("%s: %s has %d tunnels up, want %d: %s", what, s.name, up, len(sites)-1, s.leftovers())
		}
		var conns []string
		for _, p := range s.peers() {
			conns = append(conns, p.Connection)
		}
		slices.Sort(conns)
		if len(slices.Compact(conns)) != len(sites)-1 {
			t.Errorf("%s: %s has %v", what, s.name, conns)
		}
		for _, ev := range s.held().events {
			if ev.Kind == sa.Closed && (ev.Reason == sa.PeerDead || ev.Reason == sa.Replaced) {
				t.Errorf("%s: %s ended an SA with %s: %v", what, s.name, ev.Peer, ev.Reason)
			}
		}
	}
}

// TestSitesThatBothStart: sites that are all to start come up together or one after
// the other, over a network that is good or bad. In the end each pair has one tunnel,
// and no living peer was called dead or replaced.
func TestSitesThatBothStart(t *testing.T) {
	for _, names := range [][]string{{"a", "b"}, {"a", "b", "c"}} {
		for seed := range uint64(24) {
			unique := policy.Unique(seed / 3 % 4)
			inBubble(t, func(w *world) {
				w.rng = mathrand.New(mathrand.NewPCG(seed, 1))
				if seed%3 == 1 {
					w.loss, w.dup, w.jitter = 0.02, 0.1, 300*time.Millisecond
				}
				var sites []branch
				if seed%3 == 2 { // each asked by hand, some milliseconds apart, again and again
					sites = w.company(false, unique, names...)
					for range 20 {
						for _, s := range sites {
							for _, c := range s.conf.Policy.Connections {
								time.AfterFunc(time.Duration(w.upTo(60))*time.Millisecond, func() {
									ctx, cancel := context.WithTimeout(context.Background(), time.Second)
									defer cancel()
									_ = s.group.Initiate(ctx, c.Name)
								})
							}
						}
						w.after(3 * time.Second)
					}
				} else {
					sites = w.company(true, unique, names...)
					w.after(time.Minute)
				}
				w.weather(func() { w.loss, w.dup, w.jitter = 0, 0, 0 })
				w.after(time.Minute)
				wantOneEach(t, fmt.Sprintf("%v, unique %d, seed %d", names, unique, seed), sites)
			})
		}
	}
}

// TestCallsAtRandomTimes: for a minute, whichever tunnel there is is ended at a random
// time by a random side, and called again by both.
func TestCallsAtRandomTimes(t *testing.T) {
	for seed := range uint64(6) {
		inBubble(t, func(w *world) {
			w.rng = mathrand.New(mathrand.NewPCG(seed, 2))
			sites := w.company(true, policy.Unique(seed%4), "a", "b", "c")
			for w.now() < bootTime.Add(time.Minute) {
				w.after(time.Duration(w.upTo(4000)) * time.Millisecond)
				s := sites[w.upTo(len(sites))]
				for _, p := range s.peers() { // as a peer's DELETE does
					if w.upTo(2) == 0 {
						spi := p.spi
						shard := s.group.shards[p.Shard]
						shard.post(func(now mono.Time) { shard.tell(now, spi, sa.Terminate{}) })
					}
				}
			}
			w.after(7 * time.Minute)
			wantOneEach(t, fmt.Sprintf("seed %d", seed), sites)
		})
	}
}

// TestCrossedCallIsUp: who asked for the call that is given up hears that there is a
// tunnel.
func TestCrossedCallIsUp(t *testing.T) {
	for _, unique := range []policy.Unique{policy.UniqueNo, policy.UniqueNever, policy.UniqueKeep, policy.UniqueReplace} {
		inBubble(t, func(w *world) {
			sites := w.company(false, unique, "a", "b")
			results := make(chan error, 2)
			for i, s := range sites {
				go func() { results <- s.group.Initiate(context.Background(), sites[1-i].name) }() // ends with its result
			}
			for range sites {
				if err := <-results; err != nil {
					t.Error(err)
				}
			}
			w.after(time.Minute)
			wantOneEach(t, "by hand", sites)
			if n := len(sites[0].begun()) + len(sites[1].begun()); n != 2 {
				t.Errorf("%d calls", n)
			}
			for i, s := range sites {
				if err := s.group.Initiate(context.Background(), sites[1-i].name); err != nil {
					t.Errorf("%s: %v, and the tunnel is up", s.name, err)
				}
			}
			if n := len(sites[0].begun()) + len(sites[1].begun()); n != 2 {
				t.Errorf("%d calls, although the tunnel was up", n)
			}
		})
	}
}

// TestContactIsTrue: a gateway is told INITIAL_CONTACT by a client that has nothing
// else, and not by one that it is calling, or whose tunnel is up.
func TestContactIsTrue(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 1, roadwarriors())
		client := w.site(clientAddr, 1, home("anna@example.org"))
		client.initiate()
		before := gateway.inSPI()
		client.vanish()
		client = w.site(clientAddr, 1, home("anna@example.org"))
		client.initiate()
		w.after(time.Second)
		if gateway.status().Up != 1 || gateway.inSPI() == before {
			t.Errorf("after a crash of the client: %+v", gateway.status().Up)
		}
	})
	inBubble(t, func(w *world) {
		sites := w.company(false, policy.UniqueNo, "a", "b")
		a, b := sites[0], sites[1]
		if err := a.group.Initiate(context.Background(), "b"); err != nil {
			t.Fatal(err)
		}
		w.after(time.Second)
		// What is up is not known to the one who calls: as if by another connection.
		d := b.group.owner(b.conf.Policy.Connections[0])
		d.post(func(now mono.Time) { d.dialers.dial(now, d.dialers.of(b.conf.Policy.Connections[0])) })
		w.after(time.Minute)
		wantOneEach(t, "called although it is up", sites)
	})
}

// auths are the lengths of the IKE_AUTH requests that a site has sent, each once.
// INITIAL_CONTACT takes 8 bytes.
func (s *site) auths() (lengths []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]bool{}
	for _, data := range s.sentIKE {
		h, err := wire.ParseHeader(data)
		if err == nil && h.Exchange == wire.IKEAuth && h.Flags&wire.FlagResponse == 0 && !seen[string(data)] {
			seen[string(data)] = true
			lengths = append(lengths, len(data))
		}
	}
	return lengths
}

// TestHalfOpenIsNotAlone: while the peer's own call is half-open nobody claims to have
// no other SA.
func TestHalfOpenIsNotAlone(t *testing.T) {
	for _, unique := range []policy.Unique{policy.UniqueNo, policy.UniqueNever, policy.UniqueKeep, policy.UniqueReplace} {
		inBubble(t, func(w *world) {
			sites := w.company(false, unique, "a", "b")
			a, b := sites[0], sites[1]
			// b's IKE_AUTH does not arrive until a has called, too.
			hold := true
			w.drop = func(p wire.Packet) bool {
				h, err := wire.ParseHeader(p.Data)
				return hold && err == nil && h.Exchange == wire.IKEAuth && h.Flags&wire.FlagResponse == 0 && p.Local.Addr() == netip.MustParseAddr(b.addr)
			}
			done := make(chan error, 2)
			go func() { done <- b.group.Initiate(context.Background(), "a") }() // ends with its result
			w.after(100 * time.Millisecond)
			go func() { done <- a.group.Initiate(context.Background(), "b") }() // ends with its result
			w.after(100 * time.Millisecond)
			w.weather(func() { hold = false })
			w.after(time.Minute)
			wantOneEach(t, "half-open", sites)
			for range sites {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			if of, alone := a.auths(), b.auths(); len(of) != 1 || len(alone) != 1 || of[0]+8 != alone[0] {
				t.Errorf("a sent %v, who was being called, and b %v, who was not", of, alone)
			}
		})
	}
}

// TestPeerCalledMeanwhile: our call does not get through, and the peer's has: then
// there is a tunnel, and no reason to call again or to say that there is none.
func TestPeerCalledMeanwhile(t *testing.T) {
	inBubble(t, func(w *world) {
		sites := w.company(false, policy.UniqueNo, "a", "b")
		a, b := sites[0], sites[1]
		w.drop = func(p wire.Packet) bool {
			h, err := wire.ParseHeader(p.Data)
			return err == nil && h.Exchange == wire.IKESAInit && h.Flags&wire.FlagResponse == 0 && p.Local.Addr() == netip.MustParseAddr(a.addr)
		}
		done := make(chan error, 1)
		go func() { done <- a.group.Initiate(context.Background(), "b") }() // ends with its result
		w.after(time.Second)
		if err := b.group.Initiate(context.Background(), "a"); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("the peer's tunnel is up, and a hears: %v", err)
		}
		w.after(time.Hour)
		wantOneEach(t, "called meanwhile", sites)
		if n := len(a.begun()); n != 1 {
			t.Errorf("a has called %d times", n)
		}
	})
}
