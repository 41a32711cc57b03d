package xfrm

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// keyByte fills the keys of hand-made messages.
const keyByte = 0xa5

// message is a hand-made message of the kernel's.
type message struct {
	kind uint16
	body []byte
	ends []int // lengths at which the structure and each attribute end
}

func (m message) attr(kind uint16, value ...byte) message {
	native := binary.NativeEndian
	b := native.AppendUint16(m.body[:len(m.body):len(m.body)], uint16(sizeofAttr+len(value)))
	b = native.AppendUint16(b, kind)
	b = append(b, value...)
	end := len(b)
	b = append(b, make([]byte, aligned(end)-end)...)
	ends := m.ends[:len(m.ends):len(m.ends)]
	for n := end; n <= len(b); n++ { // the padding may be cut
		ends = append(ends, n)
	}
	return message{m.kind, b, ends}
}

// u32 and u64 are values in host order.
func u32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.NativeEndian.AppendUint64(nil, v) }

// algorithm is struct xfrm_algo_aead and the like, with a key of 36 bytes.
func algorithm(name string) []byte {
	b := make([]byte, 72+36)
	copy(b, name)
	copy(b[64:], u32(36*8))
	for i := range b[72:] {
		b[72+i] = keyByte
	}
	return b
}

func family(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// userSA is struct xfrm_usersa_info, field by field as linux/xfrm.h has them.
func userSA(kind uint16, sa SA, window uint8) message {
	native := binary.NativeEndian
	var b []byte
	b = append(b, make([]byte, 56)...) // selector
	b = append(b, raw(sa.Dst)...)
	b = binary.BigEndian.AppendUint32(b, sa.SPI)
	b = append(b, sa.Proto, 0, 0, 0)
	b = append(b, raw(sa.Src)...)
	for range 8 { // configured lifetimes: infinite
		b = native.AppendUint64(b, ^uint64(0))
	}
	for _, v := range []uint64{sa.Bytes, sa.Packets, seconds(sa.Added), seconds(sa.FirstUsed)} {
		b = native.AppendUint64(b, v)
	}
	for _, v := range []uint32{0xdead, sa.Replayed, sa.IntegrityFailed, 0xbeef /* seq */, sa.Reqid} {
		b = native.AppendUint32(b, v)
	}
	b = native.AppendUint16(b, family(sa.Dst))
	flags := byte(0x20)
	if sa.ESN {
		flags |= 0x80
	}
	b = append(b, 1 /* tunnel */, window, flags)
	b = append(b, make([]byte, sizeofUserSA-len(b))...)
	return message{kind: kind, body: b, ends: []int{len(b)}}
}

func raw(a netip.Addr) []byte { return append(a.AsSlice(), make([]byte, 16-len(a.AsSlice()))...) }

func seconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.Unix())
}

func expire(sa SA, hard bool) message {
	m := userSA(nl.XFRM_MSG_EXPIRE, sa, 0)
	m.body = append(m.body, 0, 0, 0, 0, 0, 0, 0, 0)
	if hard {
		m.body[sizeofUserSA] = 1
	}
	m.ends = []int{len(m.body)}
	return m
}

func mapping(k Key, before, after netip.AddrPort) message {
	b := appendID(nil, k)
	b = append(b, u32(7)...) // reqid
	b = append(b, raw(before.Addr())...)
	b = append(b, raw(after.Addr())...)
	b = binary.BigEndian.AppendUint16(b, before.Port())
	b = binary.BigEndian.AppendUint16(b, after.Port())
	return message{kind: nl.XFRM_MSG_MAPPING, body: b, ends: []int{len(b)}}
}

// The states of most tests.
var (
	gateway = netip.MustParseAddr("198.51.100.1")
	nat     = netip.MustParseAddr("198.51.100.254")
	noon    = time.Unix(1_800_000_000, 0)

	inbound = SA{
		Key: Key{Dst: gateway, SPI: 0xc1234567, Proto: ESP}, Src: nat,
		Reqid: 3, Encap: true, SrcPort: 25724, DstPort: 4500, ReplayWindow: 32,
		Counters: Counters{Packets: 10, Bytes: 840, Added: noon, FirstUsed: noon.Add(time.Second), LastUsed: noon.Add(time.Minute),
			IntegrityFailed: 2, Replayed: 1},
	}
	inboundMessage = userSA(nl.XFRM_MSG_NEWSA, inbound, 32).
			attr(nl.XFRMA_ALG_AEAD, algorithm("rfc4106(gcm(aes))")...).
			attr(nl.XFRMA_ENCAP, 0, 2, 0x64, 0x7c, 0x11, 0x94, 0, 0, 0, 0, 0, 0).
			attr(nl.XFRMA_LASTUSED, u64(uint64(noon.Unix()+60))...)

	outboundV6 = SA{
		Key: Key{Dst: netip.MustParseAddr("2001:db8::2"), SPI: 0x00000100, Proto: AH}, Src: netip.MustParseAddr("2001:db8::1"),
		Direction: Outbound, Mark: Mark{0x10, 0xff}, IfID: 9, ReplayWindow: 128, ESN: true,
		Counters: Counters{Added: noon},
	}
	outboundV6Message = userSA(nl.XFRM_MSG_UPDSA, outboundV6, 7).
				attr(nl.XFRMA_ALG_AUTH, algorithm("hmac(sha256)")...).
				attr(nl.XFRMA_ALG_AUTH_TRUNC, algorithm("hmac(sha256)")...).
				attr(nl.XFRMA_MARK, append(u32(0x10), u32(0xff)...)...).
				attr(nl.XFRMA_IF_ID, u32(9)...).
				attr(nl.XFRMA_SA_DIR, 2).
				attr(nl.XFRMA_REPLAY_ESN_VAL, append(append(make([]byte, 20), u32(128)...), make([]byte, 16)...)...).
				attr(nl.XFRMA_PAD)

	larval = SA{Key: Key{Dst: gateway, SPI: 0xc7654321, Proto: ESP}, Src: nat, Larval: true, Counters: Counters{Added: noon}}
)
