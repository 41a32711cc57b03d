package config

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/ikepulse/ikepulse/ike"
)

// decodeBytes is a load of one file that reads no other.
func decodeBytes(src []byte) (*Config, Problems) {
	l := newLoader(checks)
	l.decode(&source{name: "ikepulse.yaml"}, src)
	return l.finish()
}

// sound holds a result to what every result must be.
func sound(t *testing.T, src []byte, cfg *Config, ps Problems) {
	t.Helper()
	if (cfg == nil) == (len(ps) == 0) {
		t.Fatalf("config %v and %d problems", cfg, len(ps))
	}
	for i, p := range ps {
		// YAML has more line ends than \n, so a line number has no better bound.
		if p.Pos.Line < 1 || p.Pos.Line > utf8.RuneCount(src)+1 || p.Pos.Column < 1 || p.Pos.Column > len(src)+1 {
			t.Fatalf("place outside the file: %s", p)
		}
		if !utf8.ValidString(p.String()) || bytes.ContainsAny([]byte(p.String()), "\n\x1b\x00") {
			t.Fatalf("not a line of text: %q", p.String())
		}
		if i > 0 && (p.Pos.Line < ps[i-1].Pos.Line) {
			t.Fatalf("out of order: %s", ps)
		}
	}
	for _, c := range connectionsOf(cfg) {
		if len(c.Children) != 1 || !exactID(c.Local.ID) || c.Local.ID == (ike.Pattern{}) || c.Remote.ID == (ike.Pattern{}) || c.DPD.Delay <= 0 {
			t.Fatalf("incomplete and not reported: %+v", c)
		}
	}
}

func connectionsOf(cfg *Config) []Connection {
	if cfg == nil {
		return nil
	}
	return cfg.Connections
}

func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.yaml", "testdata/sample.yaml"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			src, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		cfg, ps := decodeBytes(src)
		sound(t, src, cfg, ps)
		if _, again := decodeBytes(src); again.Error() != ps.Error() {
			t.Fatalf("first\n%s\nthen\n%s", ps, again)
		}
	})
}

// Every beginning of a good file is read without harm, and so is the file with
// any one character gone.
func TestDamagedSample(t *testing.T) {
	src, err := os.ReadFile("testdata/sample.yaml")
	must(t, err)
	for n := 0; n < len(src); n += 5 {
		cfg, ps := decodeBytes(src[:n])
		sound(t, src, cfg, ps)
		without := append(bytes.Clone(src[:n]), src[n+1:]...)
		cfg, ps = decodeBytes(without)
		sound(t, src, cfg, ps)
	}
}
