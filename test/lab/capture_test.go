package lab_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

func capture(t *testing.T, n *lab.Namespace, iface string, keep func(lab.Frame) bool) *lab.Capture {
	t.Helper()
	c, err := n.Capture(iface, keep)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func stop(t *testing.T, c *lab.Capture) []lab.Frame {
	t.Helper()
	frames, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	return frames
}

// A capture has what passed between its two ends, both directions, no more.
func TestCapture(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	s := standard(t, 1)
	gw, client := listen(t, s.Gateway, anywhere), listen(t, s.Clients[0], anywhere)
	send(t, client, []byte{0xff}, gateway)
	receive(t, gw)

	started := time.Now()
	atClient := capture(t, s.Clients[0], lab.ClientLink, lab.Frame.Keepalive)
	all := capture(t, s.Gateway, lab.GatewayLink, func(f lab.Frame) bool {
		_, _, _, ok := f.UDP()
		return ok
	})
	const count = 100
	var mapped netip.AddrPort
	for range count {
		send(t, client, []byte{0xff}, gateway)
		_, mapped = receive(t, gw)
	}
	send(t, client, []byte("no keepalive"), gateway)
	receive(t, gw)
	send(t, gw, []byte{0xff}, mapped)
	receive(t, client)

	frames := stop(t, atClient)
	if len(frames) != count+1 {
		t.Fatalf("%d keepalives captured, want %d", len(frames), count+1)
	}
	for i, f := range frames {
		if out := i < count; f.Outgoing != out {
			t.Errorf("frame %d: outgoing %v, want %v", i, f.Outgoing, out)
		}
		if f.Time.Before(started) || f.Time.After(time.Now()) {
			t.Errorf("frame %d at %v, the capture began %v", i, f.Time, started)
		}
	}
	if got := len(stop(t, all)); got != count+2 {
		t.Errorf("%d datagrams captured at the gateway, want %d", got, count+2)
	}
	send(t, client, []byte{0xff}, gateway)
	receive(t, gw)
	if again, err := atClient.Stop(); len(again) != count+1 || err != nil {
		t.Errorf("after the end: %d frames, %v", len(again), err)
	}
}

func TestCaptureDecodes(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	s := standard(t, 1)
	gw, client := listen(t, s.Gateway, anywhere), listen(t, s.Clients[0], anywhere)
	c := capture(t, s.Gateway, lab.GatewayLink, func(f lab.Frame) bool {
		_, _, _, ok := f.UDP()
		return ok
	})
	send(t, client, []byte("payload"), gateway)
	_, from := receive(t, gw)
	frames := stop(t, c)
	if len(frames) != 1 {
		t.Fatalf("%d frames, want 1", len(frames))
	}
	src, dst, payload, _ := frames[0].UDP()
	if src != from || dst != gateway || string(payload) != "payload" {
		t.Errorf("decoded %s → %s %q, want %s → %s", src, dst, payload, from, gateway)
	}
}

func TestCaptureEndsWithLab(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	l := build(t)
	n := namespace(t, l, "a")
	c := capture(t, n, "lo", nil)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stop(); err != nil {
		t.Errorf("Stop after Close: %v", err)
	}
	if _, err := n.Capture("lo", nil); err != lab.ErrClosed && err == nil {
		t.Error("a capture began in a closed namespace")
	}
}

// keepalive4 is Ethernet, IPv4, UDP and one byte 0xFF, without padding.
var keepalive4 = []byte{
	2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00,
	0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 254, 198, 51, 100, 1,
	0xce, 0x13, 0x11, 0x94, 0, 9, 0, 0,
	0xff,
}

// keepalive6 is the same over IPv6.
var keepalive6 = slices.Concat(
	[]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 9, 17, 64},
	netip.MustParseAddr("2001:db8::fe").AsSlice(), netip.MustParseAddr("2001:db8::1").AsSlice(),
	[]byte{0xce, 0x13, 0x11, 0x94, 0, 9, 0, 0, 0xff})

func TestKeepalive(t *testing.T) {
	change := func(frame []byte, at int, b byte) []byte {
		f := slices.Clone(frame)
		f[at] = b
		return f
	}
	tests := []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"IPv4", keepalive4, true},
		{"IPv4 padded to 60 bytes", append(slices.Clone(keepalive4), make([]byte, 17)...), true},
		{"IPv6", keepalive6, true},
		{"from port 4500", change(change(change(keepalive4, 34, 0x11), 35, 0x94), 37, 0), true},
		{"another byte", change(keepalive4, 42, 0xfe), false},
		{"two bytes", append(change(change(keepalive4, 17, 30), 39, 10), 0xff), false},
		{"no byte", change(keepalive4, 39, 8), false},
		{"UDP longer than IP", change(keepalive4, 39, 10), false},
		{"IP longer than the frame", change(keepalive4, 17, 30), false},
		{"UDP length below its header", change(keepalive4, 39, 7), false},
		{"other ports", change(keepalive4, 37, 0x95), false},
		{"TCP", change(keepalive4, 23, 6), false},
		{"a first fragment", change(keepalive4, 20, 0x20), false},
		{"a later fragment", change(keepalive4, 21, 1), false},
		{"short IPv4 header", change(keepalive4, 14, 0x44), false},
		{"IPv6 longer than the frame", change(keepalive6, 19, 10), false},
		{"IPv6 extension header", change(keepalive6, 20, 0), false},
		{"ARP", change(keepalive4, 13, 6), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := (lab.Frame{Data: tt.frame}).Keepalive(); got != tt.want {
				t.Errorf("Keepalive() = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestKeepaliveTruncated(t *testing.T) {
	for _, whole := range [][]byte{keepalive4, keepalive6} {
		for n := range whole {
			if (lab.Frame{Data: whole[:n]}).Keepalive() {
				t.Errorf("%d of %d bytes pass for a keepalive", n, len(whole))
			}
		}
	}
}
