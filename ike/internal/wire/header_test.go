package wire

import (
	"errors"
	"reflect"
	"testing"
)

var sampleHeader = Header{
	SPIi: 0x0102030405060708, SPIr: 0x1112131415161718, Next: TypeSK, Version: 0x21,
	Exchange: Informational, Flags: FlagInitiator | FlagResponse, MessageID: 0x21222324, Length: 0x31323334,
}

const sampleHeaderHex = "0102030405060708 1112131415161718 2e 21 25 28 21222324 31323334"

func TestHeader(t *testing.T) {
	b := unhex(t, sampleHeaderHex)
	if len(b) != HeaderLen {
		t.Fatalf("%d bytes", len(b))
	}
	h, err := ParseHeader(append(b, 0xff)) // what follows is not its business
	if err != nil || h != sampleHeader {
		t.Errorf("parsed %+v, %v", h, err)
	}
	if h.Major() != 2 {
		t.Errorf("major %d", h.Major())
	}
	if got := sampleHeader.Append([]byte{0xaa}); !reflect.DeepEqual(got, append([]byte{0xaa}, b...)) {
		t.Errorf("wrote %x", got)
	}
}

func TestHeaderTooShort(t *testing.T) {
	b := unhex(t, sampleHeaderHex)
	for n := range HeaderLen {
		_, err := ParseHeader(b[:n:n])
		checkSyntax(t, err, NoNext, "needs")
		_, err = Parse(b[:n:n])
		checkSyntax(t, err, NoNext, "needs")
	}
}

// The version is judged before anything else of the header, so that a caller
// can tell what must stay unanswered from what is merely broken.
func TestVersions(t *testing.T) {
	for v := range 256 {
		b := unhex(t, sampleHeaderHex)
		b[17] = byte(v)
		if _, err := ParseHeader(b); err != nil {
			t.Errorf("version %#x: header refused: %v", v, err)
		}
		_, err := Parse(b)
		var version *VersionError
		if v>>4 == 2 {
			checkSyntax(t, err, NoNext, "length field says")
		} else if !errors.As(err, &version) || version.Version != byte(v) {
			t.Errorf("version %#x: %v", v, err)
		}
	}
}

func TestMinorVersionIsIgnored(t *testing.T) {
	b := unhex(t, "0102030405060708 0000000000000000 00 2f 25 00 00000000 0000001c")
	m, err := Parse(b)
	if err != nil || m.Version != 0x2f || len(m.Payloads) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if got := m.Append(nil); got[17] != 0x20 {
		t.Errorf("wrote version %#x", got[17])
	}
}
