package esp

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

const (
	tcp, udp, icmp, icmp6, gre = 6, 17, 1, 58, 47
	opaqueStart, opaqueEnd     = 65535, 0
)

// sel selects a range of addresses, a protocol and ports.
func sel(first, last string, protocol uint8, startPort, endPort uint16) []wire.Selector {
	return []wire.Selector{{Protocol: protocol, StartPort: startPort, EndPort: endPort,
		Start: netip.MustParseAddr(first), End: netip.MustParseAddr(last)}}
}

func any4(protocol uint8, startPort, endPort uint16) []wire.Selector {
	return sel("0.0.0.0", "255.255.255.255", protocol, startPort, endPort)
}

func any6(protocol uint8, startPort, endPort uint16) []wire.Selector {
	return sel("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", protocol, startPort, endPort)
}

func edit(b []byte, f func(b []byte)) []byte { f(b); return b }

// TestSelectors has each packet beside the selectors of its source and its
// destination.
func TestSelectors(t *testing.T) {
	web := ip4("10.1.0.5", "10.2.0.5", tcp, l4(40000, 443)...)
	v6 := func(next byte, payload ...byte) []byte {
		return ip6("2001:db8:1::5", "2001:db8:2::5", next, payload...)
	}
	frag4 := func(field0, field1 byte) []byte {
		return edit(ip4("10.1.0.5", "10.2.0.5", udp, l4(5000, 53)...), func(b []byte) { b[6], b[7] = field0, field1 })
	}
	fragment := func(next, offset, more byte, rest []byte) []byte {
		return v6(44, append([]byte{next, 0, 0, offset<<3 | more, 0, 0, 0, 1}, rest...)...)
	}
	all4, all6 := any4(0, 0, 65535), any6(0, 0, 65535)
	for _, v := range []struct {
		name     string
		packet   []byte
		from, to []wire.Selector
		want     bool
	}{
		{"any", web, all4, all4, true},
		{"no selectors", web, nil, all4, false},
		{"no selectors to", web, all4, nil, false},
		{"the range's first", web, sel("10.1.0.5", "10.1.0.9", 0, 0, 65535), all4, true},
		{"the range's last", web, sel("10.1.0.1", "10.1.0.5", 0, 0, 65535), all4, true},
		{"before the range", web, sel("10.1.0.6", "10.1.0.9", 0, 0, 65535), all4, false},
		{"after the range", web, sel("10.1.0.1", "10.1.0.4", 0, 0, 65535), all4, false},
		{"destination after the range", web, all4, sel("10.2.0.0", "10.2.0.4", 0, 0, 65535), false},
		{"0.0.0.0 alone", web, sel("0.0.0.0", "0.0.0.0", 0, 0, 65535), all4, false},
		{"another's virtual address", ip4("10.9.0.2", "10.2.0.5", udp), sel("10.9.0.1", "10.9.0.1", 0, 0, 65535), all4, false},
		{"IPv6 selectors", web, all6, all6, false},
		{"IPv4 in IPv6 selectors", web, sel("::ffff:10.1.0.5", "::ffff:10.1.0.5", 0, 0, 65535), all4, false},
		{"IPv4-mapped IPv6 under IPv4 selectors", ip6("::ffff:10.1.0.5", "::ffff:10.2.0.5", tcp, l4(1, 2)...), all4, all4, false},
		{"the second selector", web, slices.Concat(sel("10.7.0.0", "10.7.0.9", 0, 0, 65535), all4), all4, true},
		{"the protocol", web, any4(tcp, 0, 65535), any4(tcp, 0, 65535), true},
		{"another protocol", web, any4(udp, 0, 65535), all4, false},
		{"another protocol to", web, all4, any4(udp, 0, 65535), false},
		{"ports", web, any4(tcp, 40000, 40000), any4(tcp, 443, 443), true},
		{"ports swapped", web, any4(tcp, 443, 443), any4(tcp, 40000, 40000), false},
		{"port below", web, any4(tcp, 40001, 50000), all4, false},
		{"port above", web, all4, any4(tcp, 1, 442), false},
		{"port of another protocol", ip4("10.1.0.5", "10.2.0.5", udp, l4(1, 443)...), all4, any4(tcp, 443, 443), false},
		{"ports 1 to 65535", web, all4, any4(tcp, 1, 65535), true},
		{"port 0", ip4("10.1.0.5", "10.2.0.5", tcp, l4(1, 0)...), all4, any4(tcp, 1, 65535), false},
		{"ports after IPv4 options", edit(ip4("10.1.0.5", "10.2.0.5", tcp, append([]byte{1, 1, 1, 1}, l4(40000, 443)...)...), func(b []byte) { b[0] = 0x46 }), all4, any4(tcp, 443, 443), true},
		{"UDP", ip4("10.1.0.5", "10.2.0.5", udp, l4(5000, 53)...), any4(udp, 5000, 5000), any4(udp, 53, 53), true},
		{"SCTP", ip4("10.1.0.5", "10.2.0.5", 132, l4(5000, 53)...), all4, any4(132, 53, 53), true},
		{"DCCP", ip4("10.1.0.5", "10.2.0.5", 33, l4(5000, 53)...), all4, any4(33, 53, 53), true},
		{"UDP-Lite", ip4("10.1.0.5", "10.2.0.5", 136, l4(5000, 53)...), all4, any4(136, 53, 54), true},
		{"no ports in GRE", ip4("10.1.0.5", "10.2.0.5", gre, l4(5000, 53)...), all4, any4(gre, 53, 53), false},
		{"GRE, any port", ip4("10.1.0.5", "10.2.0.5", gre, l4(5000, 53)...), all4, any4(gre, 0, 65535), true},
		{"GRE, OPAQUE", ip4("10.1.0.5", "10.2.0.5", gre, l4(5000, 53)...), any4(gre, opaqueStart, opaqueEnd), all4, true},
		{"OPAQUE, with ports", web, any4(tcp, opaqueStart, opaqueEnd), all4, false},
		{"too short for ports", ip4("10.1.0.5", "10.2.0.5", tcp, 1, 187, 1), all4, any4(tcp, 443, 443), false},
		{"too short for ports, any", ip4("10.1.0.5", "10.2.0.5", tcp, 1, 187, 1), all4, any4(tcp, 0, 65535), true},

		{"echo request", ping4(), any4(icmp, 8<<8, 8<<8), any4(icmp, 8<<8, 8<<8), true},
		{"echo reply", ip4("10.1.0.1", "10.2.0.1", icmp, 0, 0, 0, 0), any4(icmp, 8<<8, 8<<8|255), all4, false},
		{"a code of a type", ip4("10.1.0.1", "10.2.0.1", icmp, 3, 4, 0, 0), all4, any4(icmp, 3<<8|4, 3<<8|4), true},
		{"another code", ip4("10.1.0.1", "10.2.0.1", icmp, 3, 1, 0, 0), all4, any4(icmp, 3<<8|4, 3<<8|4), false},
		{"ICMPv6 type", ping6(), any6(icmp6, 128<<8, 128<<8), all6, true},
		{"another ICMPv6 type", ping6(), all6, any6(icmp6, 129<<8, 129<<8), false},
		{"mobility header", v6(135, 59, 0, 5, 9, 0, 0, 0, 0), any6(135, 5<<8, 5<<8), any6(135, 5<<8, 5<<8), true},

		{"first fragment", frag4(0x20, 0), all4, any4(udp, 53, 53), true},
		{"later fragment", frag4(0, 1), all4, any4(udp, 53, 53), false},
		{"later fragment, 2048 on", frag4(1, 0), all4, any4(udp, 53, 53), false},
		{"later fragment, 65528 on", frag4(0x1f, 0xff), any4(udp, 5000, 5000), all4, false},
		{"later fragment, any port", frag4(0, 1), any4(udp, 0, 65535), all4, true},
		{"later fragment, OPAQUE", frag4(0, 1), any4(udp, opaqueStart, opaqueEnd), any4(udp, opaqueStart, opaqueEnd), true},
		{"later fragment, another protocol", frag4(0, 1), any4(tcp, 0, 65535), all4, false},
		{"the don't-fragment bit", frag4(0x40, 0), all4, any4(udp, 53, 53), true},

		{"IPv6 ports", v6(udp, l4(5000, 53)...), any6(udp, 5000, 5000), any6(udp, 53, 53), true},
		{"IPv6 after the range", v6(udp, l4(5000, 53)...), sel("2001:db8:1::", "2001:db8:1::4", 0, 0, 65535), all6, false},
		{"IPv4 selectors for IPv6", v6(udp, l4(5000, 53)...), all4, all4, false},
		{"past hop-by-hop options", v6(0, append([]byte{udp, 0, 0, 0, 0, 0, 0, 0}, l4(5000, 53)...)...), all6, any6(udp, 53, 53), true},
		{"past 16 bytes of options", v6(60, append([]byte{udp, 1, 15: 0}, l4(5000, 53)...)...), all6, any6(udp, 53, 53), true},
		{"past routing and options", v6(43, append([]byte{60, 0, 7: 0, 8: udp, 15: 0}, l4(5000, 53)...)...), all6, any6(udp, 53, 53), true},
		{"the options are no protocol", v6(60, append([]byte{udp, 0, 7: 0}, l4(5000, 53)...)...), any6(60, 0, 65535), all6, false},
		{"options cut short", v6(60, udp, 9, 0, 0, 0, 0, 0, 0), any6(udp, 0, 65535), all6, false},
		{"options cut short, any", v6(60, udp, 9, 0, 0, 0, 0, 0, 0), all6, all6, true},
		{"options of 4 bytes", v6(60, udp, 0, 0, 0), any6(udp, 0, 65535), all6, false},
		{"options without end", v6(60, slices.Repeat([]byte{60, 0, 0, 0, 0, 0, 0, 0}, 20)...), any6(60, 0, 65535), all6, false},
		{"IPv6 first fragment", fragment(udp, 0, 1, l4(5000, 53)), all6, any6(udp, 53, 53), true},
		{"IPv6 later fragment", fragment(udp, 1, 1, l4(5000, 53)), all6, any6(udp, 53, 53), false},
		{"IPv6 later fragment, any port", fragment(udp, 1, 0, l4(5000, 53)), all6, any6(udp, 0, 65535), true},
		{"IPv6 later fragment, another protocol", fragment(udp, 1, 0, l4(5000, 53)), all6, any6(tcp, 0, 65535), false},
		{"IPv6 later fragment of options", fragment(60, 1, 0, l4(5000, 53)), all6, any6(60, 0, 65535), false},
		{"IPv6 later fragment of options, any", fragment(60, 1, 0, l4(5000, 53)), all6, all6, true},
		{"IPv6 fragment header cut short", v6(44, udp, 0, 0), any6(44, 0, 65535), all6, false},
		{"AH is a protocol", v6(51, append([]byte{udp, 4, 23: 0}, l4(5000, 53)...)...), any6(51, 0, 65535), all6, true},
		{"AH hides its ports", v6(51, append([]byte{udp, 4, 23: 0}, l4(5000, 53)...)...), all6, any6(udp, 53, 53), false},
		{"IPv6 with nothing", v6(59), any6(59, 0, 65535), all6, true},
	} {
		f, ok := parse(v.packet)
		if !ok {
			t.Errorf("%s: %x does not parse", v.name, v.packet)
			continue
		}
		if got := f.within(v.from, v.to); got != v.want {
			t.Errorf("%s: %v", v.name, got)
		}
	}
}

// TestDetours: selectors see only the next stop of a packet that names others.
func TestDetours(t *testing.T) {
	options := func(b ...byte) []byte {
		return edit(ip4("10.1.0.5", "10.2.0.5", udp, append(b, l4(5000, 53)...)...), func(p []byte) { p[0] = 0x40 | byte(5+len(b)/4) })
	}
	route := func(left byte) []byte { return append([]byte{udp, 0, 0, left, 0, 0, 0, 0}, l4(5000, 53)...) }
	for _, v := range []struct {
		name   string
		packet []byte
		want   bool
	}{
		{"none", ping4(), false},
		{"loose", options(131, 7, 4, 10, 7, 0, 1, 0), true},
		{"strict", options(137, 7, 4, 10, 7, 0, 1, 0), true},
		{"behind others", options(1, 148, 4, 0, 0, 131, 3, 4), true}, // a router alert
		{"behind the end", options(0, 131, 7, 4), false},
		{"recorded only", options(7, 7, 4, 0, 0, 0, 0, 0), false},
		{"of no length", options(148, 0, 131, 7), false},
		{"of too great a length", options(148, 9, 131, 7), false},
		{"IPv6", ping6(), false},
		{"IPv6, one left", ip6("2001:db8:1::5", "2001:db8:2::5", 43, route(1)...), true},
		{"IPv6, none left", ip6("2001:db8:1::5", "2001:db8:2::5", 43, route(0)...), false},
		{"IPv6, behind options", ip6("2001:db8:1::5", "2001:db8:2::5", 60, append([]byte{43, 0, 1, 4, 0, 0, 0, 0}, route(1)...)...), true},
	} {
		if f, ok := parse(v.packet); !ok || f.detour != v.want {
			t.Errorf("%s: %v %v", v.name, ok, f.detour)
		}
	}
	out, in := pair(t, "aes128gcm16", 64, 1)
	if _, authentic, err := in.Open(nil, seal(t, out, options(131, 7, 4, 10, 7, 0, 1, 0)), 0); !authentic || err != ErrSelector {
		t.Errorf("opened: %v, %v", authentic, err)
	}
}

// TestECN is the table of RFC 6040 §4.2; -1 is a drop.
func TestECN(t *testing.T) {
	table := map[[2]uint8]int{ // inner, outer
		{notECT, notECT}: notECT, {notECT, ect0}: notECT, {notECT, ect1}: notECT, {notECT, ce}: -1,
		{ect0, notECT}: ect0, {ect0, ect0}: ect0, {ect0, ect1}: ect1, {ect0, ce}: ce,
		{ect1, notECT}: ect1, {ect1, ect0}: ect1, {ect1, ect1}: ect1, {ect1, ce}: ce,
		{ce, notECT}: ce, {ce, ect0}: ce, {ce, ect1}: ce, {ce, ce}: ce,
	}
	for fields, want := range table {
		inner, outer := fields[0], fields[1]
		for dscp := range uint8(64) {
			v4, v6 := ip4("10.1.0.1", "10.2.0.1", 17, 1, 2, 3, 4), ip6("2001:db8:1::1", "2001:db8:2::1", 17, 1, 2, 3, 4)
			v4[1] = dscp<<2 | inner
			v4[10], v4[11] = 0, 0
			s := ^sum(v4[:20])
			v4[10], v4[11] = byte(s>>8), byte(s)
			v6[0] |= dscp >> 2
			v6[1] |= dscp<<6 | inner<<4
			for _, b := range [][]byte{v4, v6} {
				checkECN(t, b, outer, want, dscp)
			}
		}
	}
	if len(table) != 16 {
		t.Errorf("%d cells", len(table))
	}
}

// checkECN sends a packet through a tunnel whose outer field became outer.
func checkECN(t *testing.T, b []byte, outer uint8, want int, dscp uint8) {
	t.Helper()
	out, in := pair(t, "aes128gcm16", 64, 1)
	got, authenticated, err := in.Open(nil, seal(t, out, b), outer|0xfc)
	if want < 0 {
		if err != ErrECN || !authenticated || got != nil {
			t.Errorf("%x under %d: %x, %v, %v", b[:2], outer, got, authenticated, err)
		}
		return
	}
	if err != nil {
		t.Errorf("%x under %d: %v", b[:2], outer, err)
		return
	}
	class := got[1]
	if got[0]>>4 == 6 {
		class = got[0]<<4 | got[1]>>4
	} else if sum(got[:20]) != 0xffff {
		t.Errorf("%x under %d: checksum wrong in %x", b[:2], outer, got)
	}
	if class != dscp<<2|uint8(want) || !slices.Equal(got[2:10], b[2:10]) || !slices.Equal(got[12:], b[12:]) {
		t.Errorf("%x under %d: class %#x, want %#x", b[:2], outer, class, dscp<<2|uint8(want))
	}
}
