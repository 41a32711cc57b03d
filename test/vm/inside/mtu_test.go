//go:build vm

package inside

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/test/lab"
)

// nativeAnywhere is an MTU that every driver takes a program with: such frames fit
// in a page. With a larger one 6.1's virtio_net refuses, and 6.12's does not.
const nativeAnywhere = 3500

// TestMTUOfVirtio: at any MTU the program is on, and answers: natively where the
// driver can, else generic, and attach says why.
func TestMTUOfVirtio(t *testing.T) {
	w := newWire(t)
	w.cards(virtio)
	w.address("u0", "p0")
	for _, mtu := range []int{1500, 3400, 3600, 9000} {
		for ns, name := range map[*lab.Namespace]string{w.gateway: "u0", w.peer: "p0"} {
			w.must(w.change(ns, name, func(card netlink.Link) error { return netlink.LinkSetMTU(card, mtu) }))
		}
		said := w.want(0, []string{"u0: attached, "}, "attach", "--config", w.config)
		w.known()
		if !w.answered("p0") {
			t.Errorf("MTU %d: no answer", mtu)
		}
		native := strings.Contains(said, "u0: attached, native, ")
		why := fmt.Sprintf("u0: attached, generic, prog %d ikepulse_xdp (not native: the driver refuses its present MTU of %d", w.programOn("u0"), mtu)
		if !native && (mtu < nativeAnywhere || !strings.Contains(said, why)) {
			t.Errorf("MTU %d: %s", mtu, said)
		}
		w.want(0, []string{"u0: detached\n"}, "detach", "--all")
	}
}

// programOn is what the kernel has on an interface of the gateway.
func (w *wire) programOn(name string) (id int) {
	w.Helper()
	w.must(w.change(w.gateway, name, func(card netlink.Link) error {
		if xdp := card.Attrs().Xdp; xdp != nil {
			id = int(xdp.ProgId)
		}
		return nil
	}))
	return id
}
