package replay

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/cmd/internal/pcap"
	"github.com/ikepulse/ikepulse/test/require"
)

// Frames of RFC 5737 and RFC 3849 addresses, in hexadecimal.
const (
	ethernet4 = "00005e005301 00005e005302 0800 "
	ethernet6 = "00005e005301 00005e005302 86dd "
	addresses = "cb007107 c6336401 "
	address6  = "20010db8000000000000000000000007 20010db8000000000000000000000001 "

	ipKeepalive  = "4500001d 00004000 40110000 " + addresses + "6134119400090000 ff "
	ipESP        = "4500001c 00004000 40320000 " + addresses + "c0ffee01 00000009 "
	ipAH         = "45000020 00004000 40330000 " + addresses + "04010000 c0ffee01 00000007 "
	ipESPInUDP   = "45000024 00004000 40110000 " + addresses + "6134119400100000 c0ffee02 00000005 "
	ipIKE        = "45000024 00004000 40110000 " + addresses + "613401f400100000 0102030405060708 "
	ipIKENATT    = "45000024 00004000 40110000 " + addresses + "6134119400100000 0000000001020304 "
	ipOther      = "4500001c 00004000 40010000 " + addresses + "0800000000000000 "
	ip6ESP       = "60000000 0008 32 40 " + address6 + "c0ffee03 0000000b "
	ip6Chain     = "60000000 0020 00 40 " + address6 + "3c00000000000000 2c00000000000000 3200000000000001 c0ffee04 0000000c "
	ip6LaterFrag = "60000000 0010 2c 40 " + address6 + "3200000800000001 c0ffee05 0000000d "
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

const classicHeader = 24 // of a capture

// capture is a classic one. A frame's length on the wire is its own and more.
func capture(linkType pcap.LinkType, more int, frames ...string) []byte {
	var b []byte
	for _, word := range []uint32{0xa1b2c3d4, 0x00040002, 0, 0, 262144, uint32(linkType)} {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	for _, frame := range frames {
		data := unhex(frame)
		for _, word := range []int{0, 0, len(data), len(data) + more} {
			b = binary.LittleEndian.AppendUint32(b, uint32(word))
		}
		b = append(b, data...)
	}
	return b
}

func privileged(t *testing.T) {
	t.Helper()
	require.Have(t, "root", "bpf")
}

func TestOutput(t *testing.T) {
	privileged(t)
	var out bytes.Buffer
	file := capture(pcap.Ethernet, 0, ethernet4+ipKeepalive, ethernet4+ipESP, ethernet4+ipAH, ethernet4+ipIKE, "00005e0053")
	if err := Run(t.Context(), &out, bytes.NewReader(file), Options{AllSAs: true}); err != nil {
		t.Fatal(err)
	}
	want := `{"frame":1,"verdict":"drop","reason":"stranger_dropped","class":"keepalive"}
{"frame":2,"verdict":"pass","reason":"esp_known","class":"esp"}
{"frame":3,"verdict":"pass","reason":"ah_known","class":"ah"}
{"frame":4,"verdict":"pass","reason":"ike_500","class":"ike500"}
{"frame":5,"verdict":"not_runnable","reason":"not_runnable","class":"not_runnable","error":"a frame of 5 bytes: the kernel runs 14 to 65597"}
{"summary":{"frames":5,"by_class":{"ah":1,"esp":1,"ike500":1,"keepalive":1,"not_runnable":1},"by_reason":{"ah_known":1,"esp_known":1,"ike_500":1,"not_runnable":1,"stranger_dropped":1},"by_verdict":{"drop":1,"not_runnable":1,"pass":3},"spis":{"198.51.100.1/0xc0ffee01":{"packets":1,"last_seq":9}},"ah":{"198.51.100.1/0xc0ffee01":{"packets":1,"last_seq":7}}}}
`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(out.String(), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What the options register is known, and nothing else is.
func TestOptions(t *testing.T) {
	privileged(t)
	file := capture(pcap.Ethernet, 0, ethernet4+ipESP, ethernet4+ipAH, ethernet4+ipESPInUDP, ethernet4+ipKeepalive, ethernet6+ip6ESP)
	reasons := func(o Options) (all []string, spis map[string]SPI) {
		r := replay(t, file, o)
		for _, line := range r.lines {
			all = append(all, line.Reason)
		}
		return all, r.summary.SPIs
	}
	here := netip.MustParseAddr("198.51.100.1")
	here6 := netip.MustParseAddr("2001:db8::1")
	for _, row := range []struct {
		name    string
		options Options
		want    []string
		spis    map[string]SPI
	}{
		{"nothing", Options{}, []string{"esp_unknown", "ah_unknown", "esp_udp_unknown", "stranger_dropped", "esp_unknown"}, map[string]SPI{}},
		{"one SPI", Options{SAs: []SA{{Dst: here, SPI: 0xc0ffee01}}},
			[]string{"esp_known", "ah_unknown", "esp_udp_unknown", "stranger_dropped", "esp_unknown"},
			map[string]SPI{"198.51.100.1/0xc0ffee01": {1, 9}}},
		{"one of AH, one that never comes", Options{SAs: []SA{{Dst: here, SPI: 0xc0ffee01, AH: true}, {Dst: here6, SPI: 0xc0ffee01}}},
			[]string{"esp_unknown", "ah_known", "esp_udp_unknown", "stranger_dropped", "esp_unknown"},
			map[string]SPI{"2001:db8::1/0xc0ffee01": {}}},
		{"every SPI", Options{AllSAs: true},
			[]string{"esp_known", "ah_known", "esp_udp_known", "stranger_dropped", "esp_known"},
			map[string]SPI{"198.51.100.1/0xc0ffee01": {1, 9}, "198.51.100.1/0xc0ffee02": {1, 5}, "2001:db8::1/0xc0ffee03": {1, 11}}},
		{"one address", Options{AllSAs: true, Locals: []netip.Addr{here6}},
			[]string{"not_local", "not_local", "not_local", "not_local", "esp_known"},
			map[string]SPI{"2001:db8::1/0xc0ffee03": {1, 11}}},
		{"another port", Options{NATTPort: 14500},
			[]string{"esp_unknown", "ah_unknown", "udp_other", "udp_other", "esp_unknown"}, map[string]SPI{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, spis := reasons(row.options)
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(row.spis, spis); diff != "" {
				t.Errorf("SPIs (-want +got):\n%s", diff)
			}
		})
	}
}

// Packets of one SA add up, and the last one's sequence number stays.
func TestSPIsAddUp(t *testing.T) {
	privileged(t)
	r := replay(t, capture(pcap.Ethernet, 0, ethernet4+ipESP, ethernet4+ipESP, strings.Replace(ethernet4+ipESP, "00000009", "00000003", 1)), Options{AllSAs: true})
	if diff := cmp.Diff(map[string]SPI{"198.51.100.1/0xc0ffee01": {3, 3}}, r.summary.SPIs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Whatever IP comes in, the program is given Ethernet.
func TestLinkTypes(t *testing.T) {
	privileged(t)
	for _, row := range []struct {
		name     string
		linkType pcap.LinkType
		frame    string
		want     string
	}{
		{"raw IPv4", pcap.Raw, ipESP, "esp_known"},
		{"raw IPv6", pcap.Raw, ip6ESP, "esp_known"},
		{"raw, 12", pcap.RawBSD, ipESP, "esp_known"},
		{"raw, 14", pcap.RawOpen, ipESP, "esp_known"},
		{"raw, neither version", pcap.Raw, "50" + ipESP[2:], "not_ip"},
		{"raw, a byte", pcap.Raw, "45", "truncated"},
		{"IPv4", pcap.IPv4, ipESP, "esp_known"},
		{"IPv6", pcap.IPv6, ip6ESP, "esp_known"},
		{"IPv6 as IPv4", pcap.IPv4, ip6ESP, "ip_malformed"},
		{"loopback", pcap.Null, "02000000" + ipESP, "esp_known"},
		{"loopback, IPv6", pcap.Null, "1e000000" + ip6ESP, "esp_known"},
		{"OpenBSD's loopback", pcap.Loop, "00000002" + ipESP, "esp_known"},
		{"loopback, too short", pcap.Null, "0200", notRunnable},
		{"cooked", pcap.Cooked, "0000000100060000000000000000 0800" + ipESP, "esp_known"},
		{"cooked, IPv6", pcap.Cooked, "0000000100060000000000000000 86dd" + ip6ESP, "esp_known"},
		{"cooked, ARP", pcap.Cooked, "0000000100060000000000000000 0806" + ipESP, "not_ip"},
		{"cooked, too short", pcap.Cooked, "0000000100060000000000000000 08", notRunnable},
		{"cooked, version 2", pcap.Cooked2, "0800 0000 00000001 0001 00 06 0000000000000000" + ipESP, "esp_known"},
		{"802.11", 105, ipESP, notRunnable},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := replay(t, capture(row.linkType, 0, row.frame), Options{AllSAs: true})
			if len(r.lines) != 1 || r.lines[0].Reason != row.want || (r.lines[0].Error == "") != (row.want != notRunnable) {
				t.Errorf("%+v, want %s", r.lines, row.want)
			}
		})
	}
}

// What the capture left out is there again, as zeros, and said.
func TestCutFrames(t *testing.T) {
	privileged(t)
	whole := ethernet4 + ipESPInUDP
	long := strings.Replace(whole, "45000024", "45000424", 1)
	long = strings.Replace(long, "00100000", "04100000", 1)
	for _, row := range []struct {
		name  string
		frame string
		more  int
		want  Line
	}{
		{"whole", whole, 0, Line{1, "pass", "esp_udp_known", "espinudp", 0, ""}},
		{"cut by 1024", long, 1024, Line{1, "pass", "esp_udp_known", "espinudp", 50, ""}},
		{"cut by more than there is IP", long, 300000, Line{1, "pass", "esp_udp_known", "espinudp", 50, ""}},
		{"not cut, but its IP length says more", long, 0, Line{1, "pass", "ip_length", "other", 0, ""}},
		{"cut before its SPI", whole[:len(whole)-18], 8, Line{1, "pass", "ike_natt", "short_4500", 42, ""}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := replay(t, capture(pcap.Ethernet, row.more, row.frame), Options{AllSAs: true})
			if diff := cmp.Diff([]Line{row.want}, r.lines); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What is sent to the NAT-T port is what its payload is, also where the UDP
// length lies: reason and counters say that it gets no stamp.
func TestLyingLengths(t *testing.T) {
	privileged(t)
	lie := strings.NewReplacer("1194001000", "1194001100", "1194000900", "1194000a00")
	first := strings.NewReplacer("00004000 40", "00002000 40")
	for _, row := range []struct {
		name    string
		frame   string
		options Options
		class   string
	}{
		{"ESP", ethernet4 + lie.Replace(ipESPInUDP), Options{AllSAs: true}, "espinudp"},
		{"IKE", ethernet4 + lie.Replace(ipIKENATT), Options{AllSAs: true}, "ike-natt"},
		{"one byte", ethernet4 + lie.Replace(ipKeepalive), Options{AllSAs: true}, "short_4500"},
		{"first fragment of ESP, said to be all of it", ethernet4 + first.Replace(ipESPInUDP), Options{AllSAs: true}, "frag1-espinudp"},
		{"of IKE", ethernet4 + first.Replace(ipIKENATT), Options{AllSAs: true}, "frag1-ike-natt"},
		{"over IPv6", ethernet6 + "60000000 0018 2c 40 " + address6 + "1100000100000001 6134119400100000 c0ffee02 00000005", Options{AllSAs: true}, "frag1-espinudp"},
		{"not to us", ethernet4 + lie.Replace(ipESPInUDP), Options{AllSAs: true, Locals: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, "other"},
		{"half a UDP header", ethernet4 + "45000018 00004000 40110000 " + addresses + "61341194", Options{AllSAs: true}, "other"},
	} {
		r := replay(t, capture(pcap.Ethernet, 0, row.frame), row.options)
		want := []Line{{1, "pass", "udp_length", row.class, 0, ""}}
		if diff := cmp.Diff(want, r.lines); diff != "" || len(r.summary.SPIs) > 0 {
			t.Errorf("%s (-want +got):\n%s%v", row.name, diff, r.summary.SPIs)
		}
	}
}

// What was cut off is nobody's: it gives no SPI, no sequence number and no
// address, and says nothing of a frame of which nothing is there.
func TestNothingIsInvented(t *testing.T) {
	privileged(t)
	for name, row := range map[string]struct {
		linkType pcap.LinkType
		link     string
		least    int // bytes that can be run
		packet   string
	}{
		"Ethernet": {pcap.Ethernet, ethernet4, 14, ipESP},
		"VLAN":     {pcap.Ethernet, "00005e005301 00005e005302 8100 0007 0800 ", 14, ipAH},
		"raw":      {pcap.Raw, "", 1, ipESPInUDP},
		"IPv4":     {pcap.IPv4, "", 1, ipESP},
		"IPv6":     {pcap.IPv6, "", 1, strings.Replace(ip6ESP, "c0ffee03", "c0ffee01", 1)},
		"loopback": {pcap.Null, "02000000", 5, ipESPInUDP},
		"cooked":   {pcap.Cooked, "0000000100060000000000000000 0800", 16, ipAH},
		"cooked 2": {pcap.Cooked2, "0800 0000 00000001 0001 00 06 0000000000000000", 20, ipESP},
	} {
		t.Run(name, func(t *testing.T) {
			whole := unhex(row.link + row.packet)
			// cut is the frame, cut to each of these sizes.
			cut := func(from, to int) []byte {
				file := capture(row.linkType, 0)
				for size := from; size < to; size++ {
					file = append(file, capture(row.linkType, len(whole)-size, hex.EncodeToString(whole[:size]))[classicHeader:]...)
				}
				return file
			}
			only := func(file []byte, packets uint64, lastSeq byte) []Line {
				t.Helper()
				r := replay(t, file, Options{AllSAs: true})
				var spis []SPI
				for _, all := range []map[string]SPI{r.summary.SPIs, r.summary.AH} {
					for key, spi := range all {
						if !strings.HasPrefix(key, "198.51.100.1/0xc0ffee0") && key != "2001:db8::1/0xc0ffee01" {
							t.Errorf("%s: %+v", key, spi)
						}
						spis = append(spis, spi)
					}
				}
				if want := []SPI{{packets, uint32(lastSeq)}}; !slices.Equal(spis, want[:min(packets, 1)]) {
					t.Errorf("%+v, want %+v", spis, want)
				}
				return r.lines
			}
			seq := len(whole) - 4
			for size, line := range only(cut(0, seq), 0, 0) {
				if run := line.Reason != notRunnable; run != (size >= row.least) || run && line.CapturedBytes != size {
					t.Errorf("%d of %d bytes: %+v", size, len(whole), line)
				}
			}
			only(cut(seq, len(whole)), 4, 0)
			only(cut(0, len(whole)+1), 5, whole[len(whole)-1])
			only(append(cut(len(whole), len(whole)+1), cut(0, len(whole))[classicHeader:]...), 5, whole[len(whole)-1])
		})
	}
}

// The longest frame that there can be is run; a longer one is not.
func TestLongFrames(t *testing.T) {
	privileged(t)
	datagram := unhex("45000000 00004000 40320000 " + addresses + "c0ffee01 00000009")
	binary.BigEndian.PutUint16(datagram[2:], 65535)
	frame := append(unhex(ethernet4), append(datagram, make([]byte, 65535-len(datagram))...)...)
	for size, want := range map[int]string{len(frame): "esp_known", maxFrame: "esp_known", maxFrame + 1: notRunnable} {
		padded := append(frame[:len(frame):len(frame)], make([]byte, size-len(frame))...)
		r := replay(t, capture(pcap.Ethernet, 0, hex.EncodeToString(padded)), Options{AllSAs: true})
		if len(r.lines) != 1 || r.lines[0].Reason != want {
			t.Errorf("%d bytes: %+v, want %s", size, r.lines, want)
		}
	}
}

// A damaged capture's frames before the damage are told, and then what it is.
func TestDamagedCapture(t *testing.T) {
	privileged(t)
	file := capture(pcap.Ethernet, 0, ethernet4+ipESP, ethernet4+ipIKE)
	var out bytes.Buffer
	err := Run(t.Context(), &out, bytes.NewReader(file[:len(file)-1]), Options{})
	if !errors.Is(err, pcap.ErrFormat) || !strings.Contains(err.Error(), "frame 2: ") {
		t.Errorf("%v", err)
	}
	if r := parse(t, out.Bytes()); len(r.lines) != 1 || r.summary.Frames != 1 {
		t.Errorf("%+v", r)
	}
	out.Reset()
	if err := Run(t.Context(), &out, strings.NewReader("no capture"), Options{}); !errors.Is(err, pcap.ErrFormat) || out.Len() != 0 {
		t.Errorf("%v, %q", err, out.String())
	}
}

// What is found in a frame here is what the program finds there.
func TestInspect(t *testing.T) {
	here, here6 := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")
	for name, row := range map[string]struct {
		frame string
		want  target
	}{
		"ESP":             {ethernet4 + ipESP, target{here, SA{here, 0xc0ffee01, false}, true, ""}},
		"AH":              {ethernet4 + ipAH, target{here, SA{here, 0xc0ffee01, true}, true, ""}},
		"ESP in UDP":      {ethernet4 + ipESPInUDP, target{here, SA{here, 0xc0ffee02, false}, true, "espinudp"}},
		"IKE":             {ethernet4 + ipIKE, target{dst: here}},
		"IKE NAT-T":       {ethernet4 + ipIKENATT, target{here, SA{here, 0, false}, true, "ike-natt"}},
		"ICMP":            {ethernet4 + ipOther, target{dst: here}},
		"ARP":             {"00005e005301 00005e005302 0806" + ipESP, target{}},
		"short IP":        {ethernet4 + "45000013", target{}},
		"keepalive":       {ethernet4 + ipKeepalive + "0000000000000000", target{dst: here, natt: "short_4500"}},
		"no sequence":     {ethernet4 + strings.TrimSuffix(ipESP, "00000009 "), target{here, SA{here, 0xc0ffee01, false}, false, ""}},
		"of AH":           {ethernet4 + strings.TrimSuffix(ipAH, "00000007 "), target{here, SA{here, 0xc0ffee01, true}, false, ""}},
		"in UDP":          {ethernet4 + strings.TrimSuffix(ipESPInUDP, "00000005 "), target{here, SA{here, 0xc0ffee02, false}, false, "short_4500"}},
		"half an SPI":     {ethernet4 + strings.TrimSuffix(ipESP, "ee01 00000009 "), target{dst: here}},
		"half an address": {ethernet4 + strings.TrimSuffix(ipESP, "6401 c0ffee01 00000009 "), target{}},
		"VLAN":            {"00005e005301 00005e005302 8100 0007 0800" + ipESP, target{here, SA{here, 0xc0ffee01, false}, true, ""}},
		"QinQ":            {"00005e005301 00005e005302 88a8 0007 8100 0008 0800" + ipESP, target{here, SA{here, 0xc0ffee01, false}, true, ""}},
		"three tags":      {"00005e005301 00005e005302 88a8 0007 8100 0008 8100 0009 0800" + ipESP, target{}},
		"IPv6":            {ethernet6 + ip6ESP, target{here6, SA{here6, 0xc0ffee03, false}, true, ""}},
		"IPv6 chain":      {ethernet6 + ip6Chain, target{here6, SA{here6, 0xc0ffee04, false}, true, ""}},
		"IPv6 later":      {ethernet6 + ip6LaterFrag, target{dst: here6}},
		"IPv6 cut":        {ethernet6 + strings.TrimSuffix(ip6Chain, "00000001 c0ffee04 0000000c "), target{dst: here6}},
		"IPv4 later":      {ethernet4 + strings.Replace(ipESP, "4000 40", "0001 40", 1), target{dst: here}},
		"IPv4 cut":        {ethernet4 + strings.TrimSuffix(ipESP, "0009 "), target{here, SA{here, 0xc0ffee01, false}, false, ""}},
		"IPv4 options":    {ethernet4 + strings.Replace(strings.Replace(ipESP, "4500001c", "46000020", 1), addresses, addresses+"01010100", 1), target{here, SA{here, 0xc0ffee01, false}, true, ""}},
	} {
		if got := inspect(unhex(row.frame), 4500); got != row.want {
			t.Errorf("%s: %+v, want %+v", name, got, row.want)
		}
	}
}

func TestParseSA(t *testing.T) {
	for _, s := range []string{"192.0.2.1/0x00000100", "2001:db8::1/0xffffffff", "192.0.2.1/0x12345678/ah"} {
		sa, err := ParseSA(s)
		if err != nil || sa.String() != s {
			t.Errorf("%s: %v, %v", s, sa, err)
		}
	}
	if sa, err := ParseSA("::ffff:192.0.2.1/305419896"); err != nil || sa.String() != "192.0.2.1/0x12345678" {
		t.Errorf("%v, %v", sa, err)
	}
	for _, s := range []string{"", "192.0.2.1", "192.0.2.1/", "192.0.2.1/0", "192.0.2.1/0x100000000", "192.0.2.1/spi", "192.0.2.1/00000100", "192.0.2.1/0b1", "192.0.2.1/0x", "192.0.2.1/1_0", "192.0.2.1/4a01f3c2", "fe80::1%eth0/5", "host/5", "192.0.2.1/5/esp", "/5"} {
		if sa, err := ParseSA(s); err == nil {
			t.Errorf("%q: %v", s, sa)
		}
	}
}

// Every reason has a class, of those that people use.
func TestClasses(t *testing.T) {
	names := []string{"keepalive", "espinudp", "ike-natt", "short_4500", "ike500", "esp", "ah", "not_to_4500", "not_to_500", "other", "nonip"}
	for reason := range bpf.ReasonCount {
		class := classes[reason]
		known := strings.HasPrefix(class, "frag")
		for _, name := range names {
			known = known || class == name
		}
		if !known {
			t.Errorf("%v: class %q", reason, class)
		}
	}
}
