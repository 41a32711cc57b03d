package barrier

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// match is the left side of a rule: all of it must be so.
type match []expr.Any

func matching(all ...match) (out []expr.Any) {
	for _, m := range all {
		out = append(out, m...)
	}
	return out
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

// interfaceName has the kernel's room for a name.
func interfaceName(key expr.MetaKey, name string) match {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return match{&expr.Meta{Key: key, Register: 1}, equal(b)}
}

func marked(mark uint32) match {
	return match{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, equal(binary.NativeEndian.AppendUint32(nil, mark))}
}

// marking is no match: it gives the packet a mark.
func marking(mark uint32) match {
	return match{&expr.Immediate{Register: 1, Data: binary.NativeEndian.AppendUint32(nil, mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true}}
}

// forSocketMarked is what arrives for a socket that has the mark.
func forSocketMarked(mark uint32) match {
	return match{&expr.Socket{Key: expr.SocketKeyMark, Register: 1}, equal(binary.NativeEndian.AppendUint32(nil, mark))}
}

func ofFamily(v4 bool) match {
	family := byte(unix.NFPROTO_IPV6)
	if v4 {
		family = unix.NFPROTO_IPV4
	}
	return match{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{family})}
}

func protocol(p byte) match {
	return match{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{p})}
}

// network and transport read bytes behind the start of those headers.
func network(offset, n uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: n}
}

func transport(offset, n uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: n}
}

const (
	atSource      = 0
	atDestination = 2
)

func port(at uint32, number uint16) match {
	return match{transport(at, 2), equal(binary.BigEndian.AppendUint16(nil, number))}
}

// Where the addresses stand in the two IP headers.
func address(v4, source bool) expr.Any {
	switch {
	case v4 && source:
		return network(12, 4)
	case v4:
		return network(16, 4)
	case source:
		return network(8, 16)
	}
	return network(24, 16)
}

func inSet(s *nftables.Set, v4, source bool) match {
	return append(ofFamily(v4), address(v4, source), &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID})
}

func inPrefix(p netip.Prefix, source bool) match {
	v4 := p.Addr().Is4()
	n := uint32(p.Addr().BitLen() / 8)
	return append(ofFamily(v4), address(v4, source),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: n, Mask: maskOf(p), Xor: make([]byte, n)}, equal(p.Addr().AsSlice()))
}

func maskOf(p netip.Prefix) []byte {
	b := make([]byte, p.Addr().BitLen()/8)
	for bit := range p.Bits() {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return b
}

// laterFragment is a fragment without the ports, which are in the first.
func laterFragment(v4 bool) match {
	offset, mask := network(6, 2), uint16(0x1fff) // RFC 791
	if !v4 {
		offset, mask = &expr.Exthdr{DestRegister: 1, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6}, 0xfff8
	}
	zero := []byte{0, 0}
	return append(ofFamily(v4), offset,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: binary.BigEndian.AppendUint16(nil, mask), Xor: zero},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: zero})
}

// neighbourDiscovery is the solicitations and advertisements of RFC 4861 §4,
// which come from the link alone. Redirects are not among them.
func neighbourDiscovery() match {
	const solicitRouter, advertiseNeighbour = 133, 136
	return matching(ofFamily(false), protocol(unix.IPPROTO_ICMPV6), match{
		network(7, 1), equal([]byte{255}), // hop limit
		transport(0, 1), &expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: []byte{solicitRouter}, ToData: []byte{advertiseNeighbour}}})
}

// outerError is an ICMP error about a packet of the gateway itself: what a
// router quotes is UDP from a port of ours. An error about an inner packet must
// come by the tunnel.
func outerError(v4 bool, kind byte, from uint16) match {
	icmp, quoted := byte(unix.IPPROTO_ICMP), match{
		transport(8, 1), equal([]byte{0x45}), // without options
		transport(8+9, 1), equal([]byte{unix.IPPROTO_UDP}),
		transport(8+20, 2)}
	if !v4 {
		icmp, quoted = unix.IPPROTO_ICMPV6, match{
			transport(8+6, 1), equal([]byte{unix.IPPROTO_UDP}),
			transport(8+40, 2)}
	}
	return matching(ofFamily(v4), protocol(icmp), match{transport(0, 1), equal([]byte{kind})}, quoted,
		match{equal(binary.BigEndian.AppendUint16(nil, from))})
}
