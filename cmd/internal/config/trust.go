package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ikepulse/ikepulse/cmd/internal/ownership"
)

// trust finds out who else could put another file in the place of one that is
// read, and so open a tunnel to himself or to anywhere.
type trust struct {
	seen map[string]string // what was looked at, once however many files are below it: where a link points, or ""
}

func newTrust() *trust { return &trust{map[string]string{}} }

// checkOwnership reports who else could change a file that was read.
func (l *loader) checkOwnership(path string, info fs.FileInfo, report func(text string)) {
	if complaint := ownership.Complaint(info); complaint != "" {
		report(complaint)
	}
	if err := l.trust.check(path, report); err != nil {
		report(reason(err))
	}
}

// check reports each folder and each symbolic link on the way to a file that
// somebody else may change. It fails where it cannot look, but for folders that
// permissions keep from us: those that we came in by are not needed again, as
// above the working directory.
func (t *trust) check(path string, report func(text string)) error {
	if !filepath.IsAbs(path) {
		here, err := os.Getwd()
		if err != nil {
			return err
		}
		path = here + "/" + path
	}
	if err := t.walk(path, report); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// maxLinks is how many links the kernel follows on one way.
const maxLinks = 40

// walk goes the way that the kernel goes: what is above a folder that a link led
// to is not what is above the link.
func (t *trust) walk(path string, report func(text string)) error {
	at, links := "/", 0
	for todo := strings.Split(path, "/"); len(todo) > 0; {
		next := filepath.Join(at, todo[0]) // nothing in at is a link
		todo = todo[1:]
		target, err := t.look(next, report)
		if err != nil {
			return err
		}
		if target == "" {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return syscall.ELOOP
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return nil
}

// look reports who else may change a folder or a link, and tells where a link
// points.
func (t *trust) look(path string, report func(text string)) (target string, err error) {
	if target, known := t.seen[path]; known {
		return target, nil
	}
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	switch {
	case info.IsDir():
		if complaint := ownership.DirectoryComplaint(info); complaint != "" {
			report("the folder " + printable(path) + ": " + complaint)
		}
	case info.Mode()&fs.ModeSymlink != 0:
		if complaint := ownership.LinkComplaint(info); complaint != "" {
			report("the link " + printable(path) + ": " + complaint)
		}
		if target, err = os.Readlink(path); err != nil {
			return "", err
		}
	}
	t.seen[path] = target
	return target, nil
}
