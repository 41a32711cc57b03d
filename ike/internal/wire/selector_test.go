package wire

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestTS(t *testing.T) {
	ip := netip.MustParseAddr
	checkCodec(t, []codecTest{{
		name: "everything, IPv4",
		body: "01 000000  07 00 0010  0000 ffff  00000000 ffffffff",
		want: &TS{TypeTSi, []Selector{{0, 0, 65535, ip("0.0.0.0"), ip("255.255.255.255")}}},
	}, {
		name: "both families, protocol and ports",
		body: `02 000000
			07 06 0010  0050 01bb  0a070000 0a0700ff
			08 11 0028  0035 0035
			20010db8 00000000 00000000 00000001
			20010db8 00000000 00000000 0000ffff`,
		want: &TS{TypeTSr, []Selector{
			{6, 80, 443, ip("10.7.0.0"), ip("10.7.0.255")},
			{17, 53, 53, ip("2001:db8::1"), ip("2001:db8::ffff")},
		}},
	}, {
		name: "OPAQUE ports",
		body: "01 000000  07 11 0010  ffff 0000  0a070001 0a070001",
		want: &TS{TypeTSi, []Selector{{17, 65535, 0, ip("10.7.0.1"), ip("10.7.0.1")}}},
	}, {
		name: "ICMP type and code",
		body: "01 000000  07 01 0010  0800 08ff  0a070001 0a070001",
		want: &TS{TypeTSi, []Selector{{1, 0x0800, 0x08ff, ip("10.7.0.1"), ip("10.7.0.1")}}},
	}, {
		name: "IPv4 in IPv6 stays IPv6",
		body: `01 000000  08 00 0028  0000 ffff
			00000000 00000000 0000ffff 0a070001
			00000000 00000000 0000ffff 0a0700ff`,
		want: &TS{TypeTSi, []Selector{{0, 0, 65535, ip("::ffff:10.7.0.1"), ip("::ffff:10.7.0.255")}}},
	}, {
		name: "unknown types are passed over",
		body: `03 ffffff
			0a 00 0004
			07 00 0010  0000 ffff  0a070000 0a0700ff
			c8 99 0009  0102030405`,
		other: "01 000000  07 00 0010  0000 ffff  0a070000 0a0700ff",
		want:  &TS{TypeTSr, []Selector{{0, 0, 65535, ip("10.7.0.0"), ip("10.7.0.255")}}},
	}, {
		name:  "none of a known type",
		body:  "01 000000  09 00 0008 01020304",
		other: "00 000000",
		want:  &TS{T: TypeTSi},
	}})
}

func TestTSRefused(t *testing.T) {
	const all = "07000010 0000ffff 00000000ffffffff"
	checkRefusals(t, TypeTSi, []refusal{
		{"no count", "", "needs 1 bytes"},
		{"half a header", "0100", "needs 3 bytes"},
		{"fewer than announced", "02000000" + all, "needs 1 bytes, 0 are left"},
		{"more than announced", "01000000" + all + all, "16 trailing bytes"},
		{"trailing byte", "01000000" + all + "00", "1 trailing bytes"},
		{"addresses reversed", "01000000 07000010 0000ffff 0a070002 0a070001", "addresses from 10.7.0.2 to 10.7.0.1"},
		{"IPv6 reversed", "01000000 08000028 0000ffff 20010db8000000000000000000000001 20010db8000000000000000000000000", "addresses from"},
		{"ports reversed", "01000000 07060010 01bb0050 0a070001 0a070001", "ports from 443 to 80"},
		{"ports reversed, nearly OPAQUE", "01000000 07060010 ffff0001 0a070001 0a070001", "ports from 65535 to 1"},
		{"ports reversed, nearly OPAQUE too", "01000000 07060010 fffe0000 0a070001 0a070001", "ports from 65534 to 0"},
		{"IPv4 type with IPv6 length", "01000000 07000028 0000ffff" + strings.Repeat("00", 32), "24 trailing bytes"},
		{"IPv6 type with IPv4 length", "01000000 08000010 0000ffff 0a070001 0a070001", "needs 16 bytes, 8 are left"},
		{"IPv4 one byte short", "01000000 0700000f 0000ffff 0a070001 0a0700", "needs 4 bytes, 3 are left"},
		{"IPv4 one byte long", "01000000 07000011 0000ffff 0a070001 0a07000100", "1 trailing bytes"},
		{"length below its own header", "01000000 07000003 0000ffff", "length 3"},
		{"unknown type, length 0", "01000000 09000000 0000ffff", "length 0"},
		{"unknown type beyond the payload", "01000000 09000009 01020304", "needs 5 bytes, 4 are left"},
	})
}

func TestTSLimits(t *testing.T) {
	for _, n := range []int{0, 1, 64, 65, 255} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			_, err := ParsePayloads(TypeTSr, generically(unhex(t,
				fmt.Sprintf("%02x000000", n)+strings.Repeat("07000010 0000ffff 00000000ffffffff", n))))
			if n > maxSelectors {
				checkSyntax(t, err, TypeTSr, "more than 64 selectors")
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// A selector that nobody should build is written without a panic.
func TestSelectorMixedFamilies(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("2001:db8::1")
	for _, s := range []Selector{{}, {Start: v4}, {Start: v4, End: v6}, {Start: v6, End: v4}} {
		b, _ := AppendPayloads(nil, []Payload{&TS{TypeTSi, []Selector{s}}})
		if want := genericLen + 4 + 40; len(b) != want {
			t.Errorf("%v: %d bytes, want %d", s, len(b), want)
		}
	}
}
