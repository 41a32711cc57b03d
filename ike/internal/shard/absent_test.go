package shard

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/ike/internal/policy"
)

// away takes a site's own address from it; back gives it back.
func (s *site) away() {
	s.vanish()
	s.group.SetAbsent([]netip.Addr{s.addr})
}

func (s *site) back() {
	s.comeBack()
	s.group.SetAbsent(nil)
}

// While our own address is away no peer is called dead, however long it takes,
// and when it is back they are asked at once and the tunnels go on.
func TestAddressAway(t *testing.T) {
	inBubble(t, func(w *world) {
		_, gateway := w.pair(4)
		w.after(idle.Delay + time.Second) // a probe was answered
		gateway.away()
		gateway.happened()
		w.after(time.Hour)
		gateway.wantEvents() // nobody is asked either
		gateway.back()
		w.after(time.Second)
		gateway.wantEvents("probe sent", "probe answered")
		if n := gateway.counter(cDead); n != 0 || gateway.status().Up != 1 {
			t.Errorf("%d dead, %d up", n, gateway.status().Up)
		}
	})
}

// A question that was open when our address went is used up in vain, and begins
// anew.
func TestAddressAwayWithQuestionOpen(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(4)
		client.vanish()
		w.after(idle.Delay + time.Second)
		gateway.happened()
		gateway.away()
		w.after(policy.DefaultBackoff.Total())
		gateway.wantEvents("retransmit", "retransmit", "retransmit", "retransmit", "retransmit", "unanswered")
		client.comeBack()
		gateway.back()
		w.after(time.Second)
		gateway.wantEvents("probe answered")
		// Who is silent even then is dead, as ever.
		gateway.away()
		client.vanish()
		w.after(10 * time.Minute)
		gateway.back()
		gateway.happened()
		w.after(policy.DefaultBackoff.Total() + time.Second)
		if n := gateway.counter(cDead); n != 1 {
			t.Errorf("%d dead, want 1", n)
		}
	})
}

// Who calls does so as soon as his address is there, and from the first that is.
func TestCallsWhenAddressComes(t *testing.T) {
	inBubble(t, func(w *world) {
		w.site(gatewayAddr, 2, roadwarriors())
		conns := home("anna@example.org")
		conns[0].Start = true
		client := w.site(clientAddr, 2, conns)
		client.away()
		w.after(20 * time.Minute)
		if st := client.status(); st.Up != 0 {
			t.Fatalf("%+v", st)
		}
		client.back()
		w.after(time.Second)
		if st := client.status(); st.Up != 1 {
			t.Errorf("%d up", st.Up)
		}
	})
}

func TestPathTo(t *testing.T) {
	a, b, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")
	c := Config{Listen: []netip.Addr{v6, a, b}, IKEPort: 500}
	t4 := home("anna@example.org")[0]
	for _, x := range []struct {
		absent []netip.Addr
		want   netip.Addr
	}{{nil, a}, {[]netip.Addr{a}, b}, {[]netip.Addr{b}, a}, {[]netip.Addr{a, b}, a}} {
		g := Group{}
		g.absent.Store(&x.absent)
		path, err := c.pathTo(t4, netip.MustParseAddr(gatewayAddr), g.isAbsent)
		if err != nil || path.Local.Addr() != x.want {
			t.Errorf("absent %v: from %v, %v, want %v", x.absent, path.Local, err, x.want)
		}
	}
	c.Listen = []netip.Addr{v6}
	if _, err := c.pathTo(t4, netip.MustParseAddr(gatewayAddr), new(Group).isAbsent); err != errNoLocal {
		t.Errorf("%v", err)
	}
}

// TestAbsentAndTerminated: a tunnel whose address is away for good ends when it is
// told to, though a question of its was under way.
func TestAbsentAndTerminated(t *testing.T) {
	inBubble(t, func(w *world) {
		client, gateway := w.pair(2)
		client.vanish()
		w.after(idle.Delay + 10*time.Second)
		gateway.away()
		if n, err := gateway.group.Terminate(context.Background(), "*"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		w.after(165 * time.Second)
		gateway.wantOrderly()
		if n := gateway.counter(cDead); n != 0 {
			t.Error("what was told to end is called dead")
		}
	})
}
