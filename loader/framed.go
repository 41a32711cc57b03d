package loader

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// framed refuses interfaces whose packets begin with something else than an
// Ethernet header: PPP, TUN, WireGuard, tunnels. The program would take their
// first bytes for one, and know no packet. What the loopback carries has one.
func framed(dev netlink.Link) error {
	switch kind := dev.Attrs().EncapType; kind {
	case "ether", "loopback":
		return nil
	default:
		return fmt.Errorf("its packets have no Ethernet header (link/%s), so XDP cannot read them: no keepalive is answered there, and tunnels go on without", kind)
	}
}

// Framed says why the program cannot serve an interface at all; nil is that it
// can.
func Framed(ifname string) error {
	dev, err := device(ifname)
	if err != nil {
		return err
	}
	return framed(dev)
}
