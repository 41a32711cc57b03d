package main

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Frames of RFC 5737, RFC 3849 and RFC 7042 addresses, in hexadecimal: from a
// peer to a gateway that has three addresses.
const (
	traceEther4 = "00005e005301 00005e005302 0800 "
	traceEther6 = "00005e005301 00005e005302 86dd "
	traceUs     = "cb007107 c6336401 "
	traceOther  = "cb007107 c6336402 "

	traceKeepalive  = "4500001d 00004000 40110000 " + traceUs + "6134119400090000 ff "
	traceESPInUDP   = "45000024 00004000 40110000 " + traceUs + "6134119400100000 4a01f3c2 00000009 "
	traceESPInUDP2  = "45000024 00004000 40110000 " + traceUs + "6134119400100000 4a01f3c2 0000000a "
	traceESP        = "4500001c 00004000 40320000 " + traceUs + "c0ffee01 00000007 "
	traceESPToOther = "4500001c 00004000 40320000 " + traceOther + "c0ffee01 00000003 "
	traceAH         = "45000020 00004000 40330000 " + traceUs + "04010000 c0ffee01 00000005 "
	traceIKE        = "45000024 00004000 40110000 " + traceUs + "613401f400100000 0102030405060708 "
	traceIKENATT    = "45000024 00004000 40110000 " + traceUs + "6134119400100000 0000000001020304 "
	traceFragment   = "4500001c 00000002 40320000 " + traceUs + "0000000000000000 "
	traceShortIHL   = "4400001c 00004000 40320000 " + traceUs + "c0ffee01 00000007 "
	traceESP6       = "60000000 0008 32 40 20010db8000000000000000000000007 20010db8000000000000000000000001 c0ffee03 0000000b "
)

func traceBytes(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func words(b []byte, all ...int) []byte {
	for _, word := range all {
		b = binary.LittleEndian.AppendUint32(b, uint32(word))
	}
	return b
}

// classic is a capture of Ethernet frames. One with a "+" at its end was longer
// on the wire, by 16 bytes.
func classic(frames ...string) []byte {
	b := words(nil, 0xa1b2c3d4, 0x00040002, 0, 0, 262144, 1)
	for _, frame := range frames {
		text, cut := strings.CutSuffix(frame, "+")
		data := traceBytes(text)
		length := len(data)
		if cut {
			length += 16
		}
		b = append(words(b, 0, 0, len(data), length), data...)
	}
	return b
}

// pcapng is a capture of an Ethernet and a raw IP interface, whose frames
// begin with "eth " and "raw ".
func pcapng(frames ...string) []byte {
	block := func(b []byte, kind int, body []byte) []byte {
		body = append(body, make([]byte, -len(body)&3)...)
		b = append(words(b, kind, len(body)+12), body...)
		return words(b, len(body)+12)
	}
	b := block(nil, 0x0a0d0d0a, words(nil, 0x1a2b3c4d, 1, -1, -1))
	b = block(b, 1, words(nil, 1, 0))
	b = block(b, 1, words(nil, 101, 0))
	for _, frame := range frames {
		at := slices.Index([]string{"eth ", "raw "}, frame[:4])
		data := traceBytes(frame[4:])
		b = block(b, 6, append(words(nil, at, 0, 0, len(data), len(data)), data...))
	}
	return b
}

// everyKind is a frame of each kind that replay tells apart.
func everyKind() []byte {
	return classic(
		traceEther4+traceKeepalive+strings.Repeat("00", 17),
		traceEther4+traceESPInUDP,
		"00005e005301 00005e005302 8100 0007 0800"+traceESPInUDP2,
		traceEther4+traceESP,
		traceEther4+traceESPToOther,
		traceEther4+traceAH,
		traceEther4+traceIKE,
		traceEther4+traceIKENATT,
		traceEther6+traceESP6,
		traceEther4+traceFragment,
		"ffffffffffff 00005e005302 0806 0001080006040001",
		traceEther4+traceShortIHL,
		"00005e0053",
		traceEther4+strings.NewReplacer("45000024", "45000034", "00100000", "00200000").Replace(traceESPInUDP2)+"+",
	)
}

// traceFile writes a capture into a folder of its own.
func traceFile(t *testing.T, capture []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace.pcap")
	if err := os.WriteFile(path, capture, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// long is a capture whose lines are several buffers of output.
func long() []byte { return classic(slices.Repeat([]string{traceEther4 + traceESP}, longFrames)...) }

const longFrames = 3000
