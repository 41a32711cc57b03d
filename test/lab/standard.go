package lab

import (
	"fmt"
	"net"
	"net/netip"
)

// The standard network's fixed names and addresses. Clients are counted from
// zero; client i is 10.7.i.2 behind the NAT.
//
//	client i  c0 10.7.i.2/24 — 10.7.i.1/24 c<i>  NAT  n0 198.51.100.254/24 — 198.51.100.1/24 g0  gateway
const (
	GatewayLink = "g0"
	ClientLink  = "c0"
	MaxClients  = 256
)

var (
	GatewayAddr = netip.AddrFrom4([4]byte{198, 51, 100, 1})
	NATAddr     = netip.AddrFrom4([4]byte{198, 51, 100, 254}) // as the gateway sees all clients
)

// ClientAddr returns client i's own address.
func ClientAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 7, byte(i), 2}) }

// Standard is a gateway and clients behind one NAT address. The gateway has
// no route to the clients' own addresses, as on the Internet; the gateway's
// link can carry a native XDP program that transmits. It needs BPF for that.
type Standard struct {
	Gateway *Namespace
	NAT     *Namespace
	Clients []*Namespace
	Masq    *NAT
}

// Standard builds the standard network.
func (l *Lab) Standard(clients int) (*Standard, error) {
	if clients < 1 || clients > MaxClients {
		return nil, fmt.Errorf("%d clients; a standard network has 1 to %d", clients, MaxClients)
	}
	var s Standard
	err := s.namespaces(l, clients)
	if err != nil {
		return nil, err
	}
	if err := Connect(
		End{Namespace: s.Gateway, Name: GatewayLink, MAC: mac(1, 0), Addresses: prefixes(GatewayAddr)},
		End{Namespace: s.NAT, Name: "n0", MAC: mac(2, 0), Addresses: prefixes(NATAddr), Receiver: true},
	); err != nil {
		return nil, err
	}
	for i, c := range s.Clients {
		if err := s.attach(i, c); err != nil {
			return nil, err
		}
	}
	if s.Masq, err = s.NAT.Masquerade("n0"); err != nil {
		return nil, err
	}
	return &s, nil
}

func (s *Standard) namespaces(l *Lab, clients int) (err error) {
	if s.Gateway, err = l.Namespace("gateway"); err != nil {
		return err
	}
	if s.NAT, err = l.Namespace("nat"); err != nil {
		return err
	}
	for i := range clients {
		c, err := l.Namespace(fmt.Sprintf("client %d", i))
		if err != nil {
			return err
		}
		s.Clients = append(s.Clients, c)
	}
	return nil
}

// attach links client i to the NAT.
func (s *Standard) attach(i int, c *Namespace) error {
	router := netip.AddrFrom4([4]byte{10, 7, byte(i), 1})
	err := Connect(
		End{Namespace: c, Name: ClientLink, MAC: mac(3, i), Addresses: prefixes(ClientAddr(i))},
		End{Namespace: s.NAT, Name: fmt.Sprintf("c%d", i), MAC: mac(4, i), Addresses: prefixes(router)},
	)
	if err != nil {
		return err
	}
	return c.Route(netip.PrefixFrom(netip.IPv4Unspecified(), 0), router)
}

func prefixes(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, 24)} }

// mac returns a locally administered address that names its place.
func mac(kind, i int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 'i', 'k', 'e', byte(kind), byte(i)}
}
