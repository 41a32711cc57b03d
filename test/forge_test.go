package test

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/ikepulse/ikepulse/test/lab"
	"github.com/ikepulse/ikepulse/test/lab/charon"
)

// keyLog makes strongSwan log the keys of its Child SAs.
const keyLog = "filelog {\nlog {\nchd = 4\n}\n}\n"

// forger makes ESP packets of a strongSwan's tunnel, with its keys: AES-GCM,
// without ESN.
type forger struct {
	t        *testing.T
	ns       *lab.Namespace
	from, to netip.AddrPort
	spi, seq uint32
	aead     cipher.AEAD
	salt     []byte
}

// newForger forges what client i sends by its only tunnel.
func (s *site) newForger(i int, d *charon.Daemon) *forger {
	s.Helper()
	return s.forgerAt(s.net.Clients[i], d, "initiator", netip.AddrPortFrom(lab.ClientAddr(i), lab.NATTPort), netip.AddrPortFrom(lab.GatewayAddr, lab.NATTPort))
}

// forgerAt reads the outbound keys of the only tunnel of a strongSwan in that
// role from its log. Sequence numbers begin far above those that strongSwan has
// used.
func (s *site) forgerAt(ns *lab.Namespace, d *charon.Daemon, role string, from, to netip.AddrPort) *forger {
	s.Helper()
	_, child := only(s.T, d)
	key := loggedKey(s.T, d.Log(), "encryption "+role+" key")
	block, err := aes.NewCipher(key[:len(key)-4])
	if err != nil {
		s.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		s.Fatal(err)
	}
	return &forger{t: s.T, ns: ns, from: from, to: to, spi: child.SPIOut, seq: 500, aead: aead, salt: key[len(key)-4:]}
}

var dumpLine = regexp.MustCompile(`\[CHD\] +[0-9]+: ((?:[0-9A-F]{2} ?)+)`)

// loggedKey reads the last hex dump under a title.
func loggedKey(t *testing.T, log, title string) (key []byte) {
	t.Helper()
	at := strings.LastIndex(log, "[CHD] "+title)
	if at < 0 {
		t.Fatalf("strongSwan has not logged its %s", title)
	}
	lines := strings.Split(log[at:], "\n")
	for _, line := range lines[1:] {
		m := dumpLine.FindStringSubmatch(line)
		if m == nil {
			break
		}
		b, err := hex.DecodeString(strings.ReplaceAll(m[1], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		key = append(key, b...)
	}
	return key
}

// seal is the next ESP packet for an IP packet.
func (f *forger) seal(inner []byte) []byte {
	const tunnelIPv4, tunnelIPv6 = 4, 41
	if inner[0]>>4 == 6 {
		return f.sealAs(tunnelIPv6, inner)
	}
	return f.sealAs(tunnelIPv4, inner)
}

// sealAs is the next ESP packet for what it says is in it. RFC 4303 §2, RFC 4106
func (f *forger) sealAs(next byte, inner []byte) []byte {
	f.seq++
	plain := append([]byte(nil), inner...)
	for pad := byte(1); (len(plain)+2)%4 != 0; pad++ {
		plain = append(plain, pad)
	}
	plain = append(plain, byte(len(plain)-len(inner)), next)
	esp := binary.BigEndian.AppendUint32(nil, f.spi)
	esp = binary.BigEndian.AppendUint32(esp, f.seq)
	iv := binary.BigEndian.AppendUint64(nil, uint64(f.seq)<<32)
	return f.aead.Seal(append(esp, iv...), append(append([]byte(nil), f.salt...), iv...), plain, esp)
}

// send puts an ESP packet, or whatever it is, on the wire as strongSwan would:
// from its address and port, while it holds both.
func (f *forger) send(payload []byte) {
	f.t.Helper()
	sendRaw(f.t, f.ns, f.from, f.to, payload)
}

// sendRaw sends a UDP datagram from any address and port.
func sendRaw(t *testing.T, ns *lab.Namespace, from, to netip.AddrPort, payload []byte) {
	t.Helper()
	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(udp, 0, 0) // no checksum
	packet := ipv4Packet(from.Addr(), to.Addr(), unix.IPPROTO_UDP, append(udp, payload...))
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ipv4Packet puts an IPv4 header before a payload.
func ipv4Packet(from, to netip.Addr, protocol byte, payload []byte) []byte {
	const header = 20
	b := make([]byte, header, header+len(payload))
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(header+len(payload)))
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^sum16(b))
	return append(b, payload...)
}

// sum16 is the one's complement sum of RFC 1071.
func sum16(b []byte) uint16 {
	sum := 0
	for i, v := range b {
		sum += int(v) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// echo is an ICMP echo request.
func echo(t *testing.T, from, to netip.Addr) []byte {
	t.Helper()
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 7, Seq: 1, Data: []byte("forged")}}
	b, err := m.Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	return ipv4Packet(from, to, unix.IPPROTO_ICMP, b)
}

// passed lists the addresses of the IPv4 packets that a capture of a TUN
// interface has seen.
func passed(c *lab.Capture) (out []string) {
	for _, f := range c.Frames() {
		if len(f.Data) >= 20 && f.Data[0]>>4 == 4 {
			out = append(out, netip.AddrFrom4([4]byte(f.Data[12:16])).String()+" > "+netip.AddrFrom4([4]byte(f.Data[16:20])).String())
		}
	}
	return out
}
