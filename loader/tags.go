package loader

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/loader/ethtool"
)

// A keepalive that came through a VLAN is answered with its tag only if the
// program sees the tag. Whether it does was tried on 6.1 and 6.12, and
// test/vm/inside holds it:
//
//   - NICs that take tags off (vmxnet3, native and generic): as their
//     rx-vlan-hw-parse says. While it is on the tag comes beside the frame, where
//     no program of these kernels finds it, and what is sent back has none;
//   - NICs that do not (virtio_net): always;
//   - veth: as the other end's tx-vlan-hw-insert says; its own rx-vlan-hw-parse
//     changes nothing. So with every device that is software;
//   - bond: native, as its members do; generic, never: its members' frames have
//     lost their tags by the time that they are the bond's;
//   - the VLAN's own device, generic: there is no tag, and what is sent back
//     gets it.

// veil is what keeps the program from seeing the tags of an interface's VLANs.
type veil struct {
	vlans []string // the devices of the VLANs
	kind  string   // of the interface, if nobody can tell; else "": the offloads do it
	by    []offload
}

// offload is what a NIC does to tags.
type offload struct {
	index    int
	name     string
	features []string
}

// veilOf returns nil where nothing hides a tag that matters.
func veilOf(dev netlink.Link) (*veil, error) {
	links, err := allLinks()
	if err != nil {
		return nil, err
	}
	v, wanted := &veil{}, map[string]bool{}
	for _, l := range links {
		if vlan, ok := l.(*netlink.Vlan); ok && vlan.ParentIndex == dev.Attrs().Index {
			v.vlans = append(v.vlans, vlan.Name)
			wanted[stripper(vlan.VlanProtocol)] = true
		}
	}
	if len(v.vlans) == 0 {
		return nil, nil
	}
	slices.Sort(v.vlans)
	nics := []netlink.Link{dev}
	if dev.Type() == "bond" && modeOf(dev) == generic {
		v.kind = "bond in generic mode"
		return v, nil
	}
	if dev.Type() == "bond" {
		nics = slices.DeleteFunc(links, func(l netlink.Link) bool { return l.Attrs().MasterIndex != dev.Attrs().Index })
	}
	for _, nic := range nics {
		if nic.Type() != "device" { // of no kind: there is hardware behind it
			v.kind = nic.Type()
			return v, nil
		}
		o, err := offloadOf(nic, wanted)
		if err != nil {
			return nil, err
		}
		if len(o.features) > 0 {
			v.by = append(v.by, o)
		}
	}
	if len(v.by) == 0 {
		return nil, nil
	}
	return v, nil
}

func stripper(p netlink.VlanProtocol) string {
	if p == netlink.VLAN_PROTOCOL_8021AD {
		return ethtool.StripsServiceTags
	}
	return ethtool.StripsTags
}

// offloadOf returns which of the wanted features are on.
func offloadOf(nic netlink.Link, wanted map[string]bool) (offload, error) {
	o := offload{index: nic.Attrs().Index, name: nic.Attrs().Name}
	conn, err := ethtool.Open()
	if err != nil {
		return o, err
	}
	on, err := conn.Features(o.name)
	if err != nil {
		return o, fmt.Errorf("asking %s for its offloads: %w", o.name, err)
	}
	for _, name := range []string{ethtool.StripsTags, ethtool.StripsServiceTags} {
		if wanted[name] && on[name] {
			o.features = append(o.features, name)
		}
	}
	return o, nil
}

// allLinks asks again when the list changed while it was read.
func allLinks() (links []netlink.Link, err error) {
	for range 5 {
		links, err = netlink.LinkList()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return links, err
		}
	}
	return nil, err
}

// refusal is why no keepalive is answered there, with the ways out.
func (v *veil) refusal() error {
	vlans := strings.Join(v.vlans, " and ")
	if v.kind != "" {
		return fmt.Errorf("the VLANs of %s come by it, and a %s may hide their tags, so that an answer would leave without: "+
			"attach to %s instead, or load with keepalive absorb", vlans, v.kind, vlans)
	}
	return fmt.Errorf("the VLANs of %s come by it, and the NIC takes their tags off, so that an answer would leave without: "+
		"have that switched off (--vlan-offload off, or xdp.vlan_offload: off), attach to %s instead, or load with keepalive absorb", vlans, vlans)
}

// lift switches the offloads off.
func (v *veil) lift() error {
	conn, err := ethtool.Open()
	if err != nil {
		return err
	}
	for _, o := range v.by {
		err := conn.Switch(o.name, o.features, false)
		if err == nil {
			var on map[string]bool
			if on, err = conn.Features(o.name); err == nil && slices.ContainsFunc(o.features, func(f string) bool { return on[f] }) {
				err = unix.EOPNOTSUPP
			}
		}
		if err != nil {
			return fmt.Errorf("switching %s of %s off: %w", strings.Join(o.features, " and "), o.name, err)
		}
	}
	return nil
}
