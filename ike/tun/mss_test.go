package tun

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/ikepulse/ikepulse/ike/esp"
)

// Options of a SYN, as Linux sends them, and with a NOP in front.
var (
	linuxOptions = []byte{2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7} // MSS 1460
	oddOptions   = []byte{1, 2, 4, 0x05, 0xb4, 0, 0, 0}
)

// segment is a TCP header with options and data, without a checksum.
func segment(flags byte, options, data []byte) []byte {
	b := make([]byte, 20, 20+len(options)+len(data))
	binary.BigEndian.PutUint16(b, 51000)
	binary.BigEndian.PutUint16(b[2:], 443)
	binary.BigEndian.PutUint32(b[4:], 0x89abcdef)
	b[12], b[13] = byte(20+len(options))/4<<4, flags
	return append(append(b, options...), data...)
}

// tcp4 is an IPv4 packet with options of its own.
func tcp4(options, segment []byte) []byte {
	b := ip4("10.99.0.7", "10.0.0.1")[:20]
	b = append(append(b, options...), segment...)
	b[0], b[9] = 0x40|byte(20+len(options))/4, protocolTCP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return withChecksum(b)
}

// tcp6 is an IPv6 packet; first is the header behind the fixed one.
func tcp6(first byte, extensions, segment []byte) []byte {
	b := make([]byte, 40)
	b[0], b[6], b[7], b[8], b[24], b[39] = 0x60, first, 64, 0x20, 0x20, 1
	b = append(append(b, extensions...), segment...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	return withChecksum(b)
}

// withChecksum fills in a good one, where there is TCP to be found.
func withChecksum(b []byte) []byte {
	if at, end, _, ok := findTCP(b); ok && end-at >= 20 {
		binary.BigEndian.PutUint16(b[at+tcpChecksum:], 0)
		binary.BigEndian.PutUint16(b[at+tcpChecksum:], ^tcpSum(b, at, end))
	}
	return b
}

// tcpSum is the whole sum over the pseudo header and the segment, made from
// scratch: 0xffff if the checksum is good. RFC 9293 §3.1
func tcpSum(b []byte, at, end int) uint16 {
	addresses := b[12:20]
	if b[0]>>4 == 6 {
		addresses = b[8:40]
	}
	sum := uint32(protocolTCP + end - at)
	for _, part := range [][]byte{addresses, b[at:end]} {
		for i, x := range part {
			sum += uint32(x) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func edit(b []byte, f func([]byte)) []byte { f(b); return b }

func TestClampMSS(t *testing.T) {
	syn := func(options []byte) []byte { return segment(flagSYN, options, nil) }
	padded := func(next byte) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} } // 8 bytes with PadN
	for _, c := range []struct {
		name   string
		packet []byte
		mtu    int
		want   uint16 // 0: the packet stays as it is
	}{
		{"a SYN", tcp4(nil, syn(linuxOptions)), 1180, 1140},
		{"a SYN-ACK", tcp4(nil, segment(flagSYN|0x10, linuxOptions, nil)), 1180, 1140},
		{"a SYN with ECN", tcp4(nil, segment(flagSYN|0xc0, linuxOptions, nil)), 1180, 1140},
		{"a SYN with data", tcp4(nil, segment(flagSYN, linuxOptions, []byte("hello"))), 1180, 1140},
		{"IPv4 options", tcp4([]byte{7, 7, 4, 0, 0, 0, 0, 0}, syn(linuxOptions)), 1180, 1140},
		{"across two words", tcp4(nil, syn(oddOptions)), 1180, 1140},
		{"across two words, and data", tcp4(nil, segment(flagSYN, oddOptions, []byte("odd"))), 1001, 961},
		{"the least MTU", tcp4(nil, syn(linuxOptions)), 576, 536},
		{"IPv6", tcp6(6, nil, syn(linuxOptions)), 1280, 1220},
		{"IPv6, across two words", tcp6(6, nil, syn(oddOptions)), 1280, 1220},
		{"hop-by-hop options", tcp6(0, padded(6), syn(linuxOptions)), 1280, 1220},
		{"three extension headers", tcp6(0, append(append(padded(43), padded(60)...), padded(6)...), syn(linuxOptions)), 1280, 1220},
		{"something behind the packet", append(tcp4(nil, syn(linuxOptions)), 1, 2, 3), 1180, 1140},

		{"small already", tcp4(nil, syn([]byte{2, 4, 0x02, 0x18})), 1180, 0},
		{"exactly right", tcp4(nil, syn([]byte{2, 4, 0x04, 0x74})), 1180, 0},
		{"no option", tcp4(nil, syn(nil)), 1180, 0},
		{"other options", tcp4(nil, syn([]byte{4, 2, 1, 1})), 1180, 0},
		{"behind the end of options", tcp4(nil, syn([]byte{1, 1, 1, 0, 2, 4, 0x05, 0xb4})), 1180, 0},
		{"an option of another length", tcp4(nil, syn([]byte{2, 6, 0x05, 0xb4, 0, 0, 0, 0})), 1180, 0},
		{"an option cut short", tcp4(nil, syn([]byte{1, 1, 2, 4})), 1180, 0},
		{"an option that is only its kind", tcp4(nil, syn([]byte{1, 1, 1, 2})), 1180, 0},
		{"an option without end", tcp4(nil, syn([]byte{8, 0, 0, 0, 2, 4, 0x05, 0xb4})), 1180, 0},
		{"no SYN", tcp4(nil, segment(0x10, linuxOptions, nil)), 1180, 0},
		{"a RST", tcp4(nil, segment(flagSYN|flagRST, linuxOptions, nil)), 1180, 0},
		{"a first fragment", edit(tcp4(nil, syn(linuxOptions)), func(b []byte) { b[6] = 0x20 }), 1180, 0},
		{"a later fragment", edit(tcp4(nil, syn(linuxOptions)), func(b []byte) { b[7] = 1 }), 1180, 0},
		{"UDP", edit(tcp4(nil, syn(linuxOptions)), func(b []byte) { b[9] = 17 }), 1180, 0},
		{"a header that is too short", edit(tcp4(nil, syn(linuxOptions)), func(b []byte) { b[0] = 0x44 }), 1180, 0},
		{"a longer length than there is", edit(tcp4(nil, syn(linuxOptions)), func(b []byte) { b[3]++ }), 1180, 0},
		{"options beyond the packet", edit(tcp4(nil, syn(linuxOptions)), func(b []byte) { b[32] = 0xb0 }), 1180, 0},
		{"a TCP header that is too short", edit(tcp4(nil, syn(linuxOptions)), func(b []byte) { b[32] = 0x40 }), 1180, 0},
		{"an IPv6 fragment", tcp6(44, []byte{6, 0, 0, 1, 0, 0, 0, 1}, syn(linuxOptions)), 1280, 0},
		{"AH", tcp6(51, []byte{6, 0, 0, 0, 0, 0, 0, 0}, syn(linuxOptions)), 1280, 0},
		{"an extension header beyond the packet", tcp6(60, []byte{6, 200, 0, 0, 0, 0, 0, 0}, syn(linuxOptions)), 1280, 0},
		{"nothing", nil, 1180, 0},
		{"another version", []byte{0x50, 0, 0, 0}, 1180, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := bytes.Clone(c.packet)
			clampMSS(got, c.mtu)
			if c.want == 0 {
				if !bytes.Equal(got, c.packet) {
					t.Errorf("changed\n%x to\n%x", c.packet, got)
				}
				return
			}
			checkClamped(t, c.packet, got, c.want)
		})
	}
}

// checkClamped holds a packet to its form before the clamp: the value is as
// wanted, the checksum is as good as it was, and the rest is the same.
func checkClamped(t *testing.T, before, after []byte, want uint16) {
	t.Helper()
	o, ok := findMSS(after)
	if !ok {
		t.Fatalf("no MSS in %x", after)
	}
	if got := binary.BigEndian.Uint16(after[o.value:]); got != want {
		t.Errorf("MSS %d, want %d", got, want)
	}
	at, end, _, _ := findTCP(after)
	if was, is := tcpSum(before, at, end), tcpSum(after, at, end); was%0xffff != is%0xffff {
		t.Errorf("the sum is %#x, and was %#x", is, was)
	}
	rest := bytes.Clone(after)
	copy(rest[o.value:], before[o.value:o.value+2])
	copy(rest[o.tcp+tcpChecksum:], before[o.tcp+tcpChecksum:o.tcp+tcpChecksum+2])
	if !bytes.Equal(rest, before) {
		t.Errorf("more has changed than the MSS and the checksum:\n%x\n%x", before, after)
	}
}

// TestClampTruncated: a packet cut anywhere is never touched, nor is anything
// read behind its end.
func TestClampTruncated(t *testing.T) {
	for _, whole := range [][]byte{
		tcp4(nil, segment(flagSYN, linuxOptions, nil)),
		tcp6(0, []byte{6, 0, 1, 4, 0, 0, 0, 0}, segment(flagSYN, linuxOptions, nil)),
	} {
		for n := range whole {
			b := bytes.Clone(whole[:n])
			clampMSS(b[:n:n], 1180)
			if !bytes.Equal(b, whole[:n]) {
				t.Errorf("of %d bytes: %x", n, b)
			}
		}
	}
}

func FuzzClampMSS(f *testing.F) {
	f.Add(tcp4(nil, segment(flagSYN, linuxOptions, nil)), uint16(1180))
	f.Add(tcp4([]byte{1, 1, 1, 1}, segment(flagSYN|0x10, oddOptions, []byte("x"))), uint16(576))
	f.Add(tcp6(6, nil, segment(flagSYN, oddOptions, nil)), uint16(1280))
	f.Add(tcp6(0, []byte{6, 0, 1, 4, 0, 0, 0, 0}, segment(flagSYN, linuxOptions, nil)), uint16(9000))
	f.Fuzz(func(t *testing.T, packet []byte, size uint16) {
		mtu := 576 + int(size)%(9000-576+1)
		// Whatever the checksum is, a good one must be good afterwards, too.
		packet = withChecksum(bytes.Clone(packet))
		got := bytes.Clone(packet)
		clampMSS(got, mtu)
		o, ok := findMSS(packet)
		if !ok {
			if !bytes.Equal(got, packet) {
				t.Errorf("changed %x to %x", packet, got)
			}
			return
		}
		want := min(binary.BigEndian.Uint16(packet[o.value:]), uint16(mtu-o.overhead))
		checkClamped(t, packet, got, want)
		if at, end, _, _ := findTCP(got); tcpSum(got, at, end) != 0xffff {
			t.Errorf("the checksum is not good any more: %x", got)
		}
	})
}

// BenchmarkClamp shows what the clamp adds to Seal, for a packet of data and
// for a SYN.
func BenchmarkClamp(b *testing.B) {
	data := tcp4(nil, segment(0x10, nil, make([]byte, 1340)))
	syn := tcp4(nil, segment(flagSYN, linuxOptions, nil))
	b.Run("data", func(b *testing.B) {
		for b.Loop() {
			clampMSS(data, 1180)
		}
	})
	b.Run("data6", func(b *testing.B) {
		data := tcp6(6, nil, segment(0x10, nil, make([]byte, 1320)))
		for b.Loop() {
			clampMSS(data, 1280)
		}
	})
	b.Run("syn", func(b *testing.B) {
		for b.Loop() {
			binary.BigEndian.PutUint16(syn[42:], 1460)
			clampMSS(syn, 1180)
		}
	})
	b.Run("seal", func(b *testing.B) {
		out := sealer(b)
		room := make([]byte, 0, 2000)
		for b.Loop() {
			if _, err := out.Seal(room, data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// sealer seals anything.
func sealer(t testing.TB) *esp.Outbound {
	t.Helper()
	all := subnets("0.0.0.0/0", "::/0")
	c, _ := children(t, 1, all, all)
	return esp.NewOutbound(c.OutSPI, c.Suite, c.OutEncr, c.OutInteg, all, all, 1)
}
