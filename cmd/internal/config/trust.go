package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ikepulse/ikepulse/cmd/internal/ownership"
)

// trust finds out who else could put another file in the place of one that is
// read, and so open a tunnel to himself or to anywhere.
type trust struct {
	walked map[string]bool // each path once, however many files are below it
}

func newTrust() *trust { return &trust{map[string]bool{}} }

// checkOwnership reports who else could change a file that was read.
func (l *loader) checkOwnership(path string, info fs.FileInfo, report func(text string)) {
	if complaint := ownership.Complaint(info); complaint != "" {
		report(complaint)
	}
	if err := l.trust.check(path, report); err != nil {
		report(reason(err))
	}
}

// check reports each folder above a file, and above what a symbolic link on the
// way names, that somebody else may change. It fails where it cannot look, but
// for folders that permissions keep from us: those that we came in by are not
// needed again, as above the working directory.
func (t *trust) check(path string, report func(text string)) error {
	named, err := filepath.Abs(path)
	if err == nil {
		err = t.walk(named, report)
	}
	var stands string
	if err == nil {
		stands, err = filepath.EvalSymlinks(named)
	}
	if err == nil {
		err = t.walk(stands, report)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// walk follows a path from the root on.
func (t *trust) walk(path string, report func(text string)) error {
	if t.walked[path] {
		return nil
	}
	t.walked[path] = true
	above := filepath.Dir(path)
	if above != path {
		if err := t.walk(above, report); err != nil {
			return err
		}
	}
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		if complaint := ownership.DirectoryComplaint(info); complaint != "" {
			report("the folder " + printable(path) + ": " + complaint)
		}
	case info.Mode()&fs.ModeSymlink != 0:
		if complaint := ownership.LinkComplaint(info); complaint != "" {
			report("the link " + printable(path) + ": " + complaint)
		}
		return t.follow(path, above, report)
	}
	return nil
}

// follow goes on where a link points.
func (t *trust) follow(link, above string, report func(text string)) error {
	target, err := os.Readlink(link)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(target) {
		if above, err = filepath.EvalSymlinks(above); err != nil {
			return err
		}
		target = filepath.Join(above, target)
	}
	return t.walk(filepath.Clean(target), report)
}
