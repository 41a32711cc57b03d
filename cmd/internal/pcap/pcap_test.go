package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

var orders = map[string]order{"little": binary.LittleEndian, "big": binary.BigEndian}

// words appends 32-bit words.
func words(o order, b []byte, all ...uint32) []byte {
	for _, word := range all {
		b = o.AppendUint32(b, word)
	}
	return b
}

func classicFile(o order, magic, linkType uint32, frames ...[]byte) []byte {
	b := words(o, nil, magic, 0x00040002, 0, 0, 262144, linkType)
	for i, frame := range frames {
		b = words(o, b, uint32(1000+i), 250, uint32(len(frame)), uint32(len(frame)+i))
		b = append(b, frame...)
	}
	return b
}

// block is a block of pcapng, padded.
func block(o order, kind uint32, body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	b := words(o, nil, kind, uint32(len(body)+12))
	b = append(b, body...)
	return words(o, b, uint32(len(body)+12))
}

func section(o order) []byte {
	return block(o, blockSection, words(o, nil, byteOrderMagic, 0x00000001, 0xffffffff, 0xffffffff))
}

func iface(o order, linkType uint16, snap uint32, options ...byte) []byte {
	b := o.AppendUint16(nil, linkType)
	b = o.AppendUint16(b, 0)
	b = words(o, b, snap)
	return block(o, blockInterface, append(b, options...))
}

func enhanced(o order, at uint32, units uint64, length uint32, data []byte) []byte {
	b := words(o, nil, at, uint32(units>>32), uint32(units), uint32(len(data)), length)
	return block(o, blockEnhanced, append(b, data...))
}

// all reads a whole capture; frames are copied.
func all(t *testing.T, file []byte) (frames []Frame, err error) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return frames, nil
		}
		if err != nil {
			return frames, err
		}
		f.Data = bytes.Clone(f.Data)
		frames = append(frames, f)
	}
}

func wantFrames(t *testing.T, file []byte, want ...Frame) {
	t.Helper()
	got, err := all(t, file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestClassic(t *testing.T) {
	for name, o := range orders {
		t.Run(name, func(t *testing.T) {
			for magic, unit := range map[uint32]time.Duration{magicMicroseconds: time.Microsecond, magicNanoseconds: time.Nanosecond} {
				wantFrames(t, classicFile(o, magic, 1, []byte{1, 2, 3}, nil, []byte{4}),
					Frame{1, time.Unix(1000, 0).Add(250 * unit).UTC(), Ethernet, []byte{1, 2, 3}, 3},
					Frame{2, time.Unix(1001, 0).Add(250 * unit).UTC(), Ethernet, []byte{}, 1},
					Frame{3, time.Unix(1002, 0).Add(250 * unit).UTC(), Ethernet, []byte{4}, 3})
			}
			// A frame check sequence is said above the link type.
			wantFrames(t, classicFile(o, magicMicroseconds, 0x24000065, []byte{5}),
				Frame{1, time.Unix(1000, 250000).UTC(), Raw, []byte{5}, 1})
			wantFrames(t, classicFile(o, magicMicroseconds, 1))
		})
	}
}

func TestNextGeneration(t *testing.T) {
	for name, o := range orders {
		t.Run(name, func(t *testing.T) {
			resolution9 := append(o.AppendUint16(o.AppendUint16(nil, optionResolution), 1), 9, 0, 0, 0)
			comment := append(o.AppendUint16(o.AppendUint16(nil, 2), 3), 'a', 'b', 'c', 0)
			end := make([]byte, 4)
			file := bytes.Join([][]byte{
				section(o),
				iface(o, 1, 0, append(append(comment, resolution9...), end...)...),
				iface(o, 229, 4),
				block(o, 5, []byte{1, 2, 3, 4}), // statistics
				enhanced(o, 0, 1_700_000_000_123_456_789, 9, []byte{1, 2, 3}),
				enhanced(o, 1, 1_700_000_000_123_456, 2, []byte{4, 5}),
				block(o, blockSimple, append(words(o, nil, 5), 6, 7, 8, 9, 10)),
				block(o, blockPacket, append(words(o, o.AppendUint16(o.AppendUint16(nil, 1), 77), 0, 5_000_001, 1, 2), 11)),
				section(o),
				iface(o, 101, 2, append(o.AppendUint16(o.AppendUint16(nil, optionResolution), 1), 0x80|10, 0, 0, 0)...),
				enhanced(o, 0, 3<<10|1<<9, 1, []byte{12}),
				block(o, blockSimple, append(words(o, nil, 5), 13, 14)),
			}, nil)
			wantFrames(t, file,
				Frame{1, time.Unix(1_700_000_000, 123_456_789).UTC(), Ethernet, []byte{1, 2, 3}, 9},
				Frame{2, time.Unix(1_700_000_000, 123_456_000).UTC(), IPv6, []byte{4, 5}, 2},
				Frame{3, time.Time{}, Ethernet, []byte{6, 7, 8, 9, 10}, 5},
				Frame{4, time.Unix(5, 1000).UTC(), IPv6, []byte{11}, 2},
				Frame{5, time.Unix(3, 500_000_000).UTC(), Raw, []byte{12}, 1},
				Frame{6, time.Time{}, Raw, []byte{13, 14}, 5})
		})
	}
}

// What is not for us may be longer than any frame.
func TestLongBlocks(t *testing.T) {
	const secrets = 10
	for _, o := range orders {
		long := make([]byte, maxBlock)
		file := block(o, blockSection, append(words(o, nil, byteOrderMagic, 0x00000001, 0xffffffff, 0xffffffff), long...))
		file = append(file, block(o, secrets, long)...)
		file = append(file, iface(o, 1, 0)...)
		file = append(file, enhanced(o, 0, 0, 1, []byte{7})...)
		whole := len(file)
		file = append(file, block(o, secrets, long)...)
		want := Frame{1, time.Unix(0, 0).UTC(), Ethernet, []byte{7}, 1}
		wantFrames(t, file, want)
		for _, cut := range []int{1, 4, 5, len(long)} {
			if frames, err := all(t, file[:len(file)-cut]); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "in the middle") || len(frames) != 1 {
				t.Errorf("cut by %d: %d frames, %v", cut, len(frames), err)
			}
		}
		file[len(file)-1]++
		if frames, err := all(t, file); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "ends with") || len(frames) != 1 {
			t.Errorf("%d frames, %v", len(frames), err)
		}
		wantFrames(t, file[:whole], want)
	}
}

// A section of the other byte order may follow.
func TestSectionsOfBothOrders(t *testing.T) {
	var file []byte
	for _, o := range []order{binary.LittleEndian, binary.BigEndian} {
		file = append(file, section(o)...)
		file = append(file, iface(o, 1, 0)...)
		file = append(file, enhanced(o, 0, 0, 1, []byte{7})...)
	}
	wantFrames(t, file,
		Frame{1, time.Unix(0, 0).UTC(), Ethernet, []byte{7}, 1},
		Frame{2, time.Unix(0, 0).UTC(), Ethernet, []byte{7}, 1})
}

// What is damaged is an error that says so, after the frames before it.
func TestDamage(t *testing.T) {
	o := binary.LittleEndian
	good := append(section(o), iface(o, 1, 0)...)
	good = append(good, enhanced(o, 0, 0, 1, []byte{7})...)
	after := func(b ...byte) []byte { return append(bytes.Clone(good), b...) }
	classic := classicFile(o, magicMicroseconds, 1, []byte{1, 2, 3})

	for _, row := range []struct {
		name   string
		file   []byte
		frames int
		want   string
	}{
		{"empty", nil, 0, "0 bytes"},
		{"three bytes", []byte{1, 2, 3}, 0, "3 bytes"},
		{"text", []byte("hello, this is no capture at all"), 0, "begins with 68 65 6c 6c"},
		{"half a header", classic[:20], 0, "in the middle"},
		{"half a frame header", classic[:30], 0, "frame 1: "},
		{"half a frame", classic[:len(classic)-1], 0, "in the middle"},
		{"half a second frame header", append(bytes.Clone(classic), 1), 1, "frame 2: "},
		{"a frame without its bytes", words(o, bytes.Clone(classic), 0, 0, 5, 5), 1, "in the middle"},
		{"a frame of 4 GB", words(o, bytes.Clone(classic), 0, 0, 1<<32-1, 1<<32-1), 1, "4294967295 bytes"},
		{"a section of another order", block(o, blockSection, words(o, nil, 1, 2, 3, 4)), 0, "byte order"},
		{"a section that ends", section(o)[:10], 0, "in the middle"},
		{"a block that ends", good[:len(good)-1], 0, "in the middle"},
		{"half a block header", after(1, 2), 1, "in the middle"},
		{"a block of 8 bytes", words(o, after(), 1, 8, 8), 1, "a block of 8 bytes"},
		{"a block of 13 bytes", words(o, after(), 1, 13, 8, 9), 1, "a block of 13 bytes"},
		{"a block of 4 GB", words(o, after(), 1, 1<<32-4), 1, "a block of 4294967292 bytes"},
		{"two lengths", words(o, after(), 1, 12, 16), 1, "begins with a length of 12 and ends with 16"},
		{"an interface of 4 bytes", after(block(o, blockInterface, make([]byte, 4))...), 1, "an interface of 4"},
		{"a packet of 16 bytes", after(block(o, blockEnhanced, make([]byte, 16))...), 1, "a packet block of 16"},
		{"an old packet of 16 bytes", after(block(o, blockPacket, make([]byte, 16))...), 1, "a packet block of 16"},
		{"a simple packet of none", after(block(o, blockSimple, nil)...), 1, "a packet block of 0"},
		{"an unknown interface", after(enhanced(o, 1, 0, 1, []byte{7})...), 1, "interface 1 of 1"},
		{"a simple packet without an interface", append(section(o), block(o, blockSimple, make([]byte, 8))...), 0, "interface 0 of 0"},
		{"more captured than there is", after(block(o, blockEnhanced, words(o, nil, 0, 0, 0, 5, 5, 1))...), 1, "5 of them captured"},
		{"a simple packet longer than it is", after(block(o, blockSimple, words(o, nil, 5, 1))...), 1, "a frame of 5 bytes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			frames, err := all(t, row.file)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), row.want) || len(frames) != row.frames {
				t.Errorf("%d frames, %v; want %d, %q", len(frames), err, row.frames, row.want)
			}
		})
	}
}

// A wire length that is less than what was captured is a lie.
func TestLengthIsAtLeastWhatWasCaptured(t *testing.T) {
	o := binary.LittleEndian
	file := append(section(o), iface(o, 1, 0)...)
	file = append(file, enhanced(o, 0, 0, 1, []byte{7, 8, 9})...)
	wantFrames(t, file, Frame{1, time.Unix(0, 0).UTC(), Ethernet, []byte{7, 8, 9}, 3})
}

// Nor is one that no frame has: what was captured is there.
func TestAnyLengthOnTheWire(t *testing.T) {
	for _, o := range orders {
		c := classicFile(o, magicMicroseconds, 1)
		c = append(words(o, c, 0, 0, 2, 1<<32-1), 7, 8)
		c = append(words(o, c, 0, 0, 1, 1), 9)
		wantFrames(t, c,
			Frame{1, time.Unix(0, 0).UTC(), Ethernet, []byte{7, 8}, 1<<31 - 1},
			Frame{2, time.Unix(0, 0).UTC(), Ethernet, []byte{9}, 1})

		n := bytes.Join([][]byte{section(o), iface(o, 1, 2), enhanced(o, 0, 0, 1<<32-1, []byte{7}), block(o, blockSimple, append(words(o, nil, 1<<32-1), 8, 9))}, nil)
		wantFrames(t, n,
			Frame{1, time.Unix(0, 0).UTC(), Ethernet, []byte{7}, 1<<31 - 1},
			Frame{2, time.Time{}, Ethernet, []byte{8, 9}, 1<<31 - 1})
	}
}

func TestResolution(t *testing.T) {
	for b, want := range map[byte]uint64{0: 1, 6: 1e6, 9: 1e9, 19: 1e19, 20: 1, 0x80: 1, 0x8a: 1024, 0xbf: 1 << 63, 0xc0: 1} {
		if got := resolution(b); got != want {
			t.Errorf("%#x: %d, want %d", b, got, want)
		}
	}
}

// Whatever the file: no panic, no end without an end, and no frame that is
// longer than it may be.
func FuzzReader(f *testing.F) {
	for _, o := range orders {
		f.Add(classicFile(o, magicMicroseconds, 1, []byte{1, 2, 3}))
		f.Add(bytes.Join([][]byte{section(o), iface(o, 1, 0, 9, 0, 1, 0, 6), enhanced(o, 0, 1, 1, []byte{7}), block(o, blockSimple, words(o, nil, 4, 1))}, nil))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		frames, err := all(t, file)
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("%v", err)
		}
		for _, frame := range frames {
			if len(frame.Data) > maxBlock || frame.Length < len(frame.Data) {
				t.Errorf("%d bytes of %d", len(frame.Data), frame.Length)
			}
		}
	})
}
