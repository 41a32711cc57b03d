package lab_test

import (
	"net"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/require"
)

// A native program at the gateway's link can send back what it receives; that
// it counts as sent does not mean that it arrives.
func TestGatewayTransmitsNatively(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	s := standard(t, 1)
	gw, client := listen(t, s.Gateway, anywhere), listen(t, s.Clients[0], anywhere)
	send(t, client, []byte("resolves the neighbour"), gateway)
	receive(t, gw)
	attachNative(t, s.Gateway, 3)
	c := capture(t, s.NAT, "n0", func(f lab.Frame) bool { return !f.Outgoing && f.Keepalive() })
	send(t, client, []byte{0xff}, gateway)
	await(t, "the frame comes back", func() bool { return len(c.Frames()) == 1 })
}

func attachNative(t *testing.T, n *lab.Namespace, verdict int32) {
	t.Helper()
	prog, err := xdpReturn(verdict)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	err = n.Do(func() error {
		iface, err := net.InterfaceByName(lab.GatewayLink)
		if err != nil {
			return err
		}
		x, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: iface.Index, Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { x.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
