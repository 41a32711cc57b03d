//go:build vm

package xfrm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
)

// These want a kernel that has ESP and AH.

// state is one that the kernel takes.
func state(k Key, src netip.Addr, changes ...func(*netlink.XfrmState)) *netlink.XfrmState {
	s := &netlink.XfrmState{
		Dst: net.IP(k.Dst.AsSlice()), Src: net.IP(src.AsSlice()), Proto: netlink.Proto(k.Proto), Spi: int(k.SPI),
		Mode: netlink.XFRM_MODE_TUNNEL, Reqid: 3, ReplayWindow: 32,
	}
	if k.Proto == ESP {
		s.Aead = &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: slices.Repeat([]byte{keyByte}, 20), ICVLen: 128}
	} else {
		s.Auth = &netlink.XfrmStateAlgo{Name: "hmac(sha256)", Key: slices.Repeat([]byte{keyByte}, 32), TruncateLen: 128}
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

func inUDP(peer, local int) func(*netlink.XfrmState) {
	return func(s *netlink.XfrmState) {
		s.Encap = &netlink.XfrmStateEncap{Type: netlink.XFRM_ENCAP_ESPINUDP, SrcPort: peer, DstPort: local}
	}
}

// without leaves out what depends on when it is asked.
var without = cmp.Options{compare, cmpopts.IgnoreTypes(Counters{})}

// changes collects until as many have come as are wanted.
func changes(t *testing.T, batches <-chan Batch, count int) (all []Change) {
	t.Helper()
	for len(all) < count {
		all = append(all, receive(t, batches).Changes...)
	}
	return all
}

// Real states through their lives: what is told is what was asked of the kernel.
func TestKernelStates(t *testing.T) {
	n := namespace(t)
	v6 := Key{Dst: outboundV6.Dst, SPI: outboundV6.SPI, Proto: AH}
	before := Key{Dst: gateway, SPI: 0x00000900, Proto: ESP}
	within(t, n, func() error { return netlink.XfrmStateAdd(state(before, nat)) })
	w := open(t, n, NewWatcher)
	batches := watch(t, n, w)
	want := func(what string, want ...Change) {
		t.Helper()
		if diff := cmp.Diff(want, changes(t, batches, len(want)), without); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	there := SA{Key: before, Src: nat, Reqid: 3, ReplayWindow: 32}
	want("what was there", Change{Kind: Added, SA: there})

	whole := SA{Key: inbound.Key, Src: nat, Reqid: 3, Encap: true, SrcPort: 25724, DstPort: 4500, ReplayWindow: 32}
	within(t, n, func() error { return netlink.XfrmStateAdd(state(inbound.Key, nat, inUDP(25724, 4500))) })
	want("added", Change{Kind: Added, SA: whole})

	moved := with(whole, func(s *SA) { s.SrcPort = 24884 })
	within(t, n, func() error { return netlink.XfrmStateUpdate(state(inbound.Key, nat, inUDP(24884, 4500))) })
	want("updated", Change{Kind: Updated, SA: moved, Old: whole})

	rich := SA{Key: v6, Src: outboundV6.Src, Reqid: 3, ReplayWindow: 128, ESN: true, Mark: Mark{0x10, 0xff}, IfID: 9}
	within(t, n, func() error {
		return netlink.XfrmStateAdd(state(v6, outboundV6.Src, func(s *netlink.XfrmState) {
			s.ESN, s.ReplayWindow, s.Ifid = true, 128, 9
			s.Mark = &netlink.XfrmMark{Value: 0x10, Mask: 0xff}
		}))
	})
	want("AH over IPv6", Change{Kind: Added, SA: rich})

	r := open(t, n, NewReader)
	if sa, err := r.Read(v6, rich.Mark); err != nil || !sa.same(rich) {
		t.Errorf("%+v, %v, want %+v", sa, err, rich)
	}
	if _, err := r.Read(v6, Mark{}); !errors.Is(err, ErrGone) {
		t.Errorf("a state with a mark, read without: %v", err)
	}
	within(t, n, func() error { return netlink.XfrmStateDel(state(inbound.Key, nat)) })
	want("deleted", Change{Kind: Removed, SA: moved})
	within(t, n, func() error { return netlink.XfrmStateFlush(netlink.XFRM_PROTO_AH) })
	want("flushed", Change{Kind: Removed, SA: rich})

	short := state(inbound.Key, nat, func(s *netlink.XfrmState) { s.Limits.TimeHard, s.Limits.TimeSoft = 2, 1 })
	within(t, n, func() error { return netlink.XfrmStateAdd(short) })
	brief := with(whole, func(s *SA) { s.Encap, s.SrcPort, s.DstPort = false, 0, 0 })
	want("expired", Change{Kind: Added, SA: brief}, Change{Kind: Removed, SA: brief})
}

// The direction that a daemon gave is told from 6.10 on.
func TestKernelDirection(t *testing.T) {
	n := namespace(t)
	r := open(t, n, NewReader)
	within(t, n, func() error {
		return netlink.XfrmStateAdd(state(inbound.Key, nat, func(s *netlink.XfrmState) { s.SADir = netlink.XFRM_SA_DIR_IN }))
	})
	want := DirectionUnknown
	if major, minor := kernel(t); major > 6 || major == 6 && minor >= 10 {
		want = Inbound
	}
	if sa, err := r.Read(inbound.Key, Mark{}); err != nil || sa.Direction != want {
		t.Errorf("direction %d, %v, want %d", sa.Direction, err, want)
	}
}

func kernel(t *testing.T) (major, minor int) {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major, minor
}

// Events that wait when others are lost are older than the lost ones: a state
// whose end was lost must not come back with them.
func TestKernelOverrun(t *testing.T) {
	n := namespace(t)
	w := open(t, n, NewWatcher)
	if err := w.events.room(16 << 10); err != nil {
		t.Fatal(err)
	}
	key := func(i int) Key { return Key{Dst: gateway, SPI: 0x1000 + uint32(i), Proto: ESP} }
	const states = 200
	within(t, n, func() error {
		for i := range states {
			if err := netlink.XfrmStateAdd(state(key(i), nat)); err != nil {
				return err
			}
		}
		for i := range states - 1 {
			if err := netlink.XfrmStateDel(state(key(i), nat)); err != nil {
				return err
			}
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	known := map[Key]bool{}
	lost := false
	err := w.Run(ctx, func(b Batch) error {
		for _, c := range b.Changes {
			known[c.SA.Key] = c.Kind != Removed
		}
		if b.Lost {
			lost = true
			time.AfterFunc(500*time.Millisecond, cancel) // what waited would follow at once
		}
		return nil
	})
	if !lost || !errors.Is(err, context.Canceled) {
		t.Errorf("lost: %v, %v", lost, err)
	}
	for k, alive := range known {
		if alive != (k == key(states-1)) {
			t.Errorf("%v: known %v", k, alive)
		}
	}
}

// A migration replaces states without a word about them.
func TestKernelMigration(t *testing.T) {
	n := namespace(t)
	w := open(t, n, NewWatcher)
	batches := watch(t, n, w)
	receive(t, batches)
	within(t, n, func() error {
		return errors.Join(
			netlink.XfrmStateAdd(state(inbound.Key, nat)),
			netlink.XfrmPolicyAdd(policy()))
	})
	old := SA{Key: inbound.Key, Src: nat, Reqid: 3, ReplayWindow: 32}
	to := netip.MustParseAddr("198.51.100.77")
	changed := with(old, func(s *SA) { s.Src = to })
	if got := changes(t, batches, 1); len(got) != 1 || got[0].Kind != Added {
		t.Fatalf("%+v", got)
	}
	migrate(t, n, to)
	if diff := cmp.Diff([]Change{{Kind: Updated, SA: changed, Old: old}}, changes(t, batches, 1), without); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

var inner = &net.IPNet{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}

func policy() *netlink.XfrmPolicy {
	return &netlink.XfrmPolicy{Src: inner, Dst: inner, Dir: netlink.XFRM_DIR_IN, Tmpls: []netlink.XfrmPolicyTmpl{{
		Src: net.IP(nat.AsSlice()), Dst: net.IP(gateway.AsSlice()), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Reqid: 3,
	}}}
}

// migrate moves the peer of the inbound state: struct xfrm_userpolicy_id
// {selector, index, dir} and an attribute {old_daddr, old_saddr, new_daddr,
// new_saddr, proto, mode, reserved, reqid, old_family, new_family}.
func migrate(t *testing.T, n *lab.Namespace, to netip.Addr) {
	t.Helper()
	id := make([]byte, 64)
	copy(id, inner.IP)
	copy(id[16:], inner.IP)
	id[40], id[42], id[43] = unix.AF_INET, 8, 8
	id[60] = byte(netlink.XFRM_DIR_IN)
	var m []byte
	for _, a := range []netip.Addr{gateway, nat, gateway, to} {
		m = append(m, raw(a)...)
	}
	m = append(m, ESP, byte(netlink.XFRM_MODE_TUNNEL), 0, 0)
	m = append(m, u32(3)...)
	m = append(m, unix.AF_INET, 0, unix.AF_INET, 0)
	request := message{body: id}.attr(nl.XFRMA_MIGRATE, m...)
	s := open(t, n, func() (*socket, error) { return newSocket(0) })
	if err := s.request(nl.XFRM_MSG_MIGRATE, unix.NLM_F_ACK, request.body, func(header, []byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
}
