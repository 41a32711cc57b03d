package wire

import (
	"bytes"
	"hash/maphash"
	"testing"
)

// sampleFirst is an IKE_SA_INIT request with these payloads in front of the
// usual ones.
func sampleFirst(front ...Payload) []byte {
	m := Message{Header{SPIi: 0x0102030405060708, Exchange: IKESAInit, Flags: FlagInitiator}, append(front,
		sampleIKEOffer(nil), &KE{KEX25519, filled(32, 7)}, &Nonce{filled(32, 9)},
		&Notify{Kind: NATDetectionSource, Data: filled(20, 1)}, &Raw{T: TypeVendor, Data: []byte("a vendor")})}
	return m.Append(nil)
}

func cookieOf(n int) *Notify { return &Notify{Kind: Cookie, Data: filled(n, 0xc0)} }

func scanFirst(t testing.TB, data []byte) First {
	t.Helper()
	f, err := ScanFirst(data)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestScanFirst(t *testing.T) {
	bare := sampleFirst()
	seed := maphash.MakeSeed()
	plain := scanFirst(t, bare)
	if plain.SPIi != 0x0102030405060708 || !bytes.Equal(plain.Nonce, filled(32, 9)) || plain.Cookie != nil {
		t.Errorf("read %+v", plain)
	}
	atEnd := Message{Header{SPIi: 0x0102030405060708, Exchange: IKESAInit, Flags: FlagInitiator}, nil}
	m, err := Parse(bare)
	if err != nil {
		t.Fatal(err)
	}
	atEnd.Payloads = append(m.Payloads, cookieOf(17))
	for name, tt := range map[string]struct {
		data   []byte
		cookie int
		same   bool
	}{
		"none":                   {bare, 0, true},
		"the shortest":           {sampleFirst(cookieOf(1)), 1, true},
		"ours":                   {sampleFirst(cookieOf(17)), 17, true},
		"the longest":            {sampleFirst(cookieOf(64)), 64, true},
		"behind another payload": {sampleFirst(&Raw{T: TypeVendor, Data: []byte("x")}, cookieOf(17)), 17, false},
		"at the end":             {atEnd.Append(nil), 17, true},
		"empty":                  {sampleFirst(&Notify{Kind: Cookie}), 0, false},
		"with an SPI":            {sampleFirst(&Notify{Protocol: ProtoESP, SPI: filled(4, 1), Kind: Cookie, Data: filled(17, 1)}), 0, false},
		"another notification":   {sampleFirst(&Notify{Kind: InitialContact, Data: filled(17, 1)}), 0, false},
		"a second one":           {sampleFirst(cookieOf(17), cookieOf(18)), 17, false},
	} {
		f := scanFirst(t, tt.data)
		if len(f.Cookie) != tt.cookie {
			t.Errorf("%s: a cookie of %d bytes, want %d", name, len(f.Cookie), tt.cookie)
		}
		if got := bytes.Equal(f.Normal(nil), bare); got != tt.same {
			t.Errorf("%s: the same request: %v, want %v", name, got, tt.same)
		}
		if got := f.Digest(seed) == plain.Digest(seed); got != tt.same {
			t.Errorf("%s: the same digest: %v, want %v", name, got, tt.same)
		}
		if tt.same && tt.cookie > 0 && name != "at the end" {
			again := scanFirst(t, f.WithCookie(nil, f.Cookie))
			if !bytes.Equal(again.data, tt.data) || !bytes.Equal(plain.WithCookie([]byte("front"), f.Cookie)[5:], tt.data) {
				t.Errorf("%s: with its cookie put in, it is another", name)
			}
		}
		if !bytes.Equal(f.Normal([]byte("front"))[5:], f.Normal(nil)) {
			t.Errorf("%s: appended, it is another", name)
		}
	}
}

// Every other byte counts: one that changes makes another request.
func TestNormalKeepsTheRest(t *testing.T) {
	seed := maphash.MakeSeed()
	data := sampleFirst(cookieOf(17))
	want := scanFirst(t, data)
	for i := range data {
		changed := bytes.Clone(data)
		changed[i] ^= 0x40
		f, err := ScanFirst(changed)
		inCookie := i >= want.at+genericLen+notifyHeader && i < want.at+want.size
		if err == nil && f.size == want.size && (f.Digest(seed) == want.Digest(seed)) != (inCookie || i == want.at+1 || i == want.at+4) {
			t.Errorf("byte %d of the message: in the cookie %v, the same request %v", i, inCookie, f.Digest(seed) == want.Digest(seed))
		}
	}
}

func TestScanFirstRefuses(t *testing.T) {
	good := sampleFirst(cookieOf(17))
	for n := range good {
		if _, err := ScanFirst(good[:n]); err == nil {
			t.Errorf("%d of %d bytes are taken", n, len(good))
		}
	}
	noNonce := (&Message{Header{SPIi: 1, Exchange: IKESAInit}, []Payload{sampleIKEOffer(nil)}}).Append(nil)
	many := Message{Header{SPIi: 1, Exchange: IKESAInit}, []Payload{&Nonce{filled(32, 9)}}}
	for len(many.Payloads) < maxPayloads {
		many.Payloads = append(many.Payloads, &Raw{T: TypeVendor})
	}
	if _, err := ScanFirst(many.Append(nil)); err != nil {
		t.Errorf("with as many payloads as there may be: %v", err)
	}
	many.Payloads = append(many.Payloads, &Raw{T: TypeVendor})
	for name, data := range map[string][]byte{
		"one payload too many": many.Append(nil),
		"no nonce":             noNonce,
		"a short nonce":        (&Message{Header{SPIi: 1, Exchange: IKESAInit}, []Payload{&Raw{T: TypeNonce, Data: filled(15, 1)}}}).Append(nil),
		"a long nonce":         (&Message{Header{SPIi: 1, Exchange: IKESAInit}, []Payload{&Raw{T: TypeNonce, Data: filled(257, 1)}}}).Append(nil),
		"a byte too many":      append(bytes.Clone(good), 0),
	} {
		if _, err := ScanFirst(data); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// What Parse takes, ScanFirst reads in the same way; and a cookie put in front
// of a request leaves it the same request.
func FuzzScanFirst(f *testing.F) {
	f.Add(sampleFirst())
	f.Add(sampleFirst(cookieOf(17)))
	for _, m := range sampleMessages() {
		f.Add(m.Append(nil))
	}
	f.Add((&Message{Header{SPIi: 1, Exchange: IKESAInit}, []Payload{&Nonce{filled(32, 9)}, &Encrypted{Next: TypeAuth, Body: filled(28, 1)}}}).Append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		first, errScan := ScanFirst(data)
		m, err := Parse(data)
		if err != nil {
			return
		}
		nonce, ok := Find[*Nonce](m.Payloads)
		if !ok {
			return
		}
		if errScan != nil || !bytes.Equal(first.Nonce, nonce.Data) {
			t.Fatalf("parsed, but %v; nonce % x, want % x", errScan, first.Nonce, nonce.Data)
		}
		if first.size != 0 {
			without, err := ScanFirst(first.Normal(nil))
			if err != nil || len(without.data) != len(data)-first.size {
				t.Fatalf("without its cookie: %v", err)
			}
			return
		}
		again, err := ScanFirst(first.WithCookie(nil, filled(17, 0xc0)))
		if err != nil || !bytes.Equal(again.Cookie, filled(17, 0xc0)) || !bytes.Equal(again.Normal(nil), data) {
			t.Fatalf("with a cookie in front: %v", err)
		}
	})
}

func BenchmarkScanFirst(b *testing.B) {
	data := sampleFirst(cookieOf(17))
	seed := maphash.MakeSeed()
	b.ReportAllocs()
	for b.Loop() {
		f, err := ScanFirst(data)
		if err != nil || f.Digest(seed) == 0 {
			b.Fatal(err)
		}
	}
}
