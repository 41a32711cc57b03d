package xfrm

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// sample is a message and what it tells.
type sample struct {
	name string
	message
	want event
}

var (
	elsewhere = netip.MustParseAddrPort("198.51.100.254:24884")
	gone      = event{kind: eventGone, sa: SA{Key: inbound.Key}}

	samples = []sample{
		{"new, ESP in UDP", inboundMessage, event{kind: eventSet, sa: inbound}},
		{"updated, AH over IPv6 with every attribute", outboundV6Message, event{kind: eventSet, sa: outboundV6}},
		{"larval", userSA(nl.XFRM_MSG_NEWSA, larval, 0), event{kind: eventSet, sa: larval}},
		{"deleted", deletion(inbound.Key).attr(nl.XFRMA_SA, inboundMessage.body[:sizeofUserSA]...), gone},
		{"deleted, the key alone", deletion(outboundV6.Key), event{kind: eventGone, sa: SA{Key: outboundV6.Key}}},
		{"hard expiry", expire(inbound, true), gone},
		{"soft expiry", expire(inbound, false), event{}},
		{"mapping", mapping(inbound.Key, inbound.Peer(), elsewhere),
			event{kind: eventMoved, mapping: Mapping{Key: inbound.Key, Old: inbound.Peer(), New: elsewhere}}},
		{"flush of all", flush(0), event{kind: eventFlush}},
		{"flush of any IPsec", flush(255), event{kind: eventFlush}},
		{"flush of AH", flush(AH), event{kind: eventFlush, proto: AH}},
		{"migrated", message{kind: nl.XFRM_MSG_MIGRATE}, event{kind: eventResync}},
		{"about policies", message{kind: nl.XFRM_MSG_POLEXPIRE, body: []byte{1}, ends: []int{0, 1}}, event{}},
	}
)

func deletion(k Key) message {
	return message{kind: nl.XFRM_MSG_DELSA, body: appendID(nil, k), ends: []int{sizeofID}}
}

func flush(proto byte) message {
	return message{kind: nl.XFRM_MSG_FLUSHSA, body: []byte{proto, 0, 0, 0}, ends: []int{1, 2, 3, 4}}
}

var compare = cmp.Options{
	cmp.AllowUnexported(event{}), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}),
}

func TestDecode(t *testing.T) {
	for _, tt := range samples {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decode(tt.kind, tt.body)
			if diff := cmp.Diff(tt.want, got, compare); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// A message that is cut anywhere but between attributes is refused, and nothing
// behind its end is read.
func TestDecodeTruncated(t *testing.T) {
	for _, tt := range samples {
		for n := range tt.body {
			if tt.kind == nl.XFRM_MSG_MIGRATE {
				continue
			}
			_, err := decode(tt.kind, tt.body[:n:n])
			// A deletion's attributes are no news, so they are not read.
			allowed := slices.Contains(tt.ends, n) || tt.kind == nl.XFRM_MSG_DELSA && n >= sizeofID
			if allowed != (err == nil) {
				t.Errorf("%s, %d of %d bytes: %v", tt.name, n, len(tt.body), err)
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	family := slices.Clone(inboundMessage.body)
	family[212] = unix.AF_UNIX
	idFamily := appendID(nil, inbound.Key)
	idFamily[20] = unix.AF_UNIX
	tests := []struct {
		name string
		message
	}{
		{"a state of another family", message{kind: nl.XFRM_MSG_NEWSA, body: family}},
		{"a deletion of another family", message{kind: nl.XFRM_MSG_DELSA, body: idFamily}},
		{"a mapping of another family", message{kind: nl.XFRM_MSG_MAPPING, body: append(idFamily, make([]byte, 40)...)}},
		{"an expiry of another family", message{kind: nl.XFRM_MSG_EXPIRE, body: append(family[:sizeofUserSA:sizeofUserSA], make([]byte, 8)...)}},
		{"an attribute shorter than its header", message{kind: nl.XFRM_MSG_NEWSA, body: append(inboundMessage.body[:sizeofUserSA:sizeofUserSA], 3, 0, 4, 0)}},
		{"an attribute longer than the message", message{kind: nl.XFRM_MSG_NEWSA, body: append(inboundMessage.body[:sizeofUserSA:sizeofUserSA], 9, 0, 4, 0, 0, 0, 0, 0)}},
	}
	for kind, size := range attributeSizes {
		tests = append(tests, struct {
			name string
			message
		}{fmt.Sprintf("attribute %d a byte short", kind), inboundMessage.attr(kind, make([]byte, size-1)...)})
	}
	for _, tt := range tests {
		if got, err := decode(tt.kind, tt.body); err == nil {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

// Flags in an attribute's type are not part of it.
func TestDecodeAttributeFlags(t *testing.T) {
	m := userSA(nl.XFRM_MSG_NEWSA, larval, 0).attr(nl.XFRMA_IF_ID|unix.NLA_F_NESTED, u32(5)...)
	if e, err := decode(m.kind, m.body); err != nil || e.sa.IfID != 5 {
		t.Errorf("%+v, %v", e.sa, err)
	}
}

// What is decoded holds no byte of a key, however it is printed.
func TestDecodeKeepsNoKeys(t *testing.T) {
	body := slices.Clone(inboundMessage.body)
	if !bytes.Contains(body, []byte{keyByte, keyByte, keyByte, keyByte}) {
		t.Fatal("the sample has no key")
	}
	e, err := decode(nl.XFRM_MSG_NEWSA, body)
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%+v %#v", e, e)
	if strings.Contains(printed, "a5a5") || strings.Contains(printed, "165, 165") || strings.Contains(printed, "0xa5, 0xa5") {
		t.Errorf("a key in %s", printed)
	}
	clear(body) // as the reader does
	if diff := cmp.Diff(event{kind: eventSet, sa: inbound}, e, compare); diff != "" {
		t.Errorf("it changed with the buffer:\n%s", diff)
	}
}

// datagram is what the kernel sends at once.
func datagram(kinds []uint16, bodies ...[]byte) (b []byte) {
	for i, body := range bodies {
		b = append(b, u32(uint32(sizeofHeader+len(body)))...)
		b = append(b, byte(kinds[i]), 0, 2, 0, 9, 0, 0, 0, 0, 0, 0, 0)
		b = append(b, body...)
		b = append(b, make([]byte, aligned(len(b))-len(b))...)
	}
	return b
}

func TestEachMessage(t *testing.T) {
	whole := datagram([]uint16{0x11, 0x1c, 0x10}, []byte("abcd"), []byte("e"), nil)
	var got []string
	collect := func(h header, body []byte) error {
		if h.Flags != 2 || h.Seq != 9 {
			t.Errorf("header %+v", h)
		}
		got = append(got, fmt.Sprintf("%x %s", h.Kind, body))
		return nil
	}
	if err := eachMessage(whole, collect); err != nil {
		t.Error(err)
	}
	if want := []string{"11 abcd", "1c e", "10 "}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	ends := []int{0, 20, 37, 38, 39, 40} // the padding of the second may be cut
	for n := range whole {
		err := eachMessage(whole[:n:n], func(header, []byte) error { return nil })
		if slices.Contains(ends, n) != (err == nil) {
			t.Errorf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	stop := errors.New("stop")
	if err := eachMessage(whole, func(header, []byte) error { return stop }); err != stop {
		t.Errorf("the callback's error became %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range samples {
		f.Add(s.kind, s.body)
	}
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		e, err := decode(kind, body)
		if err != nil {
			return
		}
		// It depends on nothing but the bytes, and keeps none of them.
		kept := slices.Clone(body)
		clear(body)
		again, err := decode(kind, kept)
		if diff := cmp.Diff(e, again, compare); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
		if e.kind == eventGone {
			if key, err := decodeID(appendID(nil, e.sa.Key)); key != e.sa.Key || err != nil {
				t.Errorf("%v became %v, %v", e.sa.Key, key, err)
			}
		}
		_ = eachMessage(kept, func(header, []byte) error { return nil })
	})
}
