package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/ike/barrier"
	"github.com/ikepulse/ikepulse/ike/tun"
)

// whereabouts are where the addresses of a configuration are on this host.
type whereabouts struct {
	carriers []string              // interfaces that carry some of them, sorted
	astray   error                 // an address is here, and on no interface that XDP could be on
	absent   map[netip.Addr]string // those that nothing can be sent from, and why
	missing  []netip.Addr          // those of them that no interface has at all
}

// hostAddresses are all that this host has.
func hostAddresses() ([]netlink.Addr, error) {
	return barrier.Dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
}

// locate looks for addresses.
func locate(addresses []netip.Addr) (w whereabouts, err error) {
	here, err := hostAddresses()
	if err != nil {
		return w, err
	}
	w.absent = map[netip.Addr]string{}
	for _, a := range addresses {
		at := slices.IndexFunc(here, func(h netlink.Addr) bool { return addressOf(h) == a })
		if at < 0 {
			w.elsewhere(a)
			continue
		}
		dev, err := netlink.LinkByIndex(here[at].LinkIndex)
		if err != nil {
			return w, err
		}
		w.on(a, dev.Attrs(), here[at].Flags)
	}
	slices.Sort(w.carriers)
	return w, nil
}

func addressOf(h netlink.Addr) netip.Addr {
	a, _ := netip.AddrFromSlice(h.IP)
	return a.Unmap()
}

// on takes down the interface of an address.
func (w *whereabouts) on(a netip.Addr, dev *netlink.LinkAttrs, flags int) {
	switch {
	case flags&unix.IFA_F_DADFAILED != 0:
		w.absent[a] = fmt.Sprintf("duplicate address detection failed on %s: another host there has it", dev.Name)
	case flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0:
		w.absent[a] = fmt.Sprintf("it is tentative on %s, duplicate address detection goes on", dev.Name)
	}
	switch {
	case dev.Flags&net.FlagLoopback != 0:
		w.astray = fmt.Errorf("%v is on %s: name the interfaces that its packets come by (listen.interfaces)", a, dev.Name)
	case !slices.Contains(w.carriers, dev.Name):
		w.carriers = append(w.carriers, dev.Name)
	}
}

// elsewhere takes down an address that no interface has. A local route may make
// it ours even so.
func (w *whereabouts) elsewhere(a netip.Addr) {
	off := tun.IPv6Off("default")
	switch {
	case hostAddress(a):
		w.astray = fmt.Errorf("no interface here carries %v: name those that its packets come by (listen.interfaces)", a)
		return
	case a.Is6() && off != "":
		w.absent[a] = off
	default:
		w.absent[a] = "no interface here has it"
	}
	w.missing = append(w.missing, a)
}

// Carriers returns the interfaces of this network namespace that carry the
// addresses, sorted. An address that none carries, or only the loopback, has no
// interface to attach to: that is an error.
func Carriers(addresses []netip.Addr) ([]string, error) {
	w, err := locate(addresses)
	switch {
	case err != nil:
		return nil, err
	case len(w.missing) > 0:
		return nil, fmt.Errorf("no interface here carries %v", w.missing[0])
	}
	return w.carriers, w.astray
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
	links, err := barrier.Dump(netlink.LinkList)
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
	links, err := barrier.Dump(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	byIndex := map[int]*netlink.LinkAttrs{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs()
	}
	addresses, err := hostAddresses()
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
