package follow

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/bpf"
	daemon "github.com/ikepulse/ikepulse/cmd/internal/gateway"
	"github.com/ikepulse/ikepulse/ike/xfrm"
	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/test/lab"
)

// A report has each inbound SA with its newest partner, and the sum.
func TestReport(t *testing.T) {
	g := newStage(t, 16)
	now := time.Now()
	added := func(sa xfrm.SA, ago time.Duration) xfrm.SA {
		return with(sa, func(s *xfrm.SA) { s.Added = now.Add(-ago) })
	}
	bare := with(inbound(0x100), func(s *xfrm.SA) {
		s.Proto, s.Src, s.Reqid, s.Encap, s.SrcPort, s.DstPort = xfrm.AH, netip.MustParseAddr("203.0.113.1"), 9, false, 0, 0
	})
	stranger := with(outbound(0x999), func(s *xfrm.SA) { s.Reqid = 77 })
	in := with(added(inbound(0xc1234567), time.Hour), func(s *xfrm.SA) { s.Packets, s.LastUsed = 5, now.Add(-time.Minute) })
	g.changes(xfrm.Added, in, bare, added(outbound(0xd2), time.Minute), added(outbound(0xd1), time.Hour), stranger)
	for range 3 {
		g.arrives(natted, bpf.ReasonKeepaliveAbsorbed, keepalive)
	}
	g.arrives(rebound, bpf.ReasonStrangerDropped, keepalive)
	g.arrives(natted, bpf.ReasonESPUDPKnown, esp(in.SPI)...)
	g.arrives(natted, bpf.ReasonESPUDPUnknown, esp(0xd2)...)
	g.want("sa_added c1234567 203.0.113.9:61201", "sa_added 00000100 203.0.113.1:0")
	if err := g.report(); err != nil {
		t.Fatal(err)
	}
	local := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(us, port) }
	want := []Fact{
		{Event: EventSA, SA: &SA{InSPI: "00000100", Protocol: "ah", Local: local(0), Remote: bare.Peer(), Reqid: 9}},
		{Event: EventSA, SA: &SA{InSPI: "c1234567", OutSPI: "000000d2", Protocol: "esp", Local: local(4500), Remote: natted, Reqid: 3,
			Proof: "esp", Keepalives: 3}},
		{Event: EventSummary, Summary: &Summary{SAs: 2, Absorbed: 3, Strangers: 1, ESPKnown: 1, ESPUnknown: 1}},
	}
	times := cmpopts.IgnoreFields(SA{}, "UpMS", "IdleMS", "ProofMS", "KeepaliveMS")
	if diff := cmp.Diff(want, g.raw, times, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	sa := g.raw[1].SA
	for what, c := range map[string]struct {
		ms    *int64
		about time.Duration
	}{"up": {sa.UpMS, time.Hour}, "idle": {sa.IdleMS, 0}, "proof": {sa.ProofMS, time.Minute}, "keepalive": {sa.KeepaliveMS, 0}} {
		if c.ms == nil || *c.ms < c.about.Milliseconds() || *c.ms > (c.about+time.Minute).Milliseconds() {
			t.Errorf("%s: %v, want about %v", what, c.ms, c.about)
		}
	}
	if other := g.raw[0].SA; other.IdleMS != nil || other.KeepaliveMS != nil || other.ProofMS != nil {
		t.Errorf("of an SA without a packet: %+v", other)
	}
}

// namespace has an interface with an address of ours, and states without keys.
func namespace(t *testing.T) *lab.Namespace {
	t.Helper()
	privileged(t)
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	n, err := l.Namespace("gateway")
	if err == nil {
		err = n.Do(func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "g0"
			pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "p0"}
			return errors.Join(netlink.LinkAdd(pair), netlink.LinkSetUp(pair),
				netlink.AddrAdd(pair, &netlink.Addr{IPNet: &net.IPNet{IP: us.AsSlice(), Mask: net.CIDRMask(24, 32)}}))
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func larval(n *lab.Namespace) (key xfrm.Key, err error) {
	err = n.Do(func() error {
		sa, err := netlink.XfrmStateAllocSpi(&netlink.XfrmState{Src: peerAddr.AsSlice(), Dst: us.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL})
		if err == nil {
			key = xfrm.Key{Dst: us, SPI: uint32(sa.Spi), Proto: xfrm.ESP}
		}
		return err
	})
	return key, err
}

// Counters come in one dump where that is cheaper, else one by one; what is
// gone by then is missing.
func TestReadCounters(t *testing.T) {
	n := namespace(t)
	var keys []xfrm.Key
	for range 3 {
		key, err := larval(n)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	var r *xfrm.Reader
	if err := n.Do(func() (err error) { r, err = xfrm.NewReader(); return err }); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	due := func(keys ...xfrm.Key) (out []*state) {
		for _, k := range keys {
			out = append(out, &state{SA: xfrm.SA{Key: k}})
		}
		return out
	}
	gone := keys[0]
	gone.SPI++
	for _, c := range []struct {
		name  string
		due   []*state
		all   int
		found int
	}{
		{"few", due(keys[0]), dumpAll, 3},
		{"one of many", due(keys[0]), dumpAll + 1, 1},
		{"one gone", due(gone, keys[1]), dumpAll + 1, 1},
		{"most of many", due(slices.Repeat(keys[:2], dumpAll)...), 2 * dumpAll, 3},
	} {
		found, err := readCounters(r)(c.due, c.all)
		if err != nil || len(found) != c.found {
			t.Errorf("%s: %d found, %v, want %d", c.name, len(found), err, c.found)
		}
	}
}

// Run from its beginning to its end, where nothing has keys: it attaches, holds
// the instance, learns addresses, and leaves program and maps behind.
func TestRun(t *testing.T) {
	n := namespace(t)
	names := daemon.NamesOf("followed")
	facts := make(chan Fact, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	options := Options{Names: names, Interfaces: []string{"g0"}, XDP: loader.Options{Instance: "followed", Capacity: 16},
		Look: 10 * time.Millisecond, Report: 20 * time.Millisecond,
		Tell: func(f Fact) error {
			select {
			case facts <- f:
			default: // enough
			}
			return nil
		}}
	ended := make(chan error, 1)
	go func() { ended <- n.Do(func() error { return Run(ctx, options) }) }() // ends with ctx
	next := func() Fact {
		t.Helper()
		select {
		case f := <-facts:
			return f
		case err := <-ended:
			t.Fatalf("ended: %v", err)
		case <-time.After(30 * time.Second):
			t.Fatal("nothing is told")
		}
		return Fact{}
	}
	if f := next(); f.Event != EventFollowing || f.SAs != 0 || f.Time.IsZero() {
		t.Errorf("%+v", f)
	}
	if f := next(); f.Event != EventOn || f.Interface != "g0" || f.Mode != "native" || f.Note != "" {
		t.Errorf("%+v", f)
	}
	if f := next(); f.Event != EventSummary {
		t.Errorf("%+v", f)
	}
	if running, err := names.Find(); !running {
		t.Errorf("nobody holds the instance (%v)", err)
	}
	if err := Run(ctx, options); err == nil || !strings.Contains(err.Error(), "is running already") {
		t.Errorf("a second one: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	if running, _ := names.Find(); running {
		t.Error("the instance is still held")
	}
	err := n.Do(func() error {
		i, err := loader.Open("followed")
		if err != nil {
			return err
		}
		attached, err := i.Attachments()
		if err != nil || len(attached) != 1 || attached[0].Interface != "g0" {
			t.Errorf("attached to %v, %v", attached, err)
		}
		if ours, err := i.Maps().Locals.List(); err != nil || !slices.Contains(ours, us) || slices.ContainsFunc(ours, netip.Addr.IsLoopback) {
			t.Errorf("ours: %v, %v", ours, err)
		}
		return errors.Join(i.Remove(), i.Close())
	})
	if err != nil {
		t.Error(err)
	}
}

// What fails before it has begun leaves nothing.
func TestRunFails(t *testing.T) {
	n := namespace(t)
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no such interface": {func(o *Options) { o.Interfaces = []string{"nowhere"} }, "no such interface"},
		"answer":            {func(o *Options) { o.XDP.Keepalive = "answer" }, loader.ErrNoAnswer.Error()},
		"nobody to tell":    {func(o *Options) { o.Tell = func(Fact) error { return broken } }, "broken"},
	} {
		o := Options{Names: daemon.NamesOf("failed"), Interfaces: []string{"g0"}, XDP: loader.Options{Instance: "failed", Capacity: 16},
			Tell: func(Fact) error { return nil }}
		c.change(&o)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := n.Do(func() error { return Run(ctx, o) })
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err := n.Do(func() error { _, err := loader.Open("failed"); return err }); !errors.Is(err, loader.ErrNotLoaded) {
			t.Errorf("%s: something is left: %v", name, err)
		}
		if running, _ := o.Names.Find(); running {
			t.Errorf("%s: the instance is still held", name)
		}
	}
}

// Whose pins another process has removed writes into maps that nobody reads: he
// ends, and says so.
func TestPinsRemoved(t *testing.T) {
	n := namespace(t)
	o := Options{Names: daemon.NamesOf("replaced"), Interfaces: []string{"g0"}, XDP: loader.Options{Instance: "replaced", Capacity: 16},
		Look: 10 * time.Millisecond}
	following := make(chan struct{}, 1)
	o.Tell = func(f Fact) error {
		if f.Event == EventFollowing {
			following <- struct{}{}
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Do(func() error { return Run(ctx, o) }) }() // ends with ctx
	<-following
	dir, err := loader.Dir("replaced")
	if err != nil {
		t.Fatal(err)
	}
	if err := loader.Purge(dir); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, loader.ErrNotLoaded) {
		t.Errorf("err = %v", err)
	}
}
