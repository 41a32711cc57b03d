package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// checkParse holds what must be true of any bytes: an error of a kind that
// the caller can tell apart, or a message that is no view of its input and
// that, written and read again, is the same.
func checkParse(t *testing.T, b []byte) (*Message, error) {
	t.Helper()
	b = slices.Clip(bytes.Clone(b)) // a read beyond the end must not find spare room
	m, err := Parse(b)
	if err != nil {
		checkErrorKind(t, b, err)
		return nil, err
	}
	written := m.Append(nil)
	scribble(b)
	if again := m.Append(nil); !bytes.Equal(written, again) {
		t.Fatalf("the message changed with its input:\n%x\n%x", written, again)
	}
	if len(written) > len(b) {
		t.Fatalf("%d bytes became %d", len(b), len(written))
	}
	m2, err := Parse(written)
	if err != nil {
		t.Fatalf("own bytes refused: %v\n%x", err, written)
	}
	if again := m2.Append(nil); !bytes.Equal(written, again) {
		t.Fatalf("not a fixed point:\n%x\n%x", written, again)
	}
	// Only these may differ: our version, the length without what we ignored,
	// and so where SK begins.
	h := m.Header
	h.Version, h.Length = m2.Version, m2.Length
	if h != m2.Header || !reflect.DeepEqual(withoutOffset(m.Payloads), withoutOffset(m2.Payloads)) {
		t.Fatalf("read    %+v\nreread  %+v", m, m2)
	}
	return m, nil
}

// checkParsePayloads holds the same for what was inside an SK payload.
func checkParsePayloads(t *testing.T, first PayloadType, b []byte) ([]Payload, error) {
	t.Helper()
	b = slices.Clip(bytes.Clone(b))
	ps, err := ParsePayloads(first, b)
	if err != nil {
		checkErrorKind(t, b, err)
		return nil, err
	}
	scribble(b)
	written, next := AppendPayloads(nil, ps)
	if next != first || len(written) > len(b) {
		t.Fatalf("%s, %d bytes became %s, %d bytes", first, len(b), next, len(written))
	}
	again, err := ParsePayloads(next, written)
	if err != nil || !reflect.DeepEqual(ps, again) {
		t.Fatalf("read    %+v\nreread  %+v, %v", ps, again, err)
	}
	return ps, nil
}

func checkErrorKind(t *testing.T, b []byte, err error) {
	t.Helper()
	var (
		syntax   *SyntaxError
		version  *VersionError
		critical *CriticalError
	)
	switch {
	case errors.As(err, &version), errors.As(err, &critical):
	case !errors.As(err, &syntax):
		t.Fatalf("error of type %T: %v", err, err)
	case syntax.Offset < 0 || syntax.Offset > len(b):
		t.Fatalf("offset outside of %d bytes: %v", len(b), err)
	}
}

func scribble(b []byte) {
	for i := range b {
		b[i] ^= 0xa5
	}
}

func withoutOffset(ps []Payload) []Payload {
	ps = slices.Clone(ps)
	for i, p := range ps {
		if e, ok := p.(*Encrypted); ok {
			ps[i] = &Encrypted{Next: e.Next, Body: e.Body}
		}
	}
	return ps
}

// checkTruncations cuts a message everywhere, with the length it had and with
// a length field that fits the cut.
func checkTruncations(t *testing.T, b []byte) {
	t.Helper()
	for n := range b {
		if _, err := checkParse(t, b[:n]); err == nil {
			t.Errorf("accepted with %d of %d bytes", n, len(b))
		}
		if n < HeaderLen {
			continue
		}
		cut := bytes.Clone(b[:n])
		binary.BigEndian.PutUint32(cut[24:], uint32(n))
		if _, err := checkParse(t, cut); err == nil {
			t.Errorf("accepted with %d of %d bytes and that length", n, len(b))
		}
	}
}

// checkFlips flips each bit of a message: some are harmless, none may break
// what checkParse holds.
func checkFlips(t *testing.T, b []byte) {
	t.Helper()
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		_, _ = checkParse(t, b)
		b[i/8] ^= 1 << (i % 8)
	}
}

func checkChainTruncations(t *testing.T, first PayloadType, b []byte) {
	t.Helper()
	for n := range b {
		if _, err := checkParsePayloads(t, first, b[:n]); err == nil {
			t.Errorf("accepted with %d of %d bytes", n, len(b))
		}
	}
}

func checkChainFlips(t *testing.T, first PayloadType, b []byte) {
	t.Helper()
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		_, _ = checkParsePayloads(t, first, b)
		b[i/8] ^= 1 << (i % 8)
	}
}

func TestSamplesRoundTrip(t *testing.T) {
	for _, sample := range sampleMessages() {
		b := sample.Append(nil)
		m, err := checkParse(t, b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(withoutOffset(m.Payloads), sample.Payloads) && len(sample.Payloads) > 0 {
			t.Errorf("wrote %+v\nread  %+v", sample.Payloads, m.Payloads)
		}
	}
	for _, sample := range sampleChains() {
		b, first := AppendPayloads(nil, sample)
		ps, err := checkParsePayloads(t, first, b)
		if err != nil || !reflect.DeepEqual(ps, sample) && len(sample) > 0 {
			t.Errorf("wrote %+v\nread  %+v, %v", sample, ps, err)
		}
	}
}

func TestSamplesTruncated(t *testing.T) {
	for _, sample := range sampleMessages() {
		b := sample.Append(nil)
		checkTruncations(t, b)
	}
	for _, sample := range sampleChains() {
		b, first := AppendPayloads(nil, sample)
		checkChainTruncations(t, first, b)
	}
}

func TestSamplesFlipped(t *testing.T) {
	for _, sample := range sampleMessages() {
		checkFlips(t, sample.Append(nil))
	}
	for _, sample := range sampleChains() {
		b, first := AppendPayloads(nil, sample)
		checkChainFlips(t, first, b)
	}
}

// What a datagram makes us allocate is bounded by its size, whatever counts
// and lengths it claims.
func TestAllocationBounded(t *testing.T) {
	const full = 65000
	fill := func(head, unit string) string {
		n := (full - len(head)/2) / (len(unit) / 2)
		return head + strings.Repeat(unit, n)
	}
	for _, tt := range []struct {
		name  string
		first PayloadType
		chain []byte
	}{
		{"empty payloads", TypeVendor, unhex(t, fill("", "2b000004"))},
		{"repeated deletes", TypeDelete, unhex(t, fill("", "2a00000801000000"))},
		{"one vendor ID", TypeVendor, generically(make([]byte, full))},
		{"delete that claims much", TypeDelete, generically(unhex(t, "0304ffff 00000101"))},
		{"delete that has much", TypeDelete, generically(unhex(t, fill("03043ffd", "00000101")))},
		{"selectors that claim much", TypeTSi, generically(unhex(t, "ff000000"))},
		{"selectors", TypeTSi, generically(unhex(t, fill("ff000000", "070000100000ffff0000000000000000")))},
		{"selectors of an unknown type", TypeTSi, generically(unhex(t, fill("40000000", "09000004")))},
		{"empty attributes", TypeCP, generically(unhex(t, fill("01000000", "00010000")))},
		{"proposals", TypeSA, generically(unhex(t, fill("", "02000010010100010000000801000001")))},
		{"transforms", TypeSA, generically(unhex(t, fill("0000fde0010100ff", "0300000801000001")))},
		{"transform attributes", TypeSA, generically(unhex(t, fill("0000fde8 01010001 0000fde0 01000001", "800f0000")))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := allocated(func() { _, _ = ParsePayloads(tt.first, tt.chain) })
			if limit := uint64(4*len(tt.chain) + 32<<10); got > limit {
				t.Errorf("%d bytes made it allocate %d, more than %d", len(tt.chain), got, limit)
			}
		})
	}
}

// allocated is how many bytes f allocates; the least of some runs, since other
// goroutines of the test binary allocate too.
func allocated(f func()) uint64 {
	least := ^uint64(0)
	var before, after runtime.MemStats
	for range 5 {
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}
