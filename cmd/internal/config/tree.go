package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// value is one node of a file's tree, with the path of keys that leads to it.
type value struct {
	l    *loader
	file string
	key  string
	n    *yaml.Node
	k    *yaml.Node // the key it stands under; nil in a list and at the root
	root bool       // the keys below are shown without this one's
}

func (v value) pos() Pos { return v.posOf(v.n) }

// keyPos is where the value's key stands, for what concerns it as a whole.
func (v value) keyPos() Pos {
	if v.k == nil {
		return v.pos()
	}
	return v.posOf(v.k)
}

func (v value) posOf(n *yaml.Node) Pos {
	if n == nil {
		return Pos{v.file, 1, 1}
	}
	return Pos{v.file, n.Line, n.Column}
}

// fail reports a problem with the value.
func (v value) fail(format string, args ...any) {
	v.l.report(v.pos(), v.key, fmt.Sprintf(format, args...))
}

// failKey reports a problem at the key.
func (v value) failKey(format string, args ...any) {
	v.l.report(v.keyPos(), v.key, fmt.Sprintf(format, args...))
}

// under is the value of one key below v.
func (v value) under(k, n *yaml.Node) value {
	path := k.Value
	if !goodName(path) {
		path = quoted(path)
	}
	if !v.root && v.key != "" {
		path = v.key + "." + path
	}
	return value{l: v.l, file: v.file, key: path, n: n, k: k}
}

// asRoot leaves out this value's path in front of the keys below.
func (v value) asRoot() value {
	v.root = true
	return v
}

// isNothing is true for a key with no value behind it.
func isNothing(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Style&yaml.TaggedStyle == 0
}

// kind names what a node is, in words for an operator.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a block of keys"
	case yaml.SequenceNode:
		return "a list"
	}
	return "a single value"
}

// plain refuses what would make a value stand elsewhere than where it is read,
// or be something else than it looks like.
func (v value) plain() bool {
	v.l.work++
	switch {
	case v.n.Kind == yaml.AliasNode || v.n.Anchor != "":
		v.fail("anchors and aliases (& and *) are not supported; write the value out, or use defaults")
	case v.n.Style&yaml.TaggedStyle != 0:
		v.fail("tags (words that begin with !) are not supported; put the value in quotes if it is text")
	case isNothing(v.n):
		v.failKey("nothing is given; give it a value or leave the key out")
	default:
		return true
	}
	return false
}

// block reads a block of keys into a T. Its keys are read in the order of the
// table, not of the file, so that what others start from comes first.
type block[T any] []key[T]

// key is one that a block knows: either how it is read, or why it is refused.
type key[T any] struct {
	name   string
	read   func(*T, value)
	refuse string
}

// read reads a block of keys, and is false if v is something else.
func (b block[T]) read(v value, into *T) bool {
	if v.n.Kind != yaml.MappingNode {
		v.fail("must be a block of keys (%s), not %s", strings.Join(b.names(), ", "), kind(v.n))
		return false
	}
	found := make([]*yaml.Node, 2*len(b)) // key and value, for each key of the table
	v.entries(func(k, n *yaml.Node) {
		switch i := b.index(k.Value); {
		case i < 0:
			b.unknown(v.under(k, n))
		case b[i].read == nil:
			v.under(k, n).failKey("%s", b[i].refuse)
		case found[2*i] != nil:
			v.under(k, n).failKey("given twice; first at %s", v.posOf(found[2*i]))
		default:
			found[2*i], found[2*i+1] = k, n
		}
	})
	for i := range b {
		if found[2*i] == nil {
			continue
		}
		if e := v.under(found[2*i], found[2*i+1]); e.plain() {
			b[i].read(into, e)
		}
	}
	return true
}

func (b block[T]) index(name string) int {
	return slices.IndexFunc(b, func(k key[T]) bool { return k.name == name })
}

func (b block[T]) unknown(v value) {
	if near := v.l.similar(v.k.Value, b.names()); near != "" {
		v.failKey("no such key; did you mean %q?", near)
		return
	}
	v.failKey("no such key; there are %s", strings.Join(b.names(), ", "))
}

// names are the keys that can be given.
func (b block[T]) names() []string {
	var names []string
	for _, k := range b {
		if k.read != nil {
			names = append(names, k.name)
		}
	}
	return names
}

// only is the block with every other key refused.
func (b block[T]) only(refuse string, names ...string) block[T] {
	var out block[T]
	for _, k := range b {
		if k.read != nil && !slices.Contains(names, k.name) {
			k = key[T]{name: k.name, refuse: refuse}
		}
		out = append(out, k)
	}
	return out
}

// entries calls each for every key and value of a block of keys.
func (v value) entries(each func(k, n *yaml.Node)) {
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		v.l.work++
		k := v.n.Content[i]
		if k.Kind != yaml.ScalarNode || k.Anchor != "" || k.Style&yaml.TaggedStyle != 0 || k.Tag == "!!merge" {
			v.l.report(v.posOf(k), v.key, "a key must be plain text: no list, anchor, tag or <<")
			continue
		}
		each(k, v.n.Content[i+1])
	}
}

// named calls each for every entry of a block whose keys are names that the
// operator chose.
func (v value) named(what string, each func(name string, v value)) {
	if v.n.Kind != yaml.MappingNode {
		v.fail("must be a block of %s, each under its name, not %s", what, kind(v.n))
		return
	}
	v.entries(func(k, n *yaml.Node) {
		e := v.under(k, n)
		if !goodName(k.Value) {
			e.failKey("a name has 1 to %d letters, digits and . _ - @ +", maxName)
			return
		}
		each(k.Value, e)
	})
}

const maxName = 64

func goodName(s string) bool {
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool {
		return !isAlphanumeric(r) && !strings.ContainsRune("._-@+", r)
	})
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// lacks is true if a key is not there, and none that was probably meant to be
// it: that one is reported already.
func (v value) lacks(name string) bool {
	if v.has(name) {
		return false
	}
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		if v.l.similar(v.n.Content[i].Value, []string{name}) != "" {
			return false
		}
	}
	return true
}

// has is true if there is something at the path of keys, right or wrong.
func (v value) has(path ...string) bool {
	n := v.n
	for _, name := range path {
		if n = entry(n, name); n == nil {
			return false
		}
	}
	return true
}

func entry(n *yaml.Node, name string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// items returns what is in a list, of which there must be something.
func (v value) items() []value {
	switch {
	case v.n.Kind == yaml.ScalarNode:
		v.fail("must be a list; write [%s]", asWritten(v.n))
		return nil
	case v.n.Kind != yaml.SequenceNode:
		v.fail("must be a list, not %s", kind(v.n))
		return nil
	case len(v.n.Content) == 0:
		v.fail("the list is empty; put something in or leave the key out")
		return nil
	}
	var items []value
	for _, n := range v.n.Content {
		item := value{l: v.l, file: v.file, key: v.key, n: n}
		if item.plain() {
			items = append(items, item)
		}
	}
	return items
}

// asWritten is a single value as it could stand in a list.
func asWritten(n *yaml.Node) string {
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 || strings.ContainsAny(n.Value, ",[]{}#\n") {
		return quoted(n.Value)
	}
	return printable(shortened(n.Value))
}
