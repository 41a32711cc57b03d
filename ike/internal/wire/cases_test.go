package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ikepulse/ikepulse/test/require"
)

// captured is one IKE message of a capture that others made.
type captured struct {
	File       string
	Frame      int
	Ver        string
	Payloads   []string
	WellFormed bool
	Raw        hexBytes
}

func (c captured) String() string { return fmt.Sprintf("%s frame %d", c.File, c.Frame) }

// good is a message that must be parsed to its payload chain.
func (c captured) good() bool { return c.WellFormed && strings.HasPrefix(c.Ver, "2.") }

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func capturedMessages(t *testing.T) []captured {
	t.Helper()
	f, err := os.Open(filepath.Join(require.Cases(t), "ike_messages.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []captured
	for d := json.NewDecoder(f); ; {
		var c captured
		if err := d.Decode(&c); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
}

func TestCasesParse(t *testing.T) {
	var good, malformed, foreign int
	for _, c := range capturedMessages(t) {
		m, err := checkParse(t, c.Raw)
		var version *VersionError
		switch refused := errors.As(err, &version); {
		case c.good():
			good++
			if err != nil {
				t.Errorf("%s: %v", c, err)
			} else if got, want := chain(m.Payloads), notCritical(c.Payloads); !slices.Equal(got, want) {
				t.Errorf("%s\ngot  %s\nwant %s", c, got, want)
			}
		case strings.HasPrefix(c.Ver, "2."):
			malformed++
			if err == nil || refused {
				t.Errorf("%s, malformed: %v", c, err)
			}
		default:
			foreign++
			if !refused || fmt.Sprintf("%d.%d", version.Version>>4, version.Version&15) != c.Ver {
				t.Errorf("%s, version %s: %v", c, c.Ver, err)
			}
		}
	}
	if good < 40 || malformed < 3 || foreign < 40 {
		t.Errorf("only %d good, %d malformed, %d of other versions", good, malformed, foreign)
	}
}

func TestCasesTruncated(t *testing.T) {
	for _, b := range goodMessages(t) {
		checkTruncations(t, b)
	}
}

func TestCasesFlipped(t *testing.T) {
	for _, b := range goodMessages(t) {
		checkFlips(t, b)
	}
}

func goodMessages(t *testing.T) [][]byte {
	t.Helper()
	var good [][]byte
	for _, c := range capturedMessages(t) {
		if c.good() {
			good = append(good, c.Raw)
		}
	}
	if len(good) < 40 {
		t.Fatalf("only %d good messages", len(good))
	}
	return good
}

// What others' peers had inside their SK payloads.
func TestCasesInside(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(require.Cases(t), "decrypt_expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		File      string
		Frame     int
		First     PayloadType `json:"inner_first"`
		Plaintext hexBytes
		Payloads  []string
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 6 {
		t.Errorf("only %d opened messages", len(all))
	}
	for _, c := range all {
		ps, err := checkParsePayloads(t, c.First, c.Plaintext)
		if err != nil {
			t.Errorf("%s frame %d: %v", c.File, c.Frame, err)
			continue
		}
		if got := bare(chain(ps)); !slices.Equal(got, c.Payloads) {
			t.Errorf("%s frame %d\ngot  %s\nwant %s", c.File, c.Frame, got, c.Payloads)
		}
		if again, _ := AppendPayloads(nil, ps); !bytes.Equal(again, c.Plaintext) {
			t.Errorf("%s frame %d\nread  %x\nwrote %x", c.File, c.Frame, []byte(c.Plaintext), again)
		}
		checkChainTruncations(t, c.First, c.Plaintext)
		checkChainFlips(t, c.First, c.Plaintext)
	}
}

// chain renders payloads in the notation of the cases.
func chain(ps []Payload) []string {
	out := []string{}
	for _, p := range ps {
		switch p := p.(type) {
		case *SA:
			out = append(out, "SA{"+proposals(p.Proposals)+"}")
		case *KE:
			out = append(out, fmt.Sprintf("KE(%d,%dB)", p.Group, len(p.Data)))
		case *Nonce:
			out = append(out, fmt.Sprintf("Nonce(%d)", len(p.Data)))
		case *Notify:
			out = append(out, fmt.Sprintf("N(%d)", p.Kind))
		default:
			out = append(out, p.Type().String())
		}
	}
	return out
}

func proposals(ps []Proposal) string {
	letters := map[TransformType]string{TransformEncr: "E", TransformPRF: "P", TransformInteg: "I", TransformKE: "D"}
	var out []string
	for _, p := range ps {
		var ts []string
		for _, t := range p.Transforms {
			s := fmt.Sprint(letters[t.Type], t.ID)
			if t.KeyBits != 0 {
				s += fmt.Sprint("-", t.KeyBits)
			}
			ts = append(ts, s)
		}
		out = append(out, fmt.Sprintf("#%d/p%d:%s", p.Number, p.Protocol, strings.Join(ts, ",")))
	}
	return strings.Join(out, " | ")
}

// notCritical drops the mark of a critical bit, which means nothing on a known
// payload and is not kept.
func notCritical(payloads []string) []string {
	out := []string{}
	for _, p := range payloads {
		out = append(out, strings.TrimSuffix(p, "!"))
	}
	return out
}

// bare drops the details of SA payloads, which the opened cases do not give.
func bare(payloads []string) []string {
	for i, p := range payloads {
		if strings.HasPrefix(p, "SA{") {
			payloads[i] = "SA"
		}
	}
	return payloads
}
