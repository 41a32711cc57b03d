package udp

import (
	"context"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// AnyConfig is how [ListenAny] opens its socket.
type AnyConfig struct {
	IPv6   bool
	Port   uint16 // what packets have as their own port, whatever the kernel's choice is
	NATT   bool   // as in Config
	Buffer int    // as in Config
}

// ListenAny opens one socket for all local addresses of a family, at a port that
// the kernel chooses. What is sent comes from the address of the packet's Local,
// and what is received names there the address that it came to: so one socket
// stands for as many hosts as there are addresses, each behind a NAT that has
// changed its port.
func ListenAny(ctx context.Context, c AnyConfig) (*Socket, error) {
	every := &anyAddress{unspecified: netip.IPv4Unspecified()}
	if c.IPv6 {
		every.unspecified = netip.IPv6Unspecified()
	}
	bind := Config{Local: netip.AddrPortFrom(every.unspecified, 0), Buffer: c.Buffer}
	conn, err := open(ctx, bind)
	if err != nil {
		return nil, err
	}
	if err := every.prepare(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	s := New([]*net.UDPConn{conn}, c.NATT)
	s.local, s.every = netip.AddrPortFrom(every.unspecified, c.Port), every
	return s, nil
}

// anyAddress is how a socket that is bound to no address tells them apart: by
// control messages. RFC 3542 §6
type anyAddress struct{ unspecified netip.Addr }

// prepare has the kernel tell where packets came to. An IPv6 socket may send
// from an address that only a local route makes ours, as an IPv4 one may: that
// is what bindAhead has allowed.
func (a *anyAddress) prepare(conn *net.UDPConn) error {
	if a.unspecified.Is4() {
		return ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst, true)
	}
	return ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst, true)
}

// room is for the control messages of one received packet.
func (a *anyAddress) room() []byte {
	if a.unspecified.Is4() {
		return ipv4.NewControlMessage(ipv4.FlagDst)
	}
	return ipv6.NewControlMessage(ipv6.FlagDst)
}

// source is the control message that has a packet come from an address.
func (a *anyAddress) source(from netip.Addr) []byte {
	if a.unspecified.Is4() {
		return (&ipv4.ControlMessage{Src: from.AsSlice()}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: from.AsSlice()}).Marshal()
}

// destination is the address that a packet with these control messages came to;
// the unspecified one if they do not tell.
func (a *anyAddress) destination(control []byte) netip.Addr {
	var to net.IP
	if a.unspecified.Is4() {
		var m ipv4.ControlMessage
		if m.Parse(control) == nil {
			to = m.Dst
		}
	} else {
		var m ipv6.ControlMessage
		if m.Parse(control) == nil {
			to = m.Dst
		}
	}
	if local, ok := netip.AddrFromSlice(to); ok {
		return local.Unmap()
	}
	return a.unspecified
}
