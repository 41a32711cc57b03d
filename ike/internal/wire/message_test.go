package wire

import (
	"bytes"
	"reflect"
	"testing"
)

// A whole message, written out by hand.
func TestMessage(t *testing.T) {
	b := unhex(t, `
		0102030405060708 1112131415161718 29 20 22 20 00000000 00000047
		2b 00 0008  00 00 000e                  # NO_PROPOSAL_CHOSEN
		c8 00 0007  616263                      # Vendor ID
		28 00 0008  01020304                    # an unknown payload, not critical
		00 00 0014  000102030405060708090a0b0c0d0e0f`)
	want := &Message{
		Header{0x0102030405060708, 0x1112131415161718, TypeNotify, 0x20, IKESAInit, FlagResponse, 0, 0x47},
		[]Payload{
			&Notify{Kind: NoProposalChosen},
			&Raw{T: TypeVendor, Data: []byte("abc")},
			&Raw{T: 200, Data: []byte{1, 2, 3, 4}},
			&Nonce{[]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
		},
	}
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("parsed %+v\nwant   %+v", m, want)
	}
	// Append finds Next, Version and Length itself and leaves m alone.
	want.Next, want.Version, want.Length = 0, 0, 0
	if got := want.Append([]byte{0xaa}); !bytes.Equal(got, append([]byte{0xaa}, b...)) {
		t.Errorf("wrote %x\nwant  aa%x", got, b)
	}
	if want.Next != 0 || want.Version != 0 || want.Length != 0 {
		t.Error("Append changed its message")
	}
}

func TestEncryptedEndsMessage(t *testing.T) {
	b := unhex(t, `
		0102030405060708 1112131415161718 29 20 25 08 00000002 0000002b
		2e 00 0008  00 00 4000
		2a 80 0007  aabbcc    # the first payload inside is a Delete; critical is ignored`)
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	want := []Payload{&Notify{Kind: InitialContact}, &Encrypted{36, TypeDelete, []byte{0xaa, 0xbb, 0xcc}}}
	if !reflect.DeepEqual(m.Payloads, want) {
		t.Errorf("parsed %+v", m.Payloads)
	}
	b[37] = 0
	if got := m.Append(nil); !bytes.Equal(got, b) {
		t.Errorf("wrote %x\nwant  %x", got, b)
	}
}

func TestFragmentEndsMessage(t *testing.T) {
	for _, next := range []string{"23", "00"} {
		b := unhex(t, "0102030405060708 1112131415161718 35 20 23 08 00000001 00000024"+next+"00 0008 00010002")
		m, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		want := &Raw{T: TypeSKF, Next: PayloadType(unhex(t, next)[0]), Data: []byte{0, 1, 0, 2}}
		if len(m.Payloads) != 1 || !reflect.DeepEqual(m.Payloads[0], want) {
			t.Errorf("parsed %+v", m.Payloads)
		}
		if got := m.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("wrote %x\nwant  %x", got, b)
		}
	}
}

func TestMessageRefused(t *testing.T) {
	const (
		head   = "0102030405060708 1112131415161718"
		end    = "20 25 08 00000002"
		notify = "00 0008 00 00 4000"
	)
	for _, tt := range []struct {
		name, message string
		payload       PayloadType
		want          string
	}{
		{"length too small", head + "29" + end + "00000023 00" + notify, NoNext, "length field says 35, the datagram has 36"},
		{"length too large", head + "29" + end + "00000025 00" + notify, NoNext, "length field says 37, the datagram has 36"},
		{"length beyond 32-bit int", head + "29" + end + "80000024 00" + notify, NoNext, "length field says 2147483684"},
		{"length wrapping", head + "29" + end + "ffffffff 00" + notify, NoNext, "length field says 4294967295"},
		{"next payload missing", head + "29" + end + "00000024 2b" + notify, TypeVendor, "needs 1 bytes"},
		{"payloads without a next", head + "00" + end + "00000024 00" + notify, NoNext, "8 trailing bytes"},
		{"trailing byte", head + "29" + end + "00000025 00" + notify + "00", NoNext, "1 trailing bytes"},
		{"half a generic header", head + "29" + end + "0000001f 00 00 00", TypeNotify, "needs 2 bytes, 1 are left"},
		{"payload length 0", head + "2b" + end + "00000020 00 00 0000", TypeVendor, "length 0"},
		{"payload length 3", head + "2b" + end + "00000020 00 00 0003", TypeVendor, "length 3"},
		{"payload beyond the message", head + "2b" + end + "00000020 00 00 0005", TypeVendor, "needs 1 bytes, 0 are left"},
		{"payload after SK", head + "2e" + end + "0000002d 29 00 0009 0102030405 00" + notify, NoNext, "8 trailing bytes"},
		{"payload after SKF", head + "35" + end + "0000002c 29 00 0008 00010001 00" + notify, NoNext, "8 trailing bytes"},
		{"second SK", head + "2e" + end + "00000026 2e 00 0005 01 00 00 0005 01", NoNext, "5 trailing bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(unhex(t, tt.message))
			checkSyntax(t, err, tt.payload, tt.want)
		})
	}
}
