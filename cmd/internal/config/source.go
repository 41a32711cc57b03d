package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"
)

// maxFile is far above a file of a million connections.
const maxFile = 1 << 30

// source is one file of a configuration.
type source struct {
	name string  // as messages name it
	from *source // who included it; nil for the first
	at   Pos     // where
}

// fileID is what two names of one file have in common.
type fileID struct{ device, inode uint64 }

// readFiles reads the first file and, as they turn up, the ones it includes.
func (l *loader) readFiles(path string) {
	l.queue = []*source{{name: path}}
	for len(l.queue) > 0 {
		s := l.queue[0]
		l.queue = l.queue[1:]
		l.readFile(s)
	}
}

func (l *loader) readFile(s *source) {
	src, info, err := readRegular(s.name, maxFile)
	if err != nil {
		l.incomplete = true
		l.reportSource(s, reason(err))
		return
	}
	id := identify(info)
	if first, again := l.files[id]; again {
		l.reportSource(s, repeated(s, first))
		return
	}
	l.files[id] = s
	l.checkOwnership(s.name, info, func(text string) { l.reportSource(s, text) })
	l.patterns = nil
	l.decode(s, src)
	for _, pattern := range l.patterns {
		l.include(s, pattern)
	}
}

// reportSource reports what is wrong with a file where it is named: for the
// first file that is the command line, so there is no line to show.
func (l *loader) reportSource(s *source, text string) {
	if s.from == nil {
		l.report(Pos{File: s.name}, "", text)
		return
	}
	l.report(s.at, "include", printable(s.name)+": "+text)
}

// repeated says that a file is included again, and how that came about.
func repeated(s, first *source) string {
	chain := s.name
	for up := s.from; up != nil; up = up.from {
		chain = up.name + " includes " + chain
		if up == first {
			return "a loop: " + printable(chain)
		}
	}
	return "included twice; first at " + first.at.String()
}

func identify(info fs.FileInfo) fileID {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{uint64(st.Dev), st.Ino}
}

// readRegular reads a whole file, if it is one: a pipe or a device would block
// or never end. The checks are made on what was opened, not on the name.
func readRegular(path string, limit int64) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, err
	case info.IsDir():
		return nil, nil, errors.New("a directory, not a file")
	case !info.Mode().IsRegular():
		return nil, nil, errors.New("not a regular file")
	case info.Size() > limit:
		return nil, nil, fmt.Errorf("larger than %d bytes", limit)
	}
	// One byte more than there is, to notice a file that grows meanwhile. A
	// buffer of fixed size leaves no half-read copies of a secret behind.
	b := make([]byte, info.Size()+1)
	n, err := io.ReadFull(f, b)
	if err == nil {
		clear(b)
		return nil, nil, errors.New("changed while it was read")
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(b)
		return nil, nil, err
	}
	return b[:n], info, nil
}

// reason is an error of the file system without the path, which the message
// already names.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// decode takes one file's bytes. It touches no other file.
func (l *loader) decode(s *source, src []byte) {
	l.order[s.name] = len(l.order)
	before := len(l.problems)
	root, ok := l.parse(s.name, src)
	if s.from != nil && (ok && !hasOurKey(root) || !ok && foreign(src)) {
		l.problems = l.problems[:before]
		l.incomplete = true
		l.reportSource(s, notOurs())
		return
	}
	if !ok {
		l.incomplete = true
		return
	}
	v := value{l: l, file: s.name, n: root}
	switch {
	case root == nil && s.from == nil:
		v.fail("nothing in it; a configuration needs at least listen: {addresses: …}")
	case root == nil || !v.plain():
	case s.from == nil:
		l.readFirst(v)
	default:
		includedKeys.read(v, l)
	}
}

// parse returns the tree of one document, or nil if there is nothing in it.
func (l *loader) parse(name string, src []byte) (root *yaml.Node, ok bool) {
	if bad, found := firstBadCharacter(src); found {
		l.report(bad.at(name), "", bad.text)
		return nil, false
	}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	doc, err := nextDocument(dec)
	if err == nil {
		var extra *yaml.Node
		if extra, err = nextDocument(dec); err == nil {
			l.report(Pos{name, extra.Line, extra.Column}, "", "a second document; one file holds one")
			return nil, false
		}
	}
	if !errors.Is(err, io.EOF) {
		d := diagnose(src, err)
		l.report(d.at(name), "", d.text)
		return nil, false
	}
	if doc == nil || len(doc.Content) == 0 || isNothing(doc.Content[0]) {
		return nil, true
	}
	return doc.Content[0], true
}

// nextDocument reads one document. The YAML package panics where it meets what
// it thinks impossible; for us that is one more file it cannot read.
func nextDocument(dec *yaml.Decoder) (doc *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			doc, err = nil, errors.New("not readable as YAML")
		}
	}()
	doc = new(yaml.Node)
	if err := dec.Decode(doc); err != nil {
		return nil, err
	}
	return doc, nil
}

// include queues the files that a pattern in s names.
func (l *loader) include(s *source, v value) {
	pattern, ok := v.text()
	if !ok {
		return
	}
	path := beside(v.file, pattern)
	names, err := filepath.Glob(path)
	if err != nil {
		v.fail("%s is not a pattern that can match", quoted(pattern))
		return
	}
	literal := !strings.ContainsAny(path, `*?[\`)
	if literal {
		names = []string{path}
	}
	taken := 0
	for _, name := range names {
		if literal || !hiddenFile(name, path) {
			l.queue = append(l.queue, &source{name: name, from: s, at: v.pos()})
			taken++
		}
	}
	if taken == 0 {
		l.noMatch(v, path, pattern)
	}
}

// hiddenFile is true for a file that begins with a dot where the pattern does
// not: an editor's lock or swap file, which a shell's * does not match either.
func hiddenFile(name, pattern string) bool {
	return strings.HasPrefix(filepath.Base(name), ".") && !strings.HasPrefix(filepath.Base(pattern), ".")
}

// noMatch tells a folder with nothing in it from one that cannot be looked
// into, where connections would go missing silently.
func (l *loader) noMatch(v value, path, pattern string) {
	_, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.incomplete = true
		v.fail("%s: %s", printable(filepath.Dir(path)), reason(err))
		return
	}
	l.note(v.pos(), v.key, printable(pattern)+" matches no file")
}
