package xfrm

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// patience is for a machine that does other work, too.
const patience = 30 * time.Second

// namespace is an empty one.
func namespace(t *testing.T) *lab.Namespace {
	t.Helper()
	require.Have(t, "root", "netns")
	l := lab.New()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	n, err := l.Namespace("kernel")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func within(t *testing.T, n *lab.Namespace, f func() error) {
	t.Helper()
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}

// hatch makes larval states, which a kernel without ESP has, too, and returns
// their keys.
func hatch(t *testing.T, n *lab.Namespace, count int) (keys []Key) {
	t.Helper()
	within(t, n, func() error {
		for i := range count {
			sa, err := netlink.XfrmStateAllocSpi(&netlink.XfrmState{
				Src: net.IP(nat.AsSlice()), Dst: net.IP(gateway.AsSlice()), Proto: netlink.XFRM_PROTO_ESP,
				Mode: netlink.XFRM_MODE_TUNNEL, Reqid: 1000 + i,
			})
			if err != nil {
				return err
			}
			keys = append(keys, Key{Dst: gateway, SPI: uint32(sa.Spi), Proto: ESP})
		}
		return nil
	})
	return keys
}

func kill(t *testing.T, n *lab.Namespace, keys ...Key) {
	t.Helper()
	within(t, n, func() error {
		for _, k := range keys {
			if err := netlink.XfrmStateDel(&netlink.XfrmState{
				Dst: net.IP(k.Dst.AsSlice()), Proto: netlink.Proto(k.Proto), Spi: int(k.SPI),
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

func open[T interface{ Close() error }](t *testing.T, n *lab.Namespace, f func() (T, error)) (v T) {
	t.Helper()
	within(t, n, func() (err error) { v, err = f(); return err })
	t.Cleanup(func() { _ = v.Close() }) // a test may have done it
	return v
}

func wantWiped(t *testing.T, s *socket) {
	t.Helper()
	if slices.ContainsFunc(s.buf, func(b byte) bool { return b != 0 }) {
		t.Error("the buffer was not wiped")
	}
}

func TestReader(t *testing.T) {
	n := namespace(t)
	keys := hatch(t, n, 300) // more than one datagram
	r := open(t, n, NewReader)
	var got []Key
	unread, err := r.All(func(sa SA) {
		got = append(got, sa.Key)
		if !sa.Larval || sa.Src != nat || sa.Reqid != 1000+uint32(slices.Index(keys, sa.Key)) || time.Since(sa.Added) > time.Hour {
			t.Errorf("%+v", sa)
		}
	})
	if unread != 0 || err != nil {
		t.Errorf("%d unread, %v", unread, err)
	}
	slices.SortFunc(got, compareKeys)
	slices.SortFunc(keys, compareKeys)
	if diff := cmp.Diff(keys, got, compare); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantWiped(t, r.s)

	one, err := r.Read(keys[17], Mark{})
	if err != nil || one.Key != keys[17] || one.Src != nat {
		t.Errorf("%+v, %v", one, err)
	}
	if _, err := r.Read(keys[17], Mark{Value: 1, Mask: 1}); err != nil {
		t.Errorf("a state without a mark has every mark: %v", err)
	}
	kill(t, n, keys[17])
	if _, err := r.Read(keys[17], Mark{}); !errors.Is(err, ErrGone) {
		t.Errorf("of a state that is gone: %v", err)
	}
	wantWiped(t, r.s)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(keys[18], Mark{}); err == nil {
		t.Error("a closed reader read")
	}
}

// next reads one datagram's events.
func next(t *testing.T, s *socket) (events []event) {
	t.Helper()
	if err := s.file.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	err := s.read(func(h header, body []byte) error {
		e, err := decode(h.Kind, body)
		events = append(events, e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	wantWiped(t, s)
	return events
}

// What this kernel says of states that end, in each of its ways.
func TestEvents(t *testing.T) {
	n := namespace(t)
	s := open(t, n, func() (*socket, error) { return newSocket(groups) })
	want := func(e event) {
		t.Helper()
		if diff := cmp.Diff([]event{e}, next(t, s), compare); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	keys := hatch(t, n, 2)
	kill(t, n, keys[0])
	want(event{kind: eventGone, sa: SA{Key: keys[0]}})

	within(t, n, func() error { return netlink.XfrmStateFlush(netlink.XFRM_PROTO_ESP) })
	want(event{kind: eventFlush, proto: ESP})
	hatch(t, n, 1)
	within(t, n, func() error { return netlink.XfrmStateFlush(0) })
	want(event{kind: eventFlush})

	if err := n.Sysctl("net/core/xfrm_acq_expires", "1"); err != nil {
		t.Fatal(err)
	}
	key := hatch(t, n, 1)[0]
	want(event{kind: eventGone, sa: SA{Key: key}})
}

// watch runs a watcher until the test ends.
func watch(t *testing.T, n *lab.Namespace, w *Watcher) <-chan Batch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	batches, ended := make(chan Batch, 10000), make(chan error, 1)
	go func() { // ends with ctx
		ended <- w.Run(ctx, func(b Batch) error { batches <- b; return nil })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return batches
}

func receive(t *testing.T, batches <-chan Batch) Batch {
	t.Helper()
	select {
	case b := <-batches:
		return b
	case <-time.After(patience):
		t.Fatal("the watcher tells nothing")
		return Batch{}
	}
}

// When the kernel had to drop events, a dump tells what they would have.
func TestWatcherOverrun(t *testing.T) {
	n := namespace(t)
	w := open(t, n, NewWatcher)
	if err := w.events.room(1); err != nil { // the kernel gives a little more
		t.Fatal(err)
	}
	keys := hatch(t, n, 200)
	kill(t, n, keys[1:]...)
	// It believes in a state that has gone with the lost events.
	first := true
	stop := errors.New("stop")
	var got []Batch
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := w.Run(ctx, func(b Batch) error {
		got = append(got, b)
		if !first {
			return stop
		}
		first = false
		w.table.set(inbound)
		return nil
	})
	want := []Batch{{Synced: true}, {Synced: true, Lost: true, Changes: []Change{{Kind: Removed, SA: inbound}}}}
	if diff := cmp.Diff(want, got, compare); diff != "" || err != stop {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, has := w.table.states[keys[0]]; !has || len(w.table.states) != 1 {
		t.Errorf("known: %v, there is %v", w.table.states, keys[0])
	}
}

// Only the kernel is believed: any privileged process can send a datagram.
func TestWatcherForgery(t *testing.T) {
	n := namespace(t)
	w := open(t, n, NewWatcher)
	batches := watch(t, n, w)
	if b := receive(t, batches); !b.Synced || b.Lost || len(b.Changes) != 0 {
		t.Errorf("%+v", b)
	}
	var to unix.Sockaddr
	if err := w.events.control(func(fd int) (err error) { to, err = unix.Getsockname(fd); return err }); err != nil {
		t.Fatal(err)
	}
	forger := open(t, n, func() (*socket, error) { return newSocket(0) })
	forged := datagram([]uint16{nl.XFRM_MSG_NEWSA}, inboundMessage.body)
	odd := datagram([]uint16{nl.XFRM_MSG_NEWSA}, inboundMessage.body[:20])
	for _, b := range [][]byte{forged, odd} {
		if err := forger.control(func(fd int) error { return unix.Sendto(fd, b, 0, to) }); err != nil {
			t.Fatal(err)
		}
	}
	// Had it been taken, the flush would remove it.
	hatch(t, n, 1)
	within(t, n, func() error { return netlink.XfrmStateFlush(0) })
	select {
	case b := <-batches:
		t.Errorf("%+v", b)
	case <-time.After(200 * time.Millisecond):
	}
}

// A handler that fails ends the watch with its error.
func TestWatcherHandlerFails(t *testing.T) {
	n := namespace(t)
	w := open(t, n, NewWatcher)
	stop := errors.New("stop")
	if err := w.Run(t.Context(), func(Batch) error { return stop }); err != stop {
		t.Errorf("%v", err)
	}
}
