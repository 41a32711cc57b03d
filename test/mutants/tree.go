package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// tree is what is looked at, and what is committed about it.
type tree struct {
	root       string // of the module
	packages   []*pkg
	equivalent []entry
	tested     map[string]record
}

// pkg is a package with its mutants.
type pkg struct {
	dir   string // as it is called from the root
	files []*file
}

// file is a source file that is not a test.
type file struct {
	name    string // as it is called from the root
	source  []byte
	hash    string
	mutants []*mutant
}

const (
	equivalentFile = "test/mutants/equivalent.txt"
	testedFile     = "test/mutants/tested.txt"
)

// load reads the packages that go list knows by the patterns.
func load(patterns []string) (*tree, error) {
	if len(patterns) == 0 {
		return nil, errors.New("no package is given")
	}
	list := exec.Command("go", append([]string{"list", "-json=Dir,GoFiles,CgoFiles,Module"}, patterns...)...)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	t := &tree{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Dir               string
			GoFiles, CgoFiles []string
			Module            struct{ Dir string }
		}
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if t.root == "" {
			if err := t.readCommitted(p.Module.Dir); err != nil {
				return nil, err
			}
		}
		if err := t.add(p.Dir, append(p.GoFiles, p.CgoFiles...)); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *tree) readCommitted(root string) (err error) {
	t.root = root
	if t.equivalent, err = readEquivalent(filepath.Join(root, equivalentFile)); err != nil {
		return err
	}
	t.tested, err = readTested(filepath.Join(root, testedFile))
	return err
}

// add reads a package and makes its mutants.
func (t *tree) add(dir string, names []string) error {
	rel, err := filepath.Rel(t.root, dir)
	if err != nil {
		return err
	}
	p := &pkg{dir: filepath.ToSlash(rel)}
	tests, err := testsOf(dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		source, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		f := &file{name: p.dir + "/" + name, source: source}
		if f.mutants, err = mutate(f.name, source); err != nil {
			return err
		}
		if len(f.mutants) > 0 {
			f.hash = hash(source, tests, t.entriesOf(f.name))
			p.files = append(p.files, f)
		}
	}
	t.packages = append(t.packages, p)
	return nil
}

// hasChanged is what is in the packages of which the files have another hash
// than at their last run.
func (t *tree) hasChanged() (changed []*pkg) {
	for _, p := range t.packages {
		c := &pkg{dir: p.dir}
		for _, f := range p.files {
			if t.tested[f.name].hash != f.hash {
				c.files = append(c.files, f)
			}
		}
		if len(c.files) > 0 {
			changed = append(changed, c)
		}
	}
	return changed
}
