package main

import (
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/test/lab"
)

// The network of an arm. The clients' addresses are local to their host, those
// that the flood pretends to be from lead to where it comes from.
//
//	clients  c0 198.51.100.2 — 198.51.100.1 g0  gateway  g1 203.0.113.1 — 203.0.113.2 f0  flood
var (
	gatewayAddr = netip.MustParseAddr("198.51.100.1")
	clientAddr  = netip.MustParseAddr("198.51.100.2")
	clientsOwn  = netip.MustParsePrefix("10.8.0.0/15")
	floodAddr   = netip.MustParseAddr("203.0.113.2")
	spoofed     = netip.MustParsePrefix("172.16.0.0/12")
)

// site is the network of one arm, with one client host and perhaps a flood's.
type site struct {
	gateway, clients, flood *lab.Namespace // flood is nil without one
}

func newSite(l *lab.Lab, a arm) (s *site, err error) {
	s = new(site)
	if s.gateway, err = l.Namespace("gateway"); err != nil {
		return nil, err
	}
	if err := s.addClients(l); err != nil {
		return nil, err
	}
	if a.loss > 0 {
		for ns, iface := range map[*lab.Namespace]string{s.gateway: "g0", s.clients: "c0"} {
			if err := ns.Lose(iface, a.loss); err != nil {
				return nil, err
			}
		}
	}
	if a.flood > 0 {
		err = s.addFlood(l)
	}
	return s, err
}

func (s *site) addClients(l *lab.Lab) (err error) {
	if s.clients, err = l.Namespace("clients"); err != nil {
		return err
	}
	if err := lab.Connect(
		lab.End{Namespace: s.gateway, Name: "g0", Addresses: onLink(gatewayAddr)},
		lab.End{Namespace: s.clients, Name: "c0", Addresses: onLink(clientAddr)}); err != nil {
		return err
	}
	if err := s.clients.Own(clientsOwn); err != nil {
		return err
	}
	return s.gateway.Route(clientsOwn, clientAddr)
}

// addFlood adds the host of the flood, which forwards nothing: what comes back
// ends there, and is counted by its link.
func (s *site) addFlood(l *lab.Lab) (err error) {
	if s.flood, err = l.Namespace("flood"); err != nil {
		return err
	}
	router := netip.MustParseAddr("203.0.113.1")
	if err := lab.Connect(
		lab.End{Namespace: s.gateway, Name: "g1", Addresses: onLink(router)},
		lab.End{Namespace: s.flood, Name: "f0", Addresses: onLink(floodAddr)}); err != nil {
		return err
	}
	if err := s.flood.Sysctl("net/ipv4/ip_forward", "0"); err != nil {
		return err
	}
	if err := s.flood.Route(netip.PrefixFrom(gatewayAddr, 24), router); err != nil {
		return err
	}
	return s.gateway.Route(spoofed, floodAddr)
}

func onLink(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, 24)} }

// traffic is what an interface has counted so far.
func traffic(ns *lab.Namespace, iface string) (t netlink.LinkStatistics, err error) {
	err = ns.Do(func() error {
		link, err := netlink.LinkByName(iface)
		if err == nil && link.Attrs().Statistics != nil {
			t = *link.Attrs().Statistics
		}
		return err
	})
	return t, err
}
