//go:build vm

package inside

import (
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/test/lab"
)

// bond makes one of interfaces of the gateway that takes over when a member
// fails.
func (w *wire) bond(name string, members ...string) {
	w.Helper()
	w.must(w.gateway.Do(func() error {
		b := netlink.NewLinkBond(netlink.LinkAttrs{Name: name})
		b.Mode, b.Miimon = netlink.BOND_MODE_ACTIVE_BACKUP, 50
		return netlink.LinkAdd(b)
	}))
	for _, m := range members {
		w.enslave(m, name)
	}
	w.up(w.gateway, name)
	for _, m := range members {
		w.up(w.gateway, m)
	}
}

// enslave makes an interface of the gateway a port of another; "": of none.
func (w *wire) enslave(name, master string) {
	w.Helper()
	w.must(w.join(w.gateway, name, master))
}

func (w *wire) join(ns *lab.Namespace, name, master string) error {
	return w.change(ns, name, func(dev netlink.Link) error {
		if master == "" {
			return netlink.LinkSetNoMaster(dev)
		}
		to, err := netlink.LinkByName(master)
		if err != nil {
			return err
		}
		if to.Type() == "bond" { // takes only what is down
			if err := netlink.LinkSetDown(dev); err != nil {
				return err
			}
		}
		return netlink.LinkSetMaster(dev, to)
	})
}

func (w *wire) bridge(ns *lab.Namespace, name string, ports ...string) {
	w.Helper()
	w.must(ns.Do(func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}) }))
	w.up(ns, name)
	for _, p := range ports {
		w.must(w.join(ns, p, name))
	}
}

// switched is a bond of two at the gateway, behind a switch.
func switched(t *testing.T) *wire {
	w := newWire(t)
	w.veth("u1", "p1")
	w.veth("u2", "p2")
	w.bridge(w.peer, "p0", "p1", "p2")
	w.bond("u0", "u1", "u2")
	w.address("u0", "p0")
	return w
}

// TestBond: XDP is on the bond, not on its members, and answers by whichever
// carries.
func TestBond(t *testing.T) {
	w := switched(t)
	w.want(1, []string{"attaching to u1: it is a port of the bond u0, and keepalives are answered: attach to u0, or load with keepalive absorb"},
		"attach", "u1", "--config", w.config)
	w.configure("keepalive: answer", "u1")
	w.want(0, []string{"it is a port of the bond u0"}, "check", "--config", w.config)
	w.configure("answer_interval: 1s", "u0")
	w.want(0, []string{"u0: attached, native"}, "attach", "--config", w.config)
	w.known()
	if !w.answered("p0") {
		t.Error("no answer by the first member")
	}
	w.must(w.change(w.gateway, "u1", netlink.LinkSetDown))
	if !w.answered("p0") {
		t.Error("no answer by the second member")
	}
	w.must(w.change(w.gateway, "u1", netlink.LinkSetUp))
	w.want(0, []string{"u0: detached\n"}, "detach", "--all")

	// Who only absorbs may be on the members, or on the bond, which puts it there.
	w.want(0, []string{"u1: attached, native", "u2: attached, native"}, "attach", "u1", "u2", "--config", w.config, "--keepalive", "absorb")
	w.known()
	if w.answered("p0") {
		t.Error("answered, though they are absorbed")
	}
	w.want(0, []string{"keepalive_absorbed"}, "stats")
	w.want(0, []string{"u1: detached", "u2: detached"}, "detach", "--all")
	w.want(0, []string{"u0: attached, native"}, "attach", "--config", w.config, "--keepalive", "absorb")
	w.want(1, []string{"attaching to u1: it is a port of u0, whose XDP program is on it already"}, "attach", "u1", "--config", w.config, "--keepalive", "absorb")
	w.want(0, []string{"u0: detached"}, "detach", "--all")
}

// TestBecomesAPort: a running daemon says so when an interface that it is on
// becomes a port, and when it is none any more.
func TestBecomesAPort(t *testing.T) {
	w := newWire(t)
	w.veth("u0", "p0")
	w.address("u0", "p0")
	w.veth("u3", "p3")
	gw := w.daemon()
	w.await(0, "healthy\n")
	w.want(0, []string{"u3: attached, native"}, "attach", "u3", "--config", w.config)
	w.known()
	if !w.answered("p0") {
		t.Error("no answer")
	}
	w.bond("b0")
	w.enslave("u0", "b0")
	w.await(3, "problem    XDP on u0 answers wrongly: it is a port of the bond b0, and keepalives are answered: attach to b0")
	w.enslave("u0", "")
	w.up(w.gateway, "u0")
	w.await(0, "healthy\n")
	w.bridge(w.gateway, "br0", "u3")
	w.await(3, "problem    XDP on u3 answers wrongly: it is a port of the bridge br0")
	w.must(gw.Signal(syscall.SIGTERM), gw.Wait())
	w.want(3, []string{"problem    XDP on u3 answers wrongly: it is a port of the bridge br0"}, "status") // by the pins alone
	w.want(0, []string{"u0: detached", "u3: detached"}, "detach", "--all")
	w.want(1, []string{"attaching to u3: it is a port of the bridge br0"}, "attach", "u3", "--config", w.config)
}
