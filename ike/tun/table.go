package tun

import (
	"net/netip"
	"slices"
)

// table finds tunnels by the destination of an inner packet. The longest prefix
// wins.
type table struct {
	byPrefix map[netip.Prefix][]*tunnel
	v4, v6   [129]int // how many prefixes there are of each length
}

func newTable() table { return table{byPrefix: map[netip.Prefix][]*tunnel{}} }

// lengths are the counts for the family of a.
func (t *table) lengths(a netip.Addr) *[129]int {
	if a.Is4() {
		return &t.v4
	}
	return &t.v6
}

func (t *table) add(x *tunnel) {
	for _, p := range x.routes {
		list := t.byPrefix[p]
		if len(list) == 0 {
			t.lengths(p.Addr())[p.Bits()]++
		}
		// A reader may hold the old slice.
		t.byPrefix[p] = append([]*tunnel{x}, list...)
	}
}

func (t *table) remove(x *tunnel) {
	for _, p := range x.routes {
		list := slices.DeleteFunc(slices.Clone(t.byPrefix[p]), func(y *tunnel) bool { return x == y })
		t.byPrefix[p] = list
		if len(list) == 0 {
			delete(t.byPrefix, p)
			t.lengths(p.Addr())[p.Bits()]--
		}
	}
}

// find looks at the prefixes that have so many bits at least.
func (t *table) find(found []*tunnel, src, dst netip.Addr, least int) []*tunnel {
	lengths := t.lengths(dst)
	for bits := dst.BitLen(); bits >= least; bits-- {
		if lengths[bits] == 0 {
			continue
		}
		p, _ := dst.Prefix(bits) // cannot fail for that many bits
		for _, x := range t.byPrefix[p] {
			if covers(x.local, src) && !slices.Contains(found, x) {
				found = append(found, x)
			}
		}
	}
	return found
}

// addressesOf reads the addresses of an IP packet.
func addressesOf(b []byte) (src, dst netip.Addr, ok bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), true
	case len(b) >= 40 && b[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), true
	}
	return src, dst, false
}
