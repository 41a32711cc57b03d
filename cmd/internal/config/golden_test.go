package config

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the golden files")

// checks stands for the parsers of proposals and for the host: it knows a few
// algorithms and groups.
var checks = Checks{
	IKEProposal: func(s string) error { return algorithms(s, "prfsha256", "prfsha384", "ecp256", "ecp384", "x25519") },
	ESPProposal: func(s string) error { return algorithms(s, "esn", "noesn", "x25519") },
	Common: func(a, b []string) bool {
		return slices.ContainsFunc(a, func(p string) bool { return slices.Contains(b, p) })
	},
	Group: hostGroup,
}

// hostGroup knows two groups.
func hostGroup(name string) (*user.Group, error) {
	id, there := map[string]string{"ikepulse": "990", "monitor": "991"}[name]
	if !there {
		return nil, user.UnknownGroupError(name)
	}
	return &user.Group{Name: name, Gid: id}, nil
}

func algorithms(proposal string, more ...string) error {
	known := append(more, "aes128gcm16", "aes256gcm16", "aes256", "sha256")
	for word := range strings.SplitSeq(proposal, "-") {
		if !slices.Contains(known, word) {
			return errors.New("no algorithm is called " + strconv.Quote(word))
		}
	}
	return nil
}

// stage copies a configuration into a folder of its own, makes that the
// current one, and creates the secrets that the file asks for in lines like
//
//	#: secrets/berlin.psk 0600 32
//
// with a mode and a length, since git keeps no modes.
func stage(t *testing.T, path string) (name string) {
	t.Helper()
	dir := t.TempDir()
	src, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "ikepulse.yaml"), src, 0o644))
	if beside := strings.TrimSuffix(path, ".yaml") + ".d"; exists(beside) {
		must(t, os.CopyFS(dir, os.DirFS(beside)))
	}
	more, _ := os.ReadFile(strings.TrimSuffix(abs(t, path), ".yaml") + ".secrets") // for a file that is to stay clean
	t.Chdir(dir)
	for lines := bufio.NewScanner(bytes.NewReader(append(src, more...))); lines.Scan(); {
		if words, found := strings.CutPrefix(lines.Text(), "#: "); found {
			makeSecret(t, words)
		}
	}
	return "ikepulse.yaml"
}

func makeSecret(t *testing.T, words string) {
	t.Helper()
	var path string
	var mode os.FileMode
	var size int
	_, err := fmt.Sscanf(words, "%s %o %d", &path, &mode, &size)
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, secretBytes(size), 0o600))
	must(t, os.Chmod(path, mode)) // whatever the umask
}

// canary is in every secret that tests write, and must be in nothing that is
// printed.
const canary = "Zq7-canary-"

func secretBytes(size int) []byte {
	return []byte(strings.Repeat(canary, size/len(canary)+1)[:size])
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// compare holds got against a golden file.
func compare(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		must(t, os.WriteFile(golden, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if got != string(want) {
		t.Errorf("%s\n got:\n%s\nwant:\n%s", golden, got, want)
	}
}

// abs is path from where the tests began: stage changes the folder.
func abs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	must(t, err)
	return path
}

// minBad is how many bad configurations there are at least, so that losing
// some is noticed.
const minBad = 40

func TestBad(t *testing.T) {
	paths, err := filepath.Glob("testdata/bad/*.yaml")
	must(t, err)
	if len(paths) < minBad {
		t.Fatalf("%d bad configurations, want at least %d", len(paths), minBad)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			path = abs(t, path)
			cfg, ps := Load(stage(t, path), checks)
			if len(ps) == 0 || cfg != nil {
				t.Fatalf("loaded: %+v", cfg)
			}
			compare(t, strings.TrimSuffix(path, ".yaml")+".golden", ps.Error()+"\n")
			if strings.Contains(ps.Error(), canary) {
				t.Error("a secret was printed")
			}
			checkForm(t, ps.Error())
		})
	}
}

var (
	problemLine = regexp.MustCompile(`^\S+\.yaml(:\d+:\d+)?: \S.*[^.\s]$`)
	lastLine    = regexp.MustCompile(`^(1 problem|\d+ problems); nothing was changed$`)
	place       = regexp.MustCompile(`\S+\.yaml:`)
	goTypes     = regexp.MustCompile(`\b(u?int\d*|string|bool|float\d*|struct|interface\{|slice|nil|netip|time\.Duration|yaml\.\w+|Node)\b|map\[|\[\]|!!|yaml:`)
)

// checkForm holds a message to what a person needs: a place, words, and no
// name out of the program.
func checkForm(t *testing.T, text string) {
	t.Helper()
	lines := strings.Split(text, "\n")
	for _, line := range lines[:len(lines)-1] {
		if !problemLine.MatchString(line) {
			t.Errorf("not a place and a problem: %q", line)
		}
		if name := goTypes.FindString(place.ReplaceAllString(line, "")); name != "" {
			t.Errorf("%q is not for an operator: %q", name, line)
		}
	}
	if !lastLine.MatchString(lines[len(lines)-1]) {
		t.Errorf("last line %q", lines[len(lines)-1])
	}
	if n, _ := strconv.Atoi(strings.Fields(lines[len(lines)-1])[0]); n != len(lines)-1 {
		t.Errorf("%d lines of problems, said to be %d", len(lines)-1, n)
	}
}

func TestGood(t *testing.T) {
	paths, err := filepath.Glob("testdata/good/*.yaml")
	must(t, err)
	if len(paths) == 0 {
		t.Fatal("no good configurations")
	}
	for _, path := range append(paths, "testdata/sample.yaml") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			path = abs(t, path)
			cfg, ps := Load(stage(t, path), checks)
			if ps != nil {
				t.Fatal(ps.Error())
			}
			compare(t, strings.TrimSuffix(path, ".yaml")+".golden", dump(t, cfg))
		})
	}
}

// dump is a configuration as a person can read and compare it.
func dump(t *testing.T, cfg *Config) string {
	t.Helper()
	out, err := yaml.Marshal(cfg)
	must(t, err)
	if strings.Contains(string(out), canary) {
		t.Error("a secret was printed")
	}
	return string(out)
}

// TestMain sets the umask, since a configuration that everyone may write to is
// refused.
func TestMain(m *testing.M) {
	syscall.Umask(0o022)
	os.Exit(m.Run())
}
