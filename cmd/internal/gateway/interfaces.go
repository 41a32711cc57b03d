package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// Carriers returns the interfaces of this network namespace that carry the
// addresses, sorted. An address that none carries, or only the loopback, has no
// interface to attach to: that is an error.
func Carriers(addresses []netip.Addr) ([]string, error) {
	all, err := carried()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, a := range addresses {
		dev, ok := all[a]
		switch {
		case !ok:
			return nil, fmt.Errorf("no interface here carries %v", a)
		case dev.Flags&net.FlagLoopback != 0:
			return nil, fmt.Errorf("%v is on %s: name the interfaces that its packets come by (listen.interfaces)", a, dev.Name)
		case !slices.Contains(names, dev.Name):
			names = append(names, dev.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// AddressesOf returns the addresses of an interface and of the VLANs on it, but
// for link-local ones, which no peer can reach.
func AddressesOf(ifname string) ([]netip.Addr, error) {
	if err := present(ifname); err != nil {
		return nil, err
	}
	vlans, err := vlansOn(ifname)
	if err != nil {
		return nil, err
	}
	all, err := carried()
	var out []netip.Addr
	for a, dev := range all {
		if (dev.Name == ifname || vlans[dev.Index]) && !a.IsLinkLocalUnicast() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, err
}

// vlansOn has the indices of the VLANs that come by an interface.
func vlansOn(ifname string) (map[int]bool, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	out := map[int]bool{}
	for _, below := range links {
		for _, l := range links {
			if below.Attrs().Name == ifname && l.Type() == "vlan" && l.Attrs().ParentIndex == below.Attrs().Index {
				out[l.Attrs().Index] = true
			}
		}
	}
	return out, nil
}

// RealNames puts the kernel's own names in the place of others that interfaces
// have (ip link property add dev eth0 altname lan); what is not here stays.
func RealNames(names []string) []string {
	own := make([]string, len(names))
	for n, name := range names {
		own[n] = name
		if dev, err := netlink.LinkByName(name); err == nil {
			own[n] = dev.Attrs().Name
		}
	}
	return own
}

func present(ifname string) error {
	if _, err := netlink.LinkByName(ifname); err != nil {
		return fmt.Errorf("%s: no such interface in this network namespace", ifname)
	}
	return nil
}

// carried maps every address to its interface.
func carried() (map[netip.Addr]*netlink.LinkAttrs, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	byIndex := map[int]*netlink.LinkAttrs{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs()
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]*netlink.LinkAttrs{}
	for _, a := range addresses {
		ip, ok := netip.AddrFromSlice(a.IP)
		if dev := byIndex[a.LinkIndex]; ok && dev != nil {
			out[ip.Unmap()] = dev
		}
	}
	return out, nil
}
