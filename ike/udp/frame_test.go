package udp

import (
	"bytes"
	"testing"
)

func bytesOf(first string, length int) []byte {
	b := append([]byte(first), bytes.Repeat([]byte{0x77}, length)...)
	return b[:length]
}

func TestClassify(t *testing.T) {
	const zero = "\x00\x00\x00\x00"
	for _, c := range []struct {
		name string
		natt bool
		in   []byte
		kind kind
		skip int // bytes before the message
	}{
		{"IKE", true, bytesOf(zero, 4+28), kindIKE, 4},
		{"IKE, large", true, bytesOf(zero, 9000), kindIKE, 4},
		{"IKE, a byte short", true, bytesOf(zero, 4+27), kindShort, 0},
		{"marker alone", true, bytesOf(zero, 4), kindShort, 0},
		{"part of a marker", true, bytesOf(zero, 3), kindShort, 0},
		{"nothing", true, nil, kindShort, 0},
		{"keepalive", true, []byte{0xff}, kindKeepalive, 0},
		{"two of them", true, []byte{0xff, 0xff}, kindShort, 0},
		{"another byte", true, []byte{0xfe}, kindShort, 0},
		{"a zero byte", true, []byte{0}, kindShort, 0},
		{"ESP", true, bytesOf("\x00\x00\x01\x00", 60), kindESP, 0},
		{"ESP that begins like a keepalive", true, bytesOf("\xff", 60), kindESP, 0},
		{"ESP header alone", true, bytesOf("\x4a\x01\xf3\xc2", 8), kindESP, 0},
		{"ESP, cut", true, bytesOf("\x4a\x01\xf3\xc2", 7), kindShort, 0},
		{"on the IKE port there is no marker", false, bytesOf(zero, 28), kindIKE, 0},
		{"nor ESP", false, bytesOf("\x4a\x01\xf3\xc2", 60), kindIKE, 0},
		{"nor keepalives", false, []byte{0xff}, kindShort, 0},
		{"IKE port, a byte short", false, bytesOf("\x4a", 27), kindShort, 0},
	} {
		kind, data := classify(c.natt, c.in)
		if kind != c.kind {
			t.Errorf("%s: kind %d, want %d", c.name, kind, c.kind)
		}
		if kind == kindIKE || kind == kindESP {
			if !bytes.Equal(data, c.in[c.skip:]) {
				t.Errorf("%s: the message is %x, want %x", c.name, data, c.in[c.skip:])
			}
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(true, []byte{0xff})
	f.Add(false, []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, natt bool, b []byte) {
		kind, data := classify(natt, b)
		switch {
		case kind == kindESP && (!natt || len(data) < espHeader || bytes.HasPrefix(data, marker[:])):
			t.Errorf("ESP of %x", b)
		case kind == kindIKE && len(data) < ikeHeader:
			t.Errorf("IKE of %x", b)
		case !bytes.HasSuffix(b, data):
			t.Errorf("%x is not the end of %x", data, b)
		}
	})
}
