package config

import (
	"bytes"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// An include may hit a file that is no configuration: a key, a list of passwords.
// What is wrong with such a file is not told, since that would show what is in it.
func notOurs() string {
	return "not a configuration: it has none of the keys " + strings.Join(includedKeys.names(), ", ")
}

// hasOurKey reports whether a file that could be read has one of a
// configuration's keys at its top, or nothing, as a tool writes {}.
func hasOurKey(root *yaml.Node) bool {
	if root == nil {
		return true
	}
	if root.Kind != yaml.MappingNode {
		return false
	}
	if len(root.Content) == 0 {
		return root.Tag == "!!map" && root.Anchor == ""
	}
	names := firstKeys.names()
	for i := 0; i < len(root.Content); i += 2 {
		if slices.Contains(names, root.Content[i].Value) {
			return true
		}
	}
	return false
}

// byteOrderMark is what some editors put before the first line.
var byteOrderMark = []byte("\uFEFF")

// foreign reports whether no line of a file that is not YAML looks like one of a
// configuration's keys at its top.
func foreign(src []byte) bool {
	names := firstKeys.names()
	top := -1 // the indentation of the first line that says something
	for line := range bytes.Lines(bytes.TrimPrefix(src, byteOrderMark)) {
		text := bytes.TrimLeft(line, " \t")
		if begin := bytes.TrimSpace(text); len(begin) == 0 || strings.IndexByte("#%", begin[0]) >= 0 || string(begin) == "---" || string(begin) == "{" {
			continue
		}
		if indent := len(line) - len(text); top < 0 {
			top = indent
		} else if indent != top {
			continue
		}
		name, value, _ := bytes.Cut(bytes.TrimLeft(text, `{"' `), []byte(":"))
		name = bytes.TrimRight(name, " ")
		apart := len(value) > 0 && strings.IndexByte(" \t\r\n", value[0]) >= 0 || bytes.HasSuffix(name, []byte(`"`)) // as JSON has it
		if apart && slices.Contains(names, string(bytes.TrimRight(name, `"' `))) {
			return false
		}
	}
	return top >= 0
}
