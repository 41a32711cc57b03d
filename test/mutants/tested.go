package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// record is a line of tested.txt: what the last run found in a file.
type record struct {
	hash         string
	total, alive int // without those that are broken; alive are those that are not equivalent
}

// readTested reads what is there; a file that is not there says nothing.
func readTested(name string) (map[string]record, error) {
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	tested := map[string]record{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var file string
		var r record
		if _, err := fmt.Sscan(line, &file, &r.hash, &r.total, &r.alive); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", name, line, err)
		}
		tested[file] = r
	}
	return tested, nil
}

const testedHead = `# Written by make mutants MUTANTS=-write: a file, the hash of it, of the tests and of
# its part of equivalent.txt, how many changes were tried, and how many are alive.
`

// writeTested writes what is known now. A package's old lines go, so that those of
// a file that is no more do not stay.
func (t *tree) writeTested() error {
	now := map[string]record{}
	for name, r := range t.tested {
		if !slices.ContainsFunc(t.packages, func(p *pkg) bool { return p.dir == dirOf(name) }) {
			now[name] = r
		}
	}
	for _, p := range t.packages {
		for _, f := range p.files {
			now[f.name] = t.tested[f.name]
		}
	}
	var lines []string
	for name, r := range now {
		lines = append(lines, fmt.Sprintf("%s %s %d %d\n", name, r.hash, r.total, r.alive))
	}
	slices.Sort(lines)
	return os.WriteFile(filepath.Join(t.root, testedFile), []byte(testedHead+strings.Join(lines, "")), 0o644)
}

// testsOf is what the tests of a package are: its test files and their data.
func testsOf(dir string) ([]byte, error) {
	var all bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		top, _, _ := strings.Cut(filepath.ToSlash(rel), "/")
		switch {
		case err != nil:
			return err
		case d.IsDir() && rel != "." && top != "testdata":
			return filepath.SkipDir
		case d.IsDir() || top != "testdata" && !strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %d\n%s", rel, len(text), text)
		return err
	})
	return all.Bytes(), err
}

// hash is that of several texts, half of a SHA-256.
func hash(texts ...[]byte) string {
	h := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(h, "%d\n%s", len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// dirOf is the directory of a file of the module.
func dirOf(name string) string { return filepath.ToSlash(filepath.Dir(name)) }
