package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/ikepulse/ikepulse/bpf"
	"github.com/ikepulse/ikepulse/cmd/internal/pcap"
	"github.com/ikepulse/ikepulse/test/require"
)

// expectation is what somebody else's parser found in a capture.
type expectation struct {
	File    string
	Frames  int
	Ingress map[string]int `json:"as_ingress_to_gateway"`
	Either  map[string]int `json:"classes_either_direction"`
	SPIs    []struct {
		Dst, SPI string
		Count    uint64
		MaxSeq   uint32 `json:"max_seq"`
	}
}

func expectations(t *testing.T) (dir string, all []expectation) {
	t.Helper()
	require.Have(t, "root", "bpf")
	dir = require.Cases(t)
	text, err := os.ReadFile(filepath.Join(dir, "xdp_expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 30 {
		t.Fatalf("%d captures", len(all))
	}
	return dir, all
}

// replayed is what Run wrote.
type replayed struct {
	lines   []Line
	summary Summary
}

func replay(t *testing.T, capture []byte, o Options) replayed {
	t.Helper()
	var out bytes.Buffer
	if err := Run(t.Context(), &out, bytes.NewReader(capture), o); err != nil {
		t.Fatal(err)
	}
	return parse(t, out.Bytes())
}

func parse(t *testing.T, out []byte) (r replayed) {
	t.Helper()
	for text := range bytes.Lines(out) {
		var last struct{ Summary *Summary }
		decoder := json.NewDecoder(bytes.NewReader(text))
		if bytes.HasPrefix(text, []byte(`{"summary":`)) {
			if err := decoder.Decode(&last); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			r.summary = *last.Summary
			continue
		}
		var line Line
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		r.lines = append(r.lines, line)
	}
	return r
}

// Every capture of others gives what their parser found, as ingress of a
// gateway whose SAs are known; and everything passes but keepalives.
func TestCases(t *testing.T) {
	dir, all := expectations(t)
	for _, want := range all {
		t.Run(want.File, func(t *testing.T) {
			capture, err := os.ReadFile(filepath.Join(dir, want.File))
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, capture, Options{AllSAs: true})
			if len(got.lines) != want.Frames || got.summary.Frames != want.Frames {
				t.Errorf("%d frames, want %d", len(got.lines), want.Frames)
			}
			if n := want.Either["nonip"]; n > 0 {
				want.Ingress["nonip"] = n
			}
			if diff := cmp.Diff(want.Ingress, got.summary.ByClass); diff != "" {
				t.Errorf("classes (-want +got):\n%s", diff)
			}
			spis := map[string]SPI{}
			for _, spi := range want.SPIs {
				spis[fmt.Sprintf("%s/0x%s", spi.Dst, spi.SPI)] = SPI{spi.Count, spi.MaxSeq}
			}
			if diff := cmp.Diff(spis, got.summary.SPIs); diff != "" {
				t.Errorf("SPIs (-want +got):\n%s", diff)
			}
			for _, line := range got.lines {
				if (line.Verdict == "pass") == (line.Class == "keepalive") {
					t.Errorf("%+v", line)
				}
			}
		})
	}
}

// What others say of frames from the NAT-T port that lie about their lengths is
// said of them here when they go to it.
func TestCasesTheOtherWay(t *testing.T) {
	dir, all := expectations(t)
	tried := 0
	for _, want := range all {
		n := want.Either["4500-short0"]
		if n == 0 {
			continue
		}
		tried++
		file, err := os.ReadFile(filepath.Join(dir, want.File))
		if err != nil {
			t.Fatal(err)
		}
		// Ports follow IPv4 without options.
		from, to := []byte{0x11, 0x94, 0x30, 0x30}, []byte{0x30, 0x30, 0x11, 0x94}
		if bytes.Count(file, from) != n {
			t.Fatalf("%s: %d frames from port 4500, want %d", want.File, bytes.Count(file, from), n)
		}
		got := replay(t, bytes.ReplaceAll(file, from, to), Options{AllSAs: true})
		if got.summary.ByClass["short_4500"] != n {
			t.Errorf("%s: %v", want.File, got.summary.ByClass)
		}
	}
	if tried == 0 {
		t.Error("no capture has one")
	}
}

// With no SA registered, no map gains an entry, and nothing but the counters
// changes: neither where every destination is ours, as the SPIs and keepalives
// of a flood are, nor where none is.
func TestCasesLeaveNothing(t *testing.T) {
	dir, all := expectations(t)
	for _, want := range all {
		t.Run(want.File, func(t *testing.T) {
			file, err := os.ReadFile(filepath.Join(dir, want.File))
			if err != nil {
				t.Fatal(err)
			}
			ours, err := look(t.Context(), bytes.NewReader(file), Options{}, mostEntries)
			if err != nil {
				t.Fatal(err)
			}
			for name, known := range map[string]*found{"ours": ours, "not ours": {}} {
				s, err := newSession(known, Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer s.close()
				before := s.contents(t)
				frames, err := pcap.NewReader(bytes.NewReader(file))
				if err == nil {
					err = s.runAll(t.Context(), frames, want.Frames, func(line Line) error {
						if keepalive := line.Class == "keepalive"; (line.Verdict == "pass") == keepalive {
							t.Errorf("%s: %+v", name, line)
						}
						return nil
					})
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if diff := cmp.Diff(before, s.contents(t)); diff != "" {
					t.Errorf("%s (-before +after):\n%s", name, diff)
				}
			}
		})
	}
}

// The walk sees what there is.
func TestContents(t *testing.T) {
	privileged(t)
	s, err := newSession(&found{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	before := s.contents(t)
	if err := s.addSA(SA{Dst: netip.MustParseAddr("192.0.2.1"), SPI: 7}); err != nil {
		t.Fatal(err)
	}
	if cmp.Equal(before, s.contents(t)) {
		t.Error("an entry more makes no difference")
	}
}

// contents is every entry of every map that tunnels live in.
func (s *session) contents(t *testing.T) map[string]any {
	t.Helper()
	return map[string]any{
		"hot":    entries[uint32, bpf.HotEntry](t, s.IkepulseHot),
		"sas":    entries[uint32, bpf.SAEntry](t, s.IkepulseSas),
		"peers":  entries[bpf.PeerKey, bpf.PeerEntry](t, s.IkepulsePeers),
		"near":   entries[uint32, bpf.NearBucket](t, s.IkepulseNear),
		"locals": entries[bpf.LocalKey, uint32](t, s.IkepulseLocals),
		"follow": entries[bpf.FollowKey, uint32](t, s.IkepulseFollow),
		"budget": entries[uint32, bpf.Budget](t, s.IkepulseBudget),
	}
}

// entries returns those of a hash, and those of an array that are not zero.
func entries[K, V comparable](t *testing.T, m *ebpf.Map) map[K]V {
	t.Helper()
	var cursor ebpf.MapBatchCursor
	var zero V
	keys, values := make([]K, m.MaxEntries()+1), make([]V, m.MaxEntries()+1)
	n, err := m.BatchLookup(&cursor, keys, values, nil)
	if !errors.Is(err, ebpf.ErrKeyNotExist) || m.Type() == ebpf.Array && n != int(m.MaxEntries()) {
		t.Fatalf("%v: %d entries, %v", m, n, err)
	}
	all := map[K]V{}
	for i, key := range keys[:n] {
		if m.Type() == ebpf.Hash || values[i] != zero {
			all[key] = values[i]
		}
	}
	return all
}
