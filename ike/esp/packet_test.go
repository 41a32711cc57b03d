package esp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/ikepulse/ikepulse/ike/internal/suite"
	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// suites are all that ESP can agree on, with and without ESN.
var suites = []string{
	"aes128gcm16", "aes192gcm16", "aes256gcm16-esn", "chacha20poly1305", "chacha20poly1305-esn",
	"aes128-sha256", "aes192-sha384-esn", "aes256-sha512",
}

func choice(t testing.TB, s string) suite.Choice {
	t.Helper()
	p, err := suite.ParseESP(s)
	if err != nil {
		t.Fatal(err)
	}
	c, err := suite.Choose([]suite.Proposal{p}, []wire.Proposal{p.Wire(1, wire.ProtoESP, []byte{1, 2, 3, 4})}, wire.ProtoESP, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c.Choice
}

// keys are those of a Child SA of that choice.
func keys(c suite.Choice) suite.ChildKeys {
	ike := suite.Choice{PRF: wire.PRFHMACSHA256}
	k := suite.ChildKeys{EncrI: new(suite.Key), IntegI: new(suite.Key), EncrR: new(suite.Key), IntegR: new(suite.Key)}
	ike.DeriveChild(k, c, newKey([]byte("SK_d")), []byte("Ni"), []byte("Nr"))
	return k
}

func newKey(b []byte) *suite.Key {
	k := new(suite.Key)
	k.Set(b)
	return k
}

const testSPI = 0xc0ffee01

// pair is the two ends of one direction: 10.1.0.0/16 and 2001:db8:1::/48 send
// to 10.2.0.0/16 and 2001:db8:2::/48.
func pair(t testing.TB, name string, windowSize int, firstSeq uint64) (*Outbound, *Inbound) {
	t.Helper()
	c := choice(t, name)
	k := keys(c)
	from := []wire.Selector{subnet("10.1.0.0/16"), subnet("2001:db8:1::/48")}
	to := []wire.Selector{subnet("10.2.0.0/16"), subnet("2001:db8:2::/48")}
	return NewOutbound(testSPI, c, k.EncrI, k.IntegI, from, to, firstSeq),
		NewInbound(testSPI, c, k.EncrI, k.IntegI, from, to, windowSize)
}

// subnet selects a network, any protocol and port.
func subnet(s string) wire.Selector {
	p := netip.MustParsePrefix(s)
	end := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(end); i++ {
		end[i/8] |= 1 << (7 - i%8)
	}
	last, _ := netip.AddrFromSlice(end)
	return wire.Selector{EndPort: 65535, Start: p.Addr(), End: last}
}

// ip4 is a packet with a right checksum.
func ip4(src, dst string, protocol byte, payload ...byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	copy(b[12:], netip.MustParseAddr(src).AsSlice())
	copy(b[16:], netip.MustParseAddr(dst).AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^sum(b))
	return append(b, payload...)
}

func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func ip6(src, dst string, next byte, payload ...byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], netip.MustParseAddr(src).AsSlice())
	copy(b[24:], netip.MustParseAddr(dst).AsSlice())
	return append(b, payload...)
}

// l4 begins a TCP or UDP header, or any with two ports, and 4 bytes more.
func l4(src, dst uint16) []byte {
	return append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, src), dst), 0, 8, 0, 0)
}

func ping4() []byte { return ip4("10.1.0.1", "10.2.0.1", 1, 8, 0, 0, 0, 0, 1, 0, 1) }
func ping6() []byte { return ip6("2001:db8:1::1", "2001:db8:2::1", 58, 128, 0, 0, 0, 0, 1, 0, 1) }

func seal(t testing.TB, o *Outbound, inner []byte) []byte {
	t.Helper()
	p, err := o.Seal(nil, inner)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sealRaw is a packet with this plaintext, trailer and all, as only a peer
// that breaks the rules would send it.
func sealRaw(t testing.TB, name string, seq uint64, text []byte) []byte {
	t.Helper()
	c := choice(t, name)
	k := keys(c)
	e := c.NewESP(k.EncrI, k.IntegI)
	p := binary.BigEndian.AppendUint32(nil, testSPI)
	p = binary.BigEndian.AppendUint32(p, uint32(seq))
	p = append(p, make([]byte, e.IVLen())...)
	p = append(p, text...)
	p = append(p, make([]byte, e.ICVLen())...)
	e.Seal(p, seq)
	return p
}

func TestSealOpen(t *testing.T) {
	for _, name := range suites {
		out, in := pair(t, name, 64, 1)
		for n := range 70 {
			for _, inner := range [][]byte{
				ip4("10.1.2.3", "10.2.3.4", 17, make([]byte, n)...),
				ip6("2001:db8:1::3", "2001:db8:2::4", 17, make([]byte, n)...),
			} {
				kept := bytes.Clone(inner)
				sealed, err := out.Seal([]byte("room"), inner)
				if err != nil || !bytes.HasPrefix(sealed, []byte("room")) || !bytes.Equal(inner, kept) {
					t.Fatalf("%s: sealed %x, %v", name, sealed, err)
				}
				packet := sealed[4:]
				if bytes.Contains(packet, inner[12:20]) {
					t.Fatalf("%s: not encrypted", name)
				}
				kept = bytes.Clone(packet)
				got, authenticated, err := in.Open([]byte("head"), packet, 0)
				if err != nil || !authenticated || !bytes.Equal(got, append([]byte("head"), inner...)) {
					t.Fatalf("%s, %d bytes: opened %x, %v, %v", name, n, got, authenticated, err)
				}
				if !bytes.Equal(packet, kept) {
					t.Fatalf("%s: Open wrote to its input", name)
				}
			}
		}
	}
}

// TestLayout wants a ciphertext that ends on a block, and on 4 bytes.
func TestLayout(t *testing.T) {
	for name, v := range map[string]struct{ iv, icv, align int }{
		"aes256gcm16": {8, 16, 4}, "chacha20poly1305": {8, 16, 4}, "aes128-sha256": {16, 16, 16}, "aes128-sha512": {16, 32, 16},
	} {
		out, _ := pair(t, name, 64, 7)
		for n := range 40 {
			inner := ip4("10.1.2.3", "10.2.3.4", 17, make([]byte, n)...)
			p := seal(t, out, inner)
			if got := len(p) - 8 - v.iv - v.icv; got%v.align != 0 || got < len(inner)+2 || got >= len(inner)+2+v.align {
				t.Errorf("%s: %d bytes of ciphertext for %d", name, got, len(inner))
			}
			if binary.BigEndian.Uint32(p) != testSPI || binary.BigEndian.Uint32(p[4:]) != uint32(7+n) || out.Next() != uint64(8+n) {
				t.Errorf("%s: head %x", name, p[:8])
			}
		}
	}
}

// TestChaCha20 opens the packet of RFC 7634 appendix A.
func TestChaCha20(t *testing.T) {
	key := make([]byte, 36)
	for i := range key {
		key[i] = 0x80 + byte(i)
	}
	packet := slices.Concat([]byte{1, 2, 3, 4, 0, 0, 0, 5}, []byte{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17},
		[]byte("\x24\x03\x94\x28\xb9\x7f\x41\x7e\x3c\x13\x75\x3a\x4f\x05\x08\x7b\x67\xc3\x52\xe6\xa7\xfa\xb1\xb9\x82\xd4\x66\xef\x40\x7a\xe5\xc6"),
		[]byte("\x14\xee\x80\x99\xd5\x28\x44\xeb\x61\xaa\x95\xdf\xab\x4c\x02\xf7\x2a\xa7\x1e\x7c\x4c\x4f\x64\xc9\xbe\xfe\x2f\xac\xc6\x38\xe8\xf3"),
		[]byte("\xcb\xec\x16\x3f\xac\x46\x9b\x50\x27\x73\xf6\xfb\x94\xe6\x64\xda\x91\x65\xb8\x28\x29\xf6\x41\xe0"),
		[]byte("\x76\xaa\xa8\x26\x6b\x7f\xb0\xf7\xb1\x1b\x36\x99\x07\xe1\xad\x43"))
	in := NewInbound(0x01020304, choice(t, "chacha20poly1305"), newKey(key), new(suite.Key),
		[]wire.Selector{subnet("198.51.100.5/32")}, []wire.Selector{subnet("192.0.2.5/32")}, 64)
	inner, authenticated, err := in.Open(nil, packet, 0)
	if err != nil || !authenticated || len(inner) != 84 || sum(inner[:20]) != 0xffff || sum(inner[20:]) != 0xffff {
		t.Errorf("opened %x, %v, %v", inner, authenticated, err)
	}
}

// TestTamper flips each bit, cuts at each length and adds a byte; the packet
// itself must still be taken afterwards.
func TestTamper(t *testing.T) {
	for _, name := range suites {
		out, in := pair(t, name, 64, 1)
		packet := seal(t, out, ping4())
		for i := range 8 * len(packet) {
			bad := bytes.Clone(packet)
			bad[i/8] ^= 1 << (i % 8)
			if got, authenticated, err := in.Open(nil, bad, 0); err == nil || authenticated || got != nil {
				t.Fatalf("%s: bit %d flipped: %x, %v, %v", name, i, got, authenticated, err)
			}
		}
		for n := range packet {
			if got, authenticated, err := in.Open(nil, packet[:n:n], 0); err == nil || authenticated || got != nil {
				t.Fatalf("%s: cut to %d: %x, %v, %v", name, n, got, authenticated, err)
			}
		}
		if _, authenticated, err := in.Open(nil, append(bytes.Clone(packet), 0), 0); err != ErrICV || authenticated {
			t.Errorf("%s: a byte more: %v", name, err)
		}
		if _, authenticated, err := in.Open(nil, packet, 0); err != nil || !authenticated {
			t.Errorf("%s: the packet itself: %v", name, err)
		}
	}
}

// TestErrors names each refusal, and whether it is evidence of life.
func TestErrors(t *testing.T) {
	good := ping4()
	trailed := func(b []byte, trailer ...byte) []byte { return append(bytes.Clone(b), trailer...) }
	cut := ip4("10.1.0.1", "10.2.0.1", 17, make([]byte, 20)...)[:30]
	for _, v := range []struct {
		name string
		text []byte
		want error
	}{
		{"good", trailed(good, 1, 2, 2, 4), nil},
		{"TFC padding", trailed(append(bytes.Clone(good), make([]byte, 100)...), 1, 2, 2, 4), nil},
		{"the most padding", trailed(good, append(count(254), 254, 4)...), nil},
		{"no padding", trailed(ip4("10.1.0.1", "10.2.0.1", 17, 1, 2), 0, 4), nil},
		{"padding of zeros", trailed(good, 0, 0, 2, 4), ErrMalformed},
		{"padding from 0", trailed(good, 0, 1, 2, 4), ErrMalformed},
		{"padding that ends wrong", trailed(good, 1, 3, 2, 4), ErrMalformed},
		{"padding longer than the packet", trailed(good, 1, 2, 255, 4), ErrMalformed},
		{"nothing but padding", append(count(2), 2, 4), ErrMalformed},
		{"dummy", trailed(good, 1, 2, 2, 59), ErrDummy},
		{"empty dummy", append(count(2), 2, 59), ErrDummy},
		{"dummy with wrong padding", trailed(good, 0, 0, 2, 59), ErrMalformed},
		{"IPv4 said to be IPv6", trailed(good, 1, 2, 2, 41), ErrMalformed},
		{"IPv6 said to be IPv4", trailed(ping6(), 1, 2, 2, 4), ErrMalformed},
		{"IPv6", trailed(ping6(), 1, 2, 2, 41), nil},
		{"transport mode", trailed(good, 1, 2, 2, 17), ErrMalformed},
		{"version 5", trailed(append([]byte{0x55}, good[1:]...), 1, 2, 2, 4), ErrMalformed},
		{"a header of 16", trailed(append([]byte{0x44}, good[1:]...), 1, 2, 2, 4), ErrMalformed},
		{"a header of 60", trailed(append([]byte{0x4f}, good[1:]...), 1, 2, 2, 4), ErrMalformed},
		{"longer than it came", trailed(cut, 1, 2, 3, 4, 4, 4), ErrMalformed},
		{"IPv6 longer than it came", trailed(ping6()[:46], 1, 2, 2, 41), ErrMalformed},
		{"IPv6 cut in its header", trailed(ping6()[:38], 1, 2, 2, 41), ErrMalformed},
		{"IPv4 cut in its header", trailed(good[:18], 1, 2, 2, 4), ErrMalformed},
		{"another source", trailed(ip4("10.3.0.1", "10.2.0.1", 1, 8, 0, 0, 0), 1, 2, 2, 4), ErrSelector},
		{"another destination", trailed(ip4("10.1.0.1", "10.3.0.1", 1, 8, 0, 0, 0), 1, 2, 2, 4), ErrSelector},
		{"the ends swapped", trailed(ip4("10.2.0.1", "10.1.0.1", 1, 8, 0, 0, 0), 1, 2, 2, 4), ErrSelector},
	} {
		for _, name := range []string{"aes128gcm16", "chacha20poly1305-esn"} {
			_, in := pair(t, name, 64, 1)
			packet := sealRaw(t, name, 1, v.text)
			got, authenticated, err := in.Open(nil, packet, 0)
			if err != v.want || !authenticated || (err == nil) != (got != nil) {
				t.Errorf("%s: %x, %v, %v", v.name, got, authenticated, err)
			}
			if _, authenticated, err := in.Open(nil, packet, 0); err != ErrReplay || authenticated {
				t.Errorf("%s, again: %v, %v", v.name, authenticated, err)
			}
		}
	}
	out, in := pair(t, "aes128gcm16", 64, 1)
	for name, packet := range map[string][]byte{"nothing": nil, "7 bytes": make([]byte, 7), "another SPI": make([]byte, 80)} {
		if _, authenticated, err := in.Open(nil, packet, 0); err != ErrMalformed || authenticated {
			t.Errorf("%s: %v, %v", name, authenticated, err)
		}
	}
	for name, inner := range map[string][]byte{"nothing": nil, "version 0": make([]byte, 40), "cut": good[:len(good)-1]} {
		if _, err := out.Seal(nil, inner); err != ErrMalformed {
			t.Errorf("seal %s: %v", name, err)
		}
	}
	if _, err := out.Seal(nil, ip4("10.2.0.1", "10.1.0.1", 17)); err != ErrSelector || out.Next() != 1 {
		t.Errorf("sealed against the direction: %v, next %d", err, out.Next())
	}
}

// count is the padding 1, 2, 3, …
func count(n int) (b []byte) {
	for i := range n {
		b = append(b, byte(i+1))
	}
	return b
}

// TestSealTrims: bytes after the inner packet are not sent.
func TestSealTrims(t *testing.T) {
	out, in := pair(t, "aes128gcm16", 64, 1)
	packet := seal(t, out, append(ping4(), 1, 2, 3, 4, 5, 6, 7, 8))
	if got, _, err := in.Open(nil, packet, 0); err != nil || !bytes.Equal(got, ping4()) || len(packet) != 8+8+32+16 {
		t.Errorf("got %x, %v", got, err)
	}
}

// TestSequenceEnd wants the last number to be used once, and none after it.
// RFC 4303 §3.3.3
func TestSequenceEnd(t *testing.T) {
	for name, last := range map[string]uint64{"aes128gcm16": 1<<32 - 1, "aes128gcm16-esn": 1<<64 - 1, "aes128-sha256": 1<<32 - 1} {
		out, _ := pair(t, name, 64, last-1)
		seal(t, out, ping4())
		seal(t, out, ping4())
		for range 3 {
			if p, err := out.Seal(nil, ping4()); err != ErrSequence || p != nil {
				t.Errorf("%s: %x after the last number, %v", name, p, err)
			}
		}
	}
	out, _ := pair(t, "aes128gcm16", 64, 1<<32)
	if _, err := out.Seal(nil, ping4()); err != ErrSequence {
		t.Errorf("began past the end: %v", err)
	}
	out, _ = pair(t, "aes128gcm16", 64, 0)
	if p := seal(t, out, ping4()); binary.BigEndian.Uint32(p[4:]) != 1 {
		t.Errorf("the number 0 was sent")
	}
}

// TestNoAllocation: a packet costs none, with room in dst.
func TestNoAllocation(t *testing.T) {
	for _, name := range suites {
		out, in := pair(t, name, 64, 1)
		inner := ip4("10.1.0.1", "10.2.0.1", 17, make([]byte, 1000)...)
		packet, plain := make([]byte, 0, 2000), make([]byte, 0, 2000)
		n := testing.AllocsPerRun(100, func() {
			p, err := out.Seal(packet, inner)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := in.Open(plain, p, uint8(in.window.top)); err != nil && err != ErrECN {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations a packet", name, n)
		}
	}
}

// FuzzInboundOpen sends anything, sealed by nobody and sealed by the peer.
func FuzzInboundOpen(f *testing.F) {
	for i, name := range suites {
		out, _ := pair(f, name, 64, 1)
		p := seal(f, out, ping4())
		f.Add(p, uint8(i), uint8(0))
		f.Add(p[:20], uint8(i), uint8(3))
		f.Add(append(ping6(), 1, 2, 2, 41), uint8(i), uint8(1))
		f.Add(ip6("2001:db8:1::1", "2001:db8:2::1", 44, 60, 0, 0, 9, 0, 0, 0, 1, 0, 41), uint8(i), uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, which, ecn uint8) {
		name := suites[int(which)%len(suites)]
		out, in := pair(t, name, 64, 1)
		kept := bytes.Clone(b)
		got, authenticated, err := in.Open(nil, b, ecn)
		if !bytes.Equal(b, kept) {
			t.Fatal("Open wrote to its input")
		}
		if authenticated && !bytes.Equal(seal(t, out, ping4()), b) {
			t.Fatalf("%x is authenticated, and nobody sealed it", b)
		}
		if !authenticated && (got != nil || err == nil) {
			t.Fatalf("opened %x, %v", got, err)
		}
		// The same bytes from a peer that holds the keys.
		text := b[:len(b)/16*16]
		_, in = pair(t, name, 64, 1)
		got, authenticated, err = in.Open(nil, sealRaw(t, name, 5, text), ecn)
		if !authenticated || (err == nil) != (got != nil) {
			t.Fatalf("%x: opened %x, %v, %v", text, got, authenticated, err)
		}
		if err != nil {
			return
		}
		if f, ok := parse(got); !ok || f.length != len(got) || !f.within(in.remote, in.local) {
			t.Fatalf("%x was let in", got)
		}
	})
}
