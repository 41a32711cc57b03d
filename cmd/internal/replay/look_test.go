package replay

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/cmd/internal/pcap"
)

// Before the first frame all is known that is to be registered, and with our
// addresses nothing that is in transit.
func TestLook(t *testing.T) {
	here, here6 := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")
	esp, ah := SA{Dst: here, SPI: 0xc0ffee01}, SA{Dst: here, SPI: 0xc0ffee01, AH: true}
	espInUDP, esp6 := SA{Dst: here, SPI: 0xc0ffee02}, SA{Dst: here6, SPI: 0xc0ffee03}
	file := capture(pcap.Ethernet, 0, "00005e0053", ethernet4+ipIKENATT, ethernet4+ipESP, ethernet4+ipESP, ethernet4+ipAH,
		ethernet4+ipESPInUDP, ethernet6+ip6ESP)
	set := func(all ...SA) map[SA]bool {
		m := map[SA]bool{}
		for _, sa := range all {
			m[sa] = true
		}
		return m
	}
	both := map[netip.Addr]bool{here: true, here6: true}
	only6 := map[netip.Addr]bool{here6: true}
	for _, row := range []struct {
		name    string
		options Options
		locals  map[netip.Addr]bool
		sas     map[SA]bool
	}{
		{"nothing", Options{}, both, set()},
		{"an SA", Options{SAs: []SA{ah}}, both, set(ah)},
		{"every SA", Options{AllSAs: true}, both, set(esp, ah, espInUDP, esp6)},
		{"an address", Options{Locals: []netip.Addr{here6}}, only6, set()},
		{"every SA to an address", Options{AllSAs: true, Locals: []netip.Addr{here6}}, only6, set(esp6)},
		{"every SA to an address, and another", Options{AllSAs: true, SAs: []SA{ah}, Locals: []netip.Addr{here6}}, only6, set(ah, esp6)},
		{"every SA, another port", Options{AllSAs: true, NATTPort: 14500}, both, set(esp, ah, esp6)},
	} {
		all, err := look(t.Context(), bytes.NewReader(file), row.options, mostEntries)
		if err != nil {
			t.Fatal(err)
		}
		if all.frames != 7 || all.damage != nil {
			t.Errorf("%s: %d frames, %v", row.name, all.frames, all.damage)
		}
		if !maps.Equal(row.locals, all.locals) || !maps.Equal(row.sas, all.sas) {
			t.Errorf("%s: %v and %v, want %v and %v", row.name, all.locals, all.sas, row.locals, row.sas)
		}
	}
	if _, err := look(t.Context(), bytes.NewReader(file), Options{AllSAs: true}, 3); err == nil || err.Error() != "frame 7: more than 3 addresses or SPIs to register" {
		t.Errorf("%v", err)
	}
}

// More SPIs and more destinations than a map has by default: there is room for
// each.
func TestManySPIs(t *testing.T) {
	privileged(t)
	const count = 70000
	frame := unhex(ethernet4 + ipESP)
	file := bytes.NewBuffer(capture(pcap.Ethernet, 0))
	for i := range uint32(count) {
		binary.BigEndian.PutUint32(frame[14+16:], 0x0a000000+i) // destination
		binary.BigEndian.PutUint32(frame[14+20:], 0xc0000000+i) // SPI
		file.Write(capture(pcap.Ethernet, 0, hex.EncodeToString(frame))[24:])
	}
	r := replay(t, file.Bytes(), Options{AllSAs: true})
	if n := r.summary.ByReason["esp_known"]; n != count || len(r.summary.SPIs) != count {
		t.Errorf("%d known, %d SPIs, want %d: %v", n, len(r.summary.SPIs), count, r.summary.ByReason)
	}
}

// rewritten is a file that becomes another between the two times that it is
// read.
type rewritten struct {
	*bytes.Reader
	then []byte
}

func (r *rewritten) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekStart {
		r.Reset(r.then)
	}
	return r.Reader.Seek(offset, whence)
}

// A capture that is still being written counts as far as it went; one that is
// being written over is an error, after what there was.
func TestChangingCapture(t *testing.T) {
	privileged(t)
	one, two := capture(pcap.Ethernet, 0, ethernet4+ipESP), capture(pcap.Ethernet, 0, ethernet4+ipESP, ethernet6+ip6ESP)
	for _, row := range []struct {
		name        string
		first, then []byte
		want        string
	}{
		{"longer", one, two, ""},
		{"shorter", two, one, "the capture has become shorter while it was read"},
		{"cut", two, two[:len(two)-1], "frame 2: not a capture that can be read: the file ends in the middle"},
		{"cut both times", two[:len(two)-1], two[:len(two)-1], "frame 2: not a capture that can be read: the file ends in the middle"},
		{"repaired", two[:len(two)-1], two, "frame 2: not a capture that can be read: the file ends in the middle"},
	} {
		var out bytes.Buffer
		err := Run(t.Context(), &out, &rewritten{bytes.NewReader(row.first), row.then}, Options{AllSAs: true})
		if (err == nil) != (row.want == "") || err != nil && err.Error() != row.want {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
		if r := parse(t, out.Bytes()); len(r.lines) != 1 || r.lines[0].Reason != "esp_known" || r.summary.Frames != 1 {
			t.Errorf("%s: %+v", row.name, r)
		}
	}
	// It may begin behind other things.
	behind := bytes.NewReader(append([]byte("12345"), two...))
	var out bytes.Buffer
	_, err := behind.Seek(5, io.SeekStart)
	if err = errors.Join(err, Run(t.Context(), &out, behind, Options{})); err != nil || !strings.Contains(out.String(), `"frames":2`) {
		t.Errorf("%v, %s", err, &out)
	}
}

// Interrupted, it says what it has done; before the first frame, nothing.
func TestInterrupted(t *testing.T) {
	privileged(t)
	file := capture(pcap.Ethernet, 0, ethernet4+ipESP, ethernet4+ipESP, ethernet4+ipESP)
	ctx, cancel := context.WithCancel(t.Context())
	out := &interrupting{at: 2, cancel: cancel}
	if err := Run(ctx, out, bytes.NewReader(file), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if r := parse(t, out.Bytes()); len(r.lines) != 2 || r.summary.Frames != 2 {
		t.Errorf("%s", out)
	}
	out.Reset()
	if err := Run(ctx, out, bytes.NewReader(file), Options{}); !errors.Is(err, context.Canceled) || out.Len() != 0 {
		t.Errorf("%v, %s", err, out)
	}
}

// interrupting cancels with its nth line.
type interrupting struct {
	bytes.Buffer
	lines, at int
	cancel    context.CancelFunc
}

func (w *interrupting) Write(b []byte) (int, error) {
	if w.lines++; w.lines == w.at {
		w.cancel()
	}
	return w.Buffer.Write(b)
}
