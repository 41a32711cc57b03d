package shard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
)

const peerName = "vpn.example.net"

// directoryService answers for names. What it does not know is no such host, and
// one that is held is not answered.
type directoryService struct {
	mu    sync.Mutex
	known map[string][]netip.Addr
	held  map[string]chan struct{}
	asked map[string]int
}

func newDirectoryService() *directoryService {
	return &directoryService{known: map[string][]netip.Addr{}, held: map[string]chan struct{}{}, asked: map[string]int{}}
}

func (d *directoryService) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	d.mu.Lock()
	d.asked[name]++
	wait := d.held[name]
	d.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, errors.New("timeout")
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.known[name]) == 0 {
		return nil, errors.New("no such host")
	}
	return d.known[name], nil
}

func (d *directoryService) say(name string, addresses ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[name] = nil
	for _, a := range addresses {
		d.known[name] = append(d.known[name], netip.MustParseAddr(a))
	}
}

// hold keeps the answers for a name back, until it is called.
func (d *directoryService) hold(name string) (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := make(chan struct{})
	d.held[name] = wait
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.held, name)
		close(wait)
	}
}

func (d *directoryService) times(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[name]
}

func (d *directoryService) use(c *Config) { c.Edges.Resolve = d.resolve }

// startedByName is a connection that is to be up, whose peer has a name.
func startedByName() []*policy.Connection {
	conns := started()
	conns[0].Hosts, conns[0].Pins = []policy.Host{{Name: peerName}}, nil
	return conns
}

// TestNameIsResolvedAtEachCall: when the peer has died and its name has another
// address, that is called.
func TestNameIsResolvedAtEachCall(t *testing.T) {
	inBubble(t, func(w *world) {
		const second = "198.51.100.2"
		names := newDirectoryService()
		names.say(peerName, gatewayAddr)
		first, other := w.site(gatewayAddr, 1, roadwarriors()), w.site(second, 1, roadwarriors())
		client := w.site(clientAddr, 2, startedByName(), names.use)
		w.after(2 * time.Minute)
		if n := names.times(peerName); first.status().Up != 1 || n != 1 {
			t.Fatalf("%d up at the first, after %d lookups", first.status().Up, n)
		}
		first.vanish()
		names.say(peerName, second)
		w.after(idle.Delay + policy.DefaultBackoff.Total() + 2*firstPause)
		if n := names.times(peerName); client.status().Up != 1 || other.status().Up != 1 || n != 2 {
			t.Errorf("%d up, %d at the second, after %d lookups", client.status().Up, other.status().Up, n)
		}
	})
}

// TestAnswersTakeTurns: of several addresses the next is called when one does not
// answer, although each lookup has them in another order.
func TestAnswersTakeTurns(t *testing.T) {
	inBubble(t, func(w *world) {
		order := []string{"198.51.100.8", gatewayAddr, "198.51.100.9"}
		names := newDirectoryService()
		names.say(peerName, order...)
		gateway := w.site(gatewayAddr, 1, roadwarriors())
		client := w.site(clientAddr, 1, startedByName(), names.use)
		for range 3 {
			w.after(policy.DefaultBackoff.Total() - time.Minute)
			slices.Reverse(order)
			names.say(peerName, order...)
			w.after(time.Minute + 2*firstPause)
		}
		if gateway.status().Up != 1 {
			t.Errorf("%d up after %d calls", gateway.status().Up, len(client.begun()))
		}
	})
}

func TestPick(t *testing.T) {
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}) }
	var d dialer
	for i, c := range []struct {
		to   []netip.Addr
		want netip.Addr
	}{
		{[]netip.Addr{at(1), at(2)}, at(1)},
		{[]netip.Addr{at(2), at(1)}, at(2)},
		{[]netip.Addr{at(1), at(2)}, at(1)}, // all have had their turn
		{[]netip.Addr{at(3)}, at(3)},
		{[]netip.Addr{at(3)}, at(3)},
		{[]netip.Addr{at(1), at(3)}, at(1)},
	} {
		if got := d.pick(c.to); got != c.want {
			t.Errorf("call %d of %v: %v, want %v", i+1, c.to, got, c.want)
		}
		d.miss()
		if len(d.tried) > len(c.to) {
			t.Errorf("call %d: %v are kept", i+1, d.tried)
		}
	}
}

// TestCannotResolve: a name without an answer is told, asked for after growing
// pauses, and called when it has one.
func TestCannotResolve(t *testing.T) {
	inBubble(t, func(w *world) {
		names := newDirectoryService()
		gateway := w.site(gatewayAddr, 1, roadwarriors())
		client := w.site(clientAddr, 1, startedByName(), names.use)
		const want = "cannot resolve " + peerName + ": no such host"
		if err := client.group.Initiate(context.Background(), "home"); err == nil || err.Error() != want {
			t.Errorf("%v", err)
		}
		w.after(time.Minute)
		if st := client.status(); len(st.Down) != 1 || st.Down[0].Why != want || st.Down[0].CallInMS == nil {
			t.Errorf("%+v", st.Down)
		}
		w.after(time.Hour)
		if n := names.times(peerName); n < 10 || n > 25 {
			t.Errorf("asked %d times in an hour", n)
		}
		names.say(peerName, gatewayAddr)
		w.after(lastPause + time.Second)
		if gateway.status().Up != 1 || client.status().DownTotal != 0 {
			t.Errorf("%d up, %+v", gateway.status().Up, client.status().Down)
		}
	})
}

// TestNameBesideAddress: an address is called although a name beside it has none.
func TestNameBesideAddress(t *testing.T) {
	inBubble(t, func(w *world) {
		gateway := w.site(gatewayAddr, 1, roadwarriors())
		conns := startedByName()
		conns[0].Hosts = append(conns[0].Hosts, policy.Host{Addr: netip.MustParseAddr(gatewayAddr)})
		w.site(clientAddr, 1, conns, newDirectoryService().use)
		w.after(time.Minute)
		if gateway.status().Up != 1 {
			t.Errorf("%d up", gateway.status().Up)
		}
	})
}

// TestHungResolver: as many names as are resolved at once have no answer. A peer
// with an address is called meanwhile, one with another name after a time, status
// answers, and the end does not wait.
func TestHungResolver(t *testing.T) {
	inBubble(t, func(w *world) {
		names := newDirectoryService()
		gateway := w.site(gatewayAddr, 1, roadwarriors())
		var conns []*policy.Connection
		for i := range mostLookups {
			name := fmt.Sprintf("hung%d.example.net", i)
			names.hold(name)
			hung := startedByName()
			hung[0].Name, hung[0].Hosts[0].Name = name, name
			conns = append(conns, hung...)
		}
		names.say(peerName, gatewayAddr)
		conns = append(conns, startedByName()...)
		other := started()
		other[0].Name, other[0].LocalID = "other", identity("bert@example.org")
		client := w.site(clientAddr, 1, append(conns, other...), names.use) // one shard, which begins in this order
		w.after(lookupTime / 2)
		if up := gateway.status().Up; up != 1 {
			t.Errorf("%d up, want the one with an address", up)
		}
		w.after(lookupTime)
		if up := gateway.status().Up; up != 2 {
			t.Errorf("%d up, want the one with a name that has one, too", up)
		}
		if st := client.status(); st.DownTotal != mostLookups || !strings.Contains(st.Down[0].Why, "timeout") {
			t.Errorf("%d down: %+v", st.DownTotal, st.Down)
		}
		w.after(2*firstPause - lookupTime/2) // they are asked again
		before := w.now()
		client.stop()
		if took := w.now().Sub(before); took > closeTime {
			t.Errorf("the end took %v", took)
		}
	})
}

// TestLateAnswer: what has happened while a name was being resolved counts.
func TestLateAnswer(t *testing.T) {
	named := func(t *testing.T) []*policy.Connection {
		conns := mirror(t, "head", "branch.example.org", "vpn.example.org", gatewayAddr)
		conns[0].Start, conns[0].Pins, conns[0].Hosts = true, nil, []policy.Host{{Name: peerName}}
		return conns
	}
	for _, c := range []struct {
		name      string
		meanwhile func(w *world, a, b *site)
		calls     int
		up        int
	}{
		{"nothing", func(*world, *site, *site) {}, 1, 1},
		{"the peer has called", func(w *world, a, _ *site) {
			if err := a.group.Initiate(context.Background(), "branch"); err != nil {
				t.Error(err)
			}
		}, 0, 1},
		{"the peer has called and hung up", func(w *world, a, _ *site) {
			if err := a.group.Initiate(context.Background(), "branch"); err != nil {
				t.Error(err)
			}
			if _, err := a.group.Terminate(context.Background(), "*"); err != nil {
				t.Error(err)
			}
			w.after(time.Second)
		}, 1, 1},
		{"a person has ended it", func(w *world, _, b *site) {
			if n, err := b.group.Terminate(context.Background(), "head"); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		}, 0, 0},
		{"a person has ended it and wants it again", func(w *world, _, b *site) {
			if _, err := b.group.Terminate(context.Background(), "head"); err != nil {
				t.Error(err)
			}
			go func() { // ends with the answer
				if err := b.group.Initiate(context.Background(), "head"); err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}, 1, 1},
		{"our address was away", func(w *world, _, b *site) {
			b.group.SetAbsent([]netip.Addr{b.addr})
			b.group.SetAbsent(nil)
			synctest.Wait()
		}, 1, 1},
		{"the end", func(w *world, _, b *site) { b.stop() }, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(w *world) {
				names := newDirectoryService()
				names.say(peerName, gatewayAddr)
				release := names.hold(peerName)
				a := w.site(gatewayAddr, 2, mirror(t, "branch", "vpn.example.org", "branch.example.org", clientAddr))
				b := w.site(clientAddr, 2, named(t), names.use)
				w.after(time.Second)
				c.meanwhile(w, a, b)
				release()
				w.after(time.Minute)
				if n, up := len(b.begun()), a.status().Up; n != c.calls || up != c.up {
					t.Errorf("called %d times, %d up; want %d, %d", n, up, c.calls, c.up)
				}
				if n := names.times(peerName); n != 1 {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
}

// TestLateAnswerAtTheEnd: while the goodbyes are said nobody is called any more.
func TestLateAnswerAtTheEnd(t *testing.T) {
	inBubble(t, func(w *world) {
		names := newDirectoryService()
		names.say(peerName, gatewayAddr)
		release := names.hold(peerName)
		gateway := w.site(gatewayAddr, 1, roadwarriors())
		other := started()
		other[0].Name, other[0].LocalID = "other", identity("bert@example.org")
		client := w.site(clientAddr, 1, append(startedByName(), other...), names.use)
		w.after(lookupTime / 2)
		gateway.vanish() // so that the goodbye takes its time
		time.AfterFunc(time.Second, release)
		client.stop()
		if n := len(client.begun()); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

// TestTerminatedWhileResolving: whoever waits for the tunnel is told.
func TestTerminatedWhileResolving(t *testing.T) {
	inBubble(t, func(w *world) {
		names := newDirectoryService()
		release := names.hold(peerName)
		conns := startedByName()
		conns[0].Start = false
		client := w.site(clientAddr, 1, conns, names.use)
		end := make(chan error, 1)
		go func() { end <- client.group.Initiate(context.Background(), "home") }() // ends with the answer
		w.after(time.Second)
		if _, err := client.group.Terminate(context.Background(), "*"); err != nil {
			t.Fatal(err)
		}
		release()
		if err := <-end; err != errTerminated {
			t.Errorf("%v", err)
		}
	})
}

// TestAnswersThatAreNone: what DNS says is anybody's word.
func TestAnswersThatAreNone(t *testing.T) {
	names := newDirectoryService()
	l := &lookups{conf: &Config{Listen: []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("198.51.100.8")}}}
	names.use(l.conf)
	tunnel := startedByName()[0]
	for _, none := range []string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.1.1",
		"::", "::1", "ff02::1", "fe80::1", "2001:db8::1", "198.51.100.8", "::ffff:198.51.100.7"} {
		names.say(peerName, none)
		if to, err := l.addresses(t.Context(), tunnel); err == nil || len(to) > 0 {
			t.Errorf("%s: %v is called", none, to)
		}
		names.say(peerName, none, "::ffff:203.0.113.7", "203.0.113.8", "203.0.113.7")
		to, err := l.addresses(t.Context(), tunnel)
		if err != nil || fmt.Sprint(to) != "[203.0.113.7 203.0.113.8]" {
			t.Errorf("beside %s: %v, %v", none, to, err)
		}
	}
	tunnel.Locals = []netip.Addr{netip.MustParseAddr("2001:db8::7")}
	names.say(peerName, "203.0.113.7", "2001:db8::1")
	if to, err := l.addresses(t.Context(), tunnel); err != nil || fmt.Sprint(to) != "[2001:db8::1]" {
		t.Errorf("from an address of the other family: %v, %v", to, err)
	}
	var many []string
	for i := range 500 {
		many = append(many, netip.AddrFrom16([16]byte{0x20, 1, 14: byte(i >> 8), 15: byte(i)}).String())
	}
	names.say(peerName, many...)
	if to, err := l.addresses(t.Context(), tunnel); err != nil || len(to) != mostAnswers {
		t.Errorf("%d of %d, %v", len(to), len(many), err)
	}
}
