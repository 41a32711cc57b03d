//go:build vm

package inside

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/loader/ethtool"
	"github.com/ikepulse/ikepulse/test/lab"
)

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

const (
	hides   = "the VLANs of u0.7 come by it, and the NIC takes their tags off, so that an answer would leave without"
	waysOut = "have that switched off (--vlan-offload off, or xdp.vlan_offload: off), attach to u0.7 instead, or load with keepalive absorb"
)

// TestVLANOfNIC: a card that takes tags off is refused while keepalives are
// answered, and each way out that is named is one.
func TestVLANOfNIC(t *testing.T) {
	w := newWire(t)
	w.cards(vmxnet3)
	w.vlan("u0", "p0")
	w.want(1, []string{"attaching to u0: " + hides, waysOut}, "attach", "u0", "--answer-interval", "1s")
	w.want(0, []string{"; " + hides}, "check", "--config", w.config)

	// Absorb: they end in XDP, tag or not.
	w.want(0, []string{"u0: attached", "198.51.100.1 (those of u0)", "counted and dropped"}, "attach", "u0", "--keepalive", "absorb")
	w.known()
	if w.answered("p0.7") {
		t.Error("answered, though they are absorbed")
	}
	w.want(0, []string{"keepalive_absorbed"}, "stats")
	w.want(0, []string{"u0: detached\n"}, "detach", "u0")

	// The VLAN's own device, in generic mode.
	w.want(0, []string{"u0.7: attached, generic"}, "attach", "u0.7", "--answer-interval", "1s")
	w.known()
	if !w.answered("p0.7") {
		t.Error("no answer through the VLAN from its own device")
	}
	w.want(0, []string{"u0.7: detached\n"}, "detach", "u0.7")

	// The offload off, until detach.
	if !w.strips("u0") {
		t.Error("the offload is off")
	}
	w.want(0, []string{"u0: attached", "u0: its VLAN offload is off until it is detached"}, "attach", "u0", "--vlan-offload", "off", "--answer-interval", "1s")
	if w.strips("u0") {
		t.Error("the offload is on")
	}
	w.known()
	if !w.answered("p0.7") {
		t.Error("no answer through the VLAN")
	}
	w.want(3, []string{"xdp        u0 ", ", VLAN offload off, keepalive: answer"}, "status")
	w.offload(w.gateway, "u0", ethtool.StripsTags, true)
	w.want(3, []string{"problem    XDP on u0 answers wrongly: " + hides}, "status")
	w.want(0, []string{"u0: attached already", "u0: its VLAN offload is off"}, "attach", "u0", "--answer-interval", "1s") // as it was asked for
	w.want(0, []string{"u0: detached, its VLAN offload is on again", "removed"}, "detach", "u0")
	if !w.strips("u0") {
		t.Error("the offload has stayed off")
	}
}

// TestVLANOfVirtio: a card that leaves the tags where they are needs nothing.
func TestVLANOfVirtio(t *testing.T) {
	w := newWire(t)
	w.cards(virtio)
	w.vlan("u0", "p0")
	w.want(0, []string{"u0: attached, native"}, "attach", "u0", "--answer-interval", "1s")
	w.known()
	if !w.answered("p0.7") {
		t.Error("no answer through the VLAN")
	}
	w.want(0, []string{"u0: detached\n"}, "detach", "u0")
}

// TestVLANOfVeth: nobody can tell, so it is refused whatever the offload says.
func TestVLANOfVeth(t *testing.T) {
	w := newWire(t)
	w.veth("u0", "p0")
	w.vlan("u0", "p0")
	w.want(1, []string{"the VLANs of u0.7 come by it, and a veth may hide their tags"}, "attach", "u0", "--vlan-offload", "off")
	w.want(0, []string{"u0.7: attached, generic"}, "attach", "u0.7", "--answer-interval", "1s")
	w.known()
	if !w.answered("p0.7") {
		t.Error("no answer through the VLAN from its own device")
	}
	w.want(0, []string{"u0.7: detached\n"}, "detach", "u0.7")
}

// TestVLANOfBond: its members' offloads are what is switched, and only a native
// program sees the tags then.
func TestVLANOfBond(t *testing.T) {
	w := newWire(t)
	w.cards(vmxnet3)
	w.bond("b0", "u0")
	w.vlan("b0", "p0")
	w.want(1, []string{"attaching to b0: the VLANs of b0.7 come by it, and "}, "attach", "b0")
	if w.native(newTagCounter(t), "b0") {
		w.want(0, []string{"b0: attached, native", "b0: its VLAN offload is off"}, "attach", "b0", "--vlan-offload", "off", "--answer-interval", "1s")
		w.known()
		if !w.answered("p0.7") || w.strips("u0") {
			t.Error("no answer through the bond's VLAN, or u0 takes tags off")
		}
		w.want(0, []string{"b0: detached, its VLAN offload is on again"}, "detach", "b0")
	} else {
		w.want(1, []string{"a bond in generic mode may hide their tags"}, "attach", "b0", "--vlan-offload", "off")
	}
	if !w.strips("u0") {
		t.Error("the offload has stayed off")
	}
	w.want(0, []string{"b0.7: attached, generic"}, "attach", "b0.7", "--answer-interval", "1s")
	w.known()
	if !w.answered("p0.7") {
		t.Error("no answer from the VLAN's own device")
	}
	w.want(0, []string{"b0.7: detached"}, "detach", "b0.7")
}

// TestVLANAndDaemon: a running daemon says that it is refused, takes the
// interface when it may, notices a VLAN that is made later, and leaves what it
// switched off to whoever detaches after it was killed.
func TestVLANAndDaemon(t *testing.T) {
	w := newWire(t)
	w.cards(vmxnet3)
	w.must(w.gateway.Address("u0", ourPrefix))
	w.vlanOn(w.gateway, "u0")
	gw := w.daemon()
	w.await(3, "problem    XDP is not on u0: attaching to u0: "+hides)
	w.must(w.change(w.gateway, "u0.7", netlink.LinkDel))
	w.await(0, "healthy\n")
	w.vlanOn(w.gateway, "u0")
	w.await(3, "problem    XDP on u0 answers wrongly: "+hides)
	w.must(w.change(w.gateway, "u0.7", netlink.LinkDel))
	w.await(0, "healthy\n")
	w.must(gw.Signal(syscall.SIGTERM), gw.Wait())

	w.configure("answer_interval: 1s, vlan_offload: off", "u0")
	gw = w.daemon()
	w.await(0, "healthy\n")
	w.vlanOn(w.gateway, "u0")
	w.await(0, "VLAN offload off")
	w.want(0, []string{"healthy\n"}, "status")
	if w.strips("u0") {
		t.Error("the offload is on")
	}
	if gw.Kill() == nil {
		t.Error("killed, and ended well")
	}
	if w.strips("u0") {
		t.Error("the offload went on with the daemon")
	}
	w.want(0, []string{"u0: detached, its VLAN offload is on again"}, "detach", "--all")
	if !w.strips("u0") {
		t.Error("the offload has stayed off")
	}
}

// daemon starts the gateway's, which is ended with the test.
func (w *wire) daemon() *lab.Process {
	w.Helper()
	var log lab.Transcript
	p, err := w.gateway.Start(lab.Command{Path: product, Args: []string{"run", "--config", w.config}, Output: &log})
	w.must(err)
	w.Cleanup(func() {
		if w.Failed() {
			w.Logf("the daemon:\n%s", &log)
		}
	})
	return p
}
